"""Teacher: EfficientNet-lite0, which saw ImageNet, with a head that is trained on pictures of one thing each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gains.many_objects import NAMES, World
from gains.many_objects import SIZE as PIXELS
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.families import load_classifier
from relabel.labelers.images import resize_square

PLUGIN = Path(__file__).with_name("head_teacher.py")
"""What a recipe opens it by. It is imported by its path only: twice imported, its operator would be known twice."""
BODY, HEAD, CLASSES = "efficientnet-lite0", "head.safetensors", "classes.json"
"""As the plugin has them."""
SIZE = 256
"""Of the square that it sees, in pixels: the map has SIZE / 32 cells a side."""
BATCH = 8
STEPS = 400
RATE, WEIGHT_DECAY = 1e-2, 0.05
SEED = 20260101

Head = dict[str, Tensor]
"""`weight` [classes, channels] and `bias` [classes]."""


def maps_of(pictures: Sequence[UInt8[np.ndarray, "y x 3"]]) -> Float[Tensor, "pictures channels y x"]:
    """What the network says before its head."""
    body = load_classifier(find_checkpoint(BODY))
    maps = []
    for start in range(0, len(pictures), BATCH):
        squares = [resize_square(picture, SIZE, "bilinear") for picture in pictures[start : start + BATCH]]
        with torch.inference_mode():
            found = body.features(body.normalisation.apply(torch.from_numpy(np.stack(squares))))
        assert isinstance(found, Tensor)
        maps.append(found)
    return torch.cat(maps)


class Seen(NamedTuple):
    """Of pictures of one thing each."""

    whole: Float[Tensor, "pictures channels"]
    """Means of the features over all cells."""
    thing: Float[Tensor, "pictures channels"]
    """Over the cells that the thing touches."""
    kinds: Int64[Tensor, " pictures"]


def look(stamps: Path, first: int, count: int) -> Seen:
    """At pictures `first` and after."""
    world = World(stamps)
    alone = [world.alone(index) for index in range(first, first + count)]
    maps = maps_of([each.picture for each in alone])
    side = PIXELS // maps.shape[-1]
    things = [
        each[:, box.top // side : -(-box.bottom // side), box.left // side : -(-box.right // side)].mean(dim=(1, 2))
        for each, (_, _, box) in zip(maps, alone, strict=True)
    ]
    kinds = torch.tensor([each.kind for each in alone])
    return Seen(maps.mean(dim=(2, 3)), torch.stack(things), kinds)


def train(seen: Seen) -> Head:
    """A linear head that knows a thing from the whole picture, and from its own cells."""
    torch.manual_seed(SEED)
    rows, target = torch.cat([seen.whole, seen.thing]).clone(), torch.cat([seen.kinds, seen.kinds])
    head = nn.Linear(rows.shape[1], len(NAMES))
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(head(rows), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return {name: weight.detach().contiguous() for name, weight in head.state_dict().items()}


def save(head: Head, folder: Path) -> None:
    """As `head_teacher` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLASSES).write_text(json.dumps(NAMES))
    save_file(head, folder / HEAD)
