"""Pairing: an image-text model on frozen features and bags of words, trained by contrast; retrieval with it."""

import dataclasses
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

WORDS = 4096
"""Buckets that words are hashed to; the last one means that a text has none."""
WIDTH = 128
WEIGHT_DECAY = 0.1
WORD = re.compile(r"\w+")

Vectors = Mapping[str, Float[Tensor, " channels"]]
"""Features by sample key."""


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Shares of queries; a hit is anything that has the same text."""

    first: float
    """Texts whose image comes first."""
    five: float
    """Texts whose image is among the first five."""
    text: float
    """Images whose text comes first."""


class Pairs(nn.Module):
    """Both encoders: unit vectors of WIDTH."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.LayerNorm(channels), nn.Dropout(0.3), nn.Linear(channels, 256), nn.GELU(), nn.Linear(256, WIDTH)
        )
        self.words = nn.EmbeddingBag(WORDS, 256, mode="mean")
        self.text = nn.Sequential(nn.LayerNorm(256), nn.Dropout(0.1), nn.Linear(256, WIDTH))
        self.scale = nn.Parameter(torch.tensor(2.5))

    def images(self, features: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows width"]:
        return nn.functional.normalize(self.image(features), dim=1)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "rows width"]:
        numbers = [words_of(text) for text in texts]
        starts = np.cumsum([0, *(len(each) for each in numbers[:-1])])
        bags = self.words(torch.tensor(np.concatenate(numbers)), torch.tensor(starts))
        return nn.functional.normalize(self.text(bags), dim=1)


def words_of(text: str) -> list[int]:
    """By hash, the same in every process."""
    return [zlib.crc32(word.encode()) % (WORDS - 1) for word in WORD.findall(text.lower())] or [WORDS - 1]


def train(
    batches: Iterable[tuple[Sequence[str], Sequence[str]]], steps: int, vectors: Vectors, seed: int, rate: float
) -> Pairs:
    """Contrastive (arXiv 2103.00020) on batches of keys and texts; of the two that show one text, neither is wrong.

    Raises ValueError where there are fewer batches than steps.
    """
    torch.manual_seed(seed)
    model = Pairs(len(next(iter(vectors.values()))))
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    taken = 0
    for keys, texts in batches:
        images = model.images(torch.stack([vectors[key] for key in keys]))
        logits = model.scale.exp().clamp(max=50) * model.texts(texts) @ images.T
        same = same_text(texts, texts).float()
        target = same / same.sum(dim=1, keepdim=True)
        loss = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        taken += 1
        if taken == steps:
            return model.eval()
    raise ValueError(f"expected {steps} batches, got {taken}")


def same_text(one: Sequence[str], other: Sequence[str]) -> Bool[Tensor, "one other"]:
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*one, *other]))}
    first, second = (torch.tensor([numbers[text] for text in texts]) for texts in (one, other))
    return first[:, None] == second[None]


@torch.inference_mode()
def retrieve(model: Pairs, features: Float[Tensor, "scenes channels"], texts: Sequence[str]) -> Retrieval:
    """Among these scenes, each with what people say of it."""
    likeness = model.texts(texts) @ model.images(features).T
    hits = same_text(texts, texts)

    def found(likeness: Float[Tensor, "queries scenes"], count: int) -> float:
        best = likeness.topk(count, dim=1).indices
        return float(hits.gather(1, best).any(dim=1).float().mean())

    return Retrieval(found(likeness, 1), found(likeness, 5), found(likeness.T, 1))
