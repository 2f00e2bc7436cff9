"""Labeler `mask`: a semantic segmentation model read at every pixel of the image's own size.

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..digests import Json
from ..errors import BadSample, Refused, UsageError
from ..labels.class_map import ClassMap
from ..labels.contract import Classes, Geometry, LabelContract
from ..labels.mask import id_dtype, mask_contract
from ..reasons import Reason
from ..shards.shard import Value
from .checkpoints import find_checkpoint, local_checkpoint
from .images import MAX_PIXELS, decode_image, resize_square
from .labeler import Batch, Labeler, Labels, Parameters, Prepared
from .registry import register

NAMES = ("model", "class_names")
"""Parameters that only name what the facts hold by digest."""
UNIDENTIFIED = ("class_names", "revision")
"""Facts that are kept for people and for fetching; the digests beside them are the identity."""
ROOM = 2**25
"""Pixels of the largest image by default: 33 million, more than most cameras give."""


class MaskParameters(Parameters):
    """What a mask is made with."""

    model: str
    """`hf:org/name[@revision]`, or a folder that transformers saved: a model for semantic segmentation."""
    input_size: int = Field(default=512, ge=32, le=4096)
    """Pixels of the square that the model sees, best what it was trained with. The mask has the image's own size."""
    confidence: float = Field(default=0.0, ge=0, le=1)
    """A pixel whose most probable class is less probable is ignored: 255, or 65535 with more than 255 classes."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in; probabilities are always computed in fp32."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are stretched to the square, antialiased."""
    max_pixels: int = Field(default=ROOM, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters. A mask takes a byte per pixel (two with more than 255 classes) until it is
    written; for large images lower `resources.part_rows` too."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in order, where the model does not bring them."""


@register
class MaskLabeler(Labeler[MaskParameters]):
    """Encoded image in; one class per pixel of the image out, and the mean probability of each class that occurs."""

    name = "mask"
    version = 1
    Parameters = MaskParameters

    def __init__(self, parameters: MaskParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self._network: Any = None
        self._numerics: dict[str, Json] = {}

    def weight_files(self) -> Sequence[Path]:
        checkpoint = local_checkpoint(self.parameters.model)
        return checkpoint.files if checkpoint else ()

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
        names, found = self.parameters.class_names, segmenter.class_map
        if names and len(names) != len(found.names):
            raise UsageError(
                f"the model tells {len(found.names)} classes apart, got {len(names)} class names. Give `class_names` "
                "for all of them, in order."
            )
        class_map = ClassMap(names) if names else found
        return {
            "weights": segmenter.weights,
            "revision": segmenter.revision,
            "architecture": segmenter.architecture,
            "normalisation": segmenter.normalisation.to_json(),
            "grid": list(grid),
            "classes": class_map.declare().model_dump(mode="json"),
            "class_names": list(class_map.names),
        }

    def identity(self) -> dict[str, Json]:
        parameters = self.parameters.model_dump(mode="json")
        return {
            "parameters": {name: value for name, value in parameters.items() if name not in NAMES},
            **{name: value for name, value in self._known_facts().items() if name not in UNIDENTIFIED},
        }

    def writes(self) -> LabelContract:
        geometry = Geometry(
            size=self.parameters.input_size, interpolation=self.parameters.interpolation, orientation="exif"
        )
        classes = Classes.model_validate(self._known_facts()["classes"])
        return mask_contract(self.label, classes, geometry, self.parameters.confidence)

    def _known_facts(self) -> dict[str, Json]:
        if not self.facts:
            raise UsageError("this labeler has no facts yet. Set `labeler.facts = Lock(path).facts(labeler)` first.")
        return self.facts

    def prepare(self, sample: Mapping[str, Value]) -> Prepared:
        data = sample["image"]
        if not isinstance(data, bytes):
            raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
        image = decode_image(data, self.parameters.max_pixels)
        height, width, _ = image.shape
        square = resize_square(image, self.parameters.input_size, self.parameters.interpolation)
        return {"image": square, "height": np.array(height, np.int32), "width": np.array(width, np.int32)}

    def load(self, device: str) -> None:
        """Raises Refused where the weights are not those of the facts, or the network does not run on this device."""
        from .inference import fix_kernels, numerics
        from .segmenters import FixedLogits

        facts = self._known_facts()
        segmenter = self.open_segmenter(facts["revision"])
        if segmenter.weights != facts["weights"]:
            raise Refused(
                f"the weights of {self.parameters.model} on this machine have digest {segmenter.weights}, the plan was "
                f"made with {facts['weights']}. Put the same files on every machine, or plan again."
            )
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

    def numerics(self) -> dict[str, Json]:
        return self._numerics
