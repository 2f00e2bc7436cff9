"""Segmenters: networks that give logits for every class on a grid over the image, opened and run in fixed batches."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from ..digests import digest
from ..errors import Refused, UsageError
from ..labels.class_map import ClassMap
from .checkpoints import TRANSFORMERS, Checkpoint
from .classifiers import state_digest
from .pretrained import Normalisation, load_pretrained, read_architecture, read_class_map, read_normalisation


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A semantic segmentation network in eval mode, fp32, on the CPU."""

    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    """[n, 3, y, x] to logits [n, classes, rows, columns] on a grid over the image."""
    normalisation: Normalisation
    architecture: str
    """Digest of what the network computes, apart from weights."""
    class_map: ClassMap
    weights: str
    """Digest of the weights."""
    revision: str | None = None
    """The commit that the weights came from, where there is one."""
    packages: tuple[str, ...] = ()
    """Whose versions decide the last bits, beyond torch's."""


def load_segmenter(checkpoint: Checkpoint) -> Segmenter:
    """Raises UsageError for a checkpoint of another library, Refused where it does not load whole."""
    if checkpoint.architecture != TRANSFORMERS:
        raise UsageError(
            f"a mask needs a segmentation model of transformers, got {checkpoint.architecture}. Give hf:org/name or a "
            "folder that `AutoModelForSemanticSegmentation` can load (SegFormer, UperNet, DPT, BEiT)."
        )
    network = load_pretrained(checkpoint, "SemanticSegmentation")
    return Segmenter(
        network=network,
        logits=lambda pixels: network(pixels).logits,
        normalisation=read_normalisation(checkpoint),
        architecture=read_architecture(checkpoint),
        class_map=read_class_map(network),
        weights=checkpoint.sha256(),
        revision=checkpoint.revision,
        packages=(TRANSFORMERS,),
    )


def from_module(network: nn.Module, *, normalisation: Normalisation, class_names: Sequence[str]) -> Segmenter:
    """Any network of your own that takes [n, 3, y, x] to logits [n, classes, rows, columns].

    The weights are known by their values, the architecture by the network's printed structure.
    """
    return Segmenter(
        network=network.eval(),
        logits=network,
        normalisation=normalisation,
        architecture=digest(repr(network)),
        class_map=ClassMap(tuple(class_names)),
        weights=state_digest(network),
    )


class FixedLogits:
    """uint8 images to logits, on a device: every call of the network has exactly `compute_batch` rows."""

    def __init__(self, segmenter: Segmenter, device: str, dtype: Literal["fp32", "bf16"], compute_batch: int) -> None:
        self.segmenter, self.compute_batch = segmenter, compute_batch
        self.device = torch.device(device)
        self.dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        segmenter.network.to(self.device, self.dtype)

    def __call__(self, images: UInt8[np.ndarray, "rows size size 3"]) -> Iterator[Float32[Tensor, "classes y x"]]:
        """One grid of logits per image, in order."""
        for start in range(0, len(images), self.compute_batch):
            chunk = images[start : start + self.compute_batch]
            padding = np.repeat(chunk[-1:], self.compute_batch - len(chunk), axis=0)
            yield from self._run(np.concatenate([chunk, padding]))[: len(chunk)]

    @torch.inference_mode()
    def _run(self, images: UInt8[np.ndarray, "batch size size 3"]) -> Float32[Tensor, "batch classes y x"]:
        pixels = torch.from_numpy(images).to(self.device)
        return self.segmenter.logits(self.segmenter.normalisation.apply(pixels).to(self.dtype)).float()

    def prove(self, size: int) -> tuple[int, int]:
        """The grid (rows, columns) at `size` x `size`; raises Refused where the output is no logits of its classes."""
        name, classes = type(self.segmenter.network).__name__, len(self.segmenter.class_map.names)
        images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
        try:
            first, second = self(images)
        except (RuntimeError, ValueError) as error:
            raise Refused(
                f"{name} does not run on images of {size} x {size} pixels: {error}. Set `input_size` to what the "
                "model was trained with."
            ) from error
        if first.dim() != 3 or len(first) != classes or not bool(torch.isfinite(torch.stack([first, second])).all()):
            raise Refused(
                f"{name} must give finite logits [{classes} classes, rows, columns] per image, got "
                f"{list(first.shape)}. Its class names and its head do not fit, or its weights are broken."
            )
        return int(first.shape[1]), int(first.shape[2])
