"""Classifiers: an image classifier opened as features before pooling and the linear head behind it.

Whether the head really reads the mean of the features (or a class token) is not assumed here: `dense` proves it.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..digests import digest
from ..errors import Refused
from ..labels.class_map import ClassMap
from .pretrained import Normalisation

POINTWISE = (nn.Flatten, nn.Dropout, nn.Identity)
"""What may stand beside the linear layer of a head: nothing that changes a pooled vector at inference."""


class Features(NamedTuple):
    """The last features of a batch, as the head's input or before the mean over cells."""

    cells: Tensor
    """[n, channels, y, x]."""
    token: Tensor | None = None
    """The class token [n, channels], where there is one."""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """An image classifier in eval mode, fp32, on the CPU."""

    network: nn.Module
    features: Callable[[Tensor], Tensor | Features]
    """[n, 3, y, x] to what the network pools or reads its class token from; a plain tensor is a map of cells."""
    logits: Callable[[Tensor], Tensor]
    """[n, 3, y, x] to the network's ordinary logits [n, classes]."""
    head: nn.Linear
    normalisation: Normalisation
    architecture: str
    """Digest of what the network computes, apart from weights."""
    load_class_map: Callable[[], ClassMap]
    weights: str
    """Digest of the weights."""
    revision: str | None = None
    """The commit or version that the weights came from, where there is one."""
    packages: tuple[str, ...] = ()
    """Whose versions decide the last bits, beyond torch's."""


def from_module(
    network: nn.Module,
    *,
    features: Callable[[Tensor], Tensor | Features],
    head: nn.Module,
    normalisation: Normalisation,
    class_names: Sequence[str],
) -> Classifier:
    """Any classifier of your own: `features` before pooling, `head` behind it, `network` from pixels to logits.

        from_module(net, features=net.trunk, head=net.fc, normalisation=IMAGENET, class_names=names)

    The weights are known by their values, the architecture by the network's printed structure. Raises Refused where
    the head is not one linear layer.
    """
    network.eval()
    names = tuple(class_names)
    return Classifier(
        network=network,
        features=features,
        logits=network,
        head=linear_head(network, head),
        normalisation=normalisation,
        architecture=digest(repr(network)),
        load_class_map=lambda: ClassMap(names),
        weights=state_digest(network),
    )


IMAGENET = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What most networks trained on ImageNet expect."""


def state_digest(network: nn.Module) -> str:
    """Digest of all weights and buffers by name, dtype, shape and value."""
    return digest(
        {name: [str(value.dtype), list(value.shape), _sha256(value)] for name, value in network.state_dict().items()}
    )


def _sha256(value: Tensor) -> str:
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def linear_head(network: nn.Module, head: object) -> nn.Linear:
    """The one linear layer of a head; raises Refused where there is anything else that changes a vector."""
    layers = [layer for layer in (head.modules() if isinstance(head, nn.Module) else ()) if type(layer) not in (
        nn.Sequential, nn.ModuleList)]  # fmt: skip
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) != 1 or any(not isinstance(layer, (nn.Linear, *POINTWISE)) for layer in layers):
        raise Refused(
            f"{type(network).__name__} must end in one linear layer after pooling, got {head}. A label map needs a "
            "classifier whose head is linear (no MLP, no norm after pooling, no second head for distillation): "
            "ResNet, RegNet, EfficientNet, Swin, ViT, DeiT, DINOv2."
        )
    return linear[0]


def from_tokens(tokens: Float[Tensor, "n tokens channels"], num_prefix: int) -> Features:
    """Tokens in rows of a square grid, after `num_prefix` others of which the first is the class token."""
    rows, count, channels = tokens.shape
    side = math.isqrt(count - num_prefix)
    if side * side != count - num_prefix:
        raise Refused(
            f"{count} tokens less {num_prefix} that are no patches were expected to fill a square grid, as a square "
            "image gives it. This network pools tokens in its own way; use a ViT, DeiT, DINOv2, Swin or a convolution."
        )
    cells = tokens[:, num_prefix:].transpose(1, 2).reshape(rows, channels, side, side)
    return Features(cells, tokens[:, 0] if num_prefix else None)
