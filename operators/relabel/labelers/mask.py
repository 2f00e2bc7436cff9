"""Labeler `mask`: a semantic segmentation model read at every pixel of the image's own size.

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..digests import Json
from ..errors import BadSample
from ..labels.class_map import ClassMap
from ..labels.contract import LabelContract
from ..labels.mask import id_dtype, mask_contract
from ..reasons import Reason
from .checkpoints import find_checkpoint
from .image_model import ImageModel, ImageModelParameters
from .images import MAX_PIXELS
from .labeler import Batch, Labels
from .registry import register

ROOM = 2**25
"""Pixels of the largest image by default: 33 million, more than most cameras give."""


class MaskParameters(ImageModelParameters):
    """What a mask is made with."""

    model: str
    """`hf:org/name[@revision]`, or a folder that transformers saved: a model for semantic segmentation."""
    input_size: int = Field(default=512, ge=32, le=4096)
    """Pixels of the square that the model sees, best what it was trained with. The mask has the image's own size."""
    confidence: float = Field(default=0.0, ge=0, le=1)
    """A pixel whose most probable class is less probable is ignored: 255, or 65535 with more than 255 classes."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in; probabilities are always computed in fp32."""
    max_pixels: int = Field(default=ROOM, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters.
    A mask takes a byte per pixel (two with more than 255 classes) until it is written; for large images lower
    `resources.part_rows` too."""


@register
class MaskLabeler(ImageModel[MaskParameters]):
    """Encoded image in; one class per pixel of the image out, and the mean probability of each class that occurs."""

    name = "mask"
    version = 1

    def __init__(self, parameters: MaskParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self._network: Any = None

    def inspected_parameters(self) -> dict[str, Json]:
        return self.parameters.model_dump(mode="json", include={"model", "input_size", "class_names"})

    def open_segmenter(self, revision: str | None) -> Any:
        """The `segmenters.Segmenter` to be read, at `revision` where the facts name one.

        A labeler of your own overrides this one method with `segmenters.from_module`, and `weight_files` with the
        files that it reads; everything else stays as it is.
        """
        from .segmenters import load_segmenter

        return load_segmenter(find_checkpoint(self.parameters.model, revision))

    def inspect(self) -> dict[str, Json]:
        """Loads the weights on the CPU and runs them once: what cannot work fails here, before any cluster."""
        from .segmenters import FixedLogits

        segmenter = self.open_segmenter(None)
        grid = FixedLogits(segmenter, "cpu", "fp32", 2).prove(self.parameters.input_size)
        found, names = segmenter.class_map, self.parameters.class_names
        return self.describe(segmenter, grid, ClassMap(names) if names else found, len(found.names))

    def writes(self) -> LabelContract:
        return mask_contract(self.label, self.classes(), self.geometry(), self.parameters.confidence)

    def load(self, device: str) -> None:
        """Raises Refused where the weights are not those of the facts, or the network does not run on this device."""
        from .inference import fix_kernels, numerics
        from .segmenters import FixedLogits

        segmenter = self.open_segmenter(self.known_facts()["revision"])
        self.check_digest("weights", segmenter.weights)
        fix_kernels(self.threads)
        self._network = FixedLogits(segmenter, device, self.parameters.dtype, self.compute_batch)
        self._network.prove(self.parameters.input_size)
        packages = {name: version(name) for name in segmenter.packages}
        self._numerics = {**numerics(self._network.device), **packages, "compute_batch": self.compute_batch}

    def __call__(self, batch: Batch) -> Labels:
        """Raises BadSample where an image's logits are not finite: the caller halves the batch until it is alone."""
        from .pixels import classify_pixels

        assert self._network is not None, "load() comes before the first batch"
        heights, widths = np.asarray(batch["height"]), np.asarray(batch["width"])
        dtype, ignore = id_dtype(self.facts["classes"]["count"])
        masks = []
        for logits, height, width in zip(self._network(np.asarray(batch["image"])), heights, widths, strict=True):
            if not bool(logits.isfinite().all()):
                raise BadSample(Reason.BAD_OUTPUT, "the network's logits are not finite")
            masks.append(classify_pixels(logits, int(height), int(width), self.parameters.confidence, dtype, ignore))
        return self.columns(
            map=[mask.map.tobytes() for mask in masks],
            height=heights,
            width=widths,
            classes=[mask.classes for mask in masks],
            confidence=[mask.confidence for mask in masks],
        )
