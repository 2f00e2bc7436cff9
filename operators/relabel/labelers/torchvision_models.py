"""torchvision models: `torchvision:NAME[@WEIGHTS]`, with the weights that the library itself names.

torchvision is optional and is imported only for its own models.
"""

import io
import itertools

import torch
from torch import nn

from ..digests import digest
from ..errors import Refused
from ..labels.class_map import ClassMap
from .checkpoints import TORCHVISION, Checkpoint
from .classifiers import Classifier, linear_head
from .pretrained import Normalisation
from .torchvision_weights import entry_of, models

POOLS = ("avgpool",)
HEADS = ("fc", "classifier", "head", "heads")


def load(checkpoint: Checkpoint) -> Classifier:
    """Raises UsageError without torchvision, Refused where the weights do not fit or the head is not linear."""
    entry = entry_of(checkpoint.network, checkpoint.revision)
    network = models().get_model(checkpoint.network, weights=None)
    state = torch.load(io.BytesIO(checkpoint.weights[0].read_bytes()), map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refused(
            f"the weights in {checkpoint.weights[0].name} do not fit {checkpoint.network}: {error}"
        ) from error
    network.eval()
    head = next((name for name in HEADS if hasattr(network, name)), "")
    seen = entry.transforms()
    return Classifier(
        network=network,
        features=trunk(network, head),
        logits=network,
        head=linear_head(network, getattr(network, head, None)),
        normalisation=Normalisation(1 / 255, tuple(seen.mean), tuple(seen.std)),
        architecture=digest([TORCHVISION, checkpoint.network]),
        load_class_map=lambda: ClassMap(tuple(entry.meta["categories"])),
        weights=checkpoint.sha256(),
        revision=checkpoint.revision,
        packages=(TORCHVISION,),
    )


def trunk(network: nn.Module, head: str) -> nn.Sequential:
    """All children before the pooling, in order: what a network of torchvision applies first."""
    names = [name for name, _ in network.named_children()]
    if "encoder" in names:
        raise Refused(
            f"{type(network).__name__} of torchvision adds its class token between its children, where nothing can "
            "read it. Use the same network from transformers (hf:...) or timm (timm:...)."
        )
    stop = next((name for name in POOLS if name in names), head)
    kept = itertools.takewhile(lambda name: name != stop, names)
    return nn.Sequential(*(network.get_submodule(name) for name in kept))
