"""Labeler `label_map`: an image classifier read at every cell of its last feature map (ReLabel, arXiv 2101.05022).

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import BadSample, Refused, UsageError
from ..labels.class_map import ClassMap
from ..labels.contract import Classes, Geometry, LabelContract
from ..labels.label_map import Arrays, label_map_contract
from ..reasons import Reason
from ..shards.shard import Value
from .checkpoints import LITE_PREFIX, TRANSFORMERS, find_checkpoint, local_checkpoint
from .images import MAX_PIXELS, decode_image, resize_square
from .labeler import Batch, Labeler, Labels, Parameters, Prepared
from .registry import register

STRIDE = 32
NAMES = ("model", "class_names")
"""Parameters that only name what the facts hold by digest."""
UNIDENTIFIED = ("class_names", "revision")
"""Facts that are kept for people and for fetching; the digests beside them are the identity."""


class LabelMapParameters(Parameters):
    """What a label map is made with."""

    model: str
    """`efficientnet-lite0` (1, 2), `hf:org/name[@revision]`, or a folder that transformers saved."""
    input_size: int = Field(ge=STRIDE, le=4096)
    """Pixels of the square that the model sees; a multiple of 32 for the lite nets. The map is 1/32 of it."""
    top_k: int = Field(default=5, ge=1)
    """Classes kept per cell; the mass of the others is kept as one number."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are stretched to the square, antialiased."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in order, where the model does not bring them."""

    @model_validator(mode="after")
    def _fits_the_stride(self) -> "LabelMapParameters":
        if self.model.startswith(LITE_PREFIX) and self.input_size % STRIDE:
            nearest = round(self.input_size / STRIDE) * STRIDE
            raise ValueError(
                f"input_size must be a multiple of {STRIDE} for {self.model} (else its padding shifts the map), "
                f"got {self.input_size}; the nearest is {nearest}."
            )
        return self


@register
class LabelMapLabeler(Labeler[LabelMapParameters]):
    """Encoded image in; ids, scores and residual per cell out.

    A network whose output is not finite on a batch raises BadSample(BAD_OUTPUT) for the batch: the caller halves it
    until the bad sample is alone.
    """

    name = "label_map"
    version = 1
    Parameters = LabelMapParameters

    def __init__(self, parameters: LabelMapParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self._label: Callable[[np.ndarray], Arrays] | None = None
        self._numerics: dict[str, Json] = {}

    def weight_files(self) -> Sequence[Path]:
        checkpoint = local_checkpoint(self.parameters.model)
        return checkpoint.files if checkpoint else ()

    def inspected_parameters(self) -> dict[str, Json]:
        names = self.parameters.class_names
        return {"model": self.parameters.model, "input_size": self.parameters.input_size,
                "class_names": list(names) if names else None}  # fmt: skip

    def inspect(self) -> dict[str, Json]:
        """Loads the weights on the CPU and proves the surgery: what cannot work fails here, before any cluster."""
        from .classifiers import load_classifier
        from .dense import DenseClassifier

        checkpoint = find_checkpoint(self.parameters.model)
        classifier = load_classifier(checkpoint)
        grid = DenseClassifier(classifier, "cpu", "fp32").prove(self.parameters.input_size)
        names = self.parameters.class_names
        class_map = ClassMap(names) if names else classifier.load_class_map()
        if len(class_map.names) != classifier.head.out_features:
            raise UsageError(
                f"the model tells {classifier.head.out_features} classes apart, got {len(class_map.names)} class "
                "names. Give `class_names` for all of them, in order."
            )
        normalisation = classifier.normalisation
        return {
            "weights": checkpoint.sha256(),
            "revision": checkpoint.revision,
            "architecture": classifier.architecture,
            "normalisation": {"scale": normalisation.scale, "mean": list(normalisation.mean),
                              "std": list(normalisation.std)},
            "grid": list(grid),
            "classes": class_map.declare().model_dump(mode="json"),
            "class_names": list(class_map.names),
        }  # fmt: skip

    def identity(self) -> dict[str, Json]:
        parameters = self.parameters.model_dump(mode="json")
        return {
            "parameters": {name: value for name, value in parameters.items() if name not in NAMES},
            **{name: value for name, value in self._known_facts().items() if name not in UNIDENTIFIED},
        }

    def writes(self) -> LabelContract:
        facts = self._known_facts()
        geometry = Geometry(
            size=self.parameters.input_size, interpolation=self.parameters.interpolation, orientation="exif"
        )
        rows, columns = facts["grid"]
        classes = Classes.model_validate(facts["classes"])
        return label_map_contract(self.label, classes, (rows, columns), self.parameters.top_k, geometry)

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
        """Raises Refused where the weights are not those of the facts, or the surgery's proof fails on this device."""
        from .classifiers import load_classifier
        from .dense import DenseClassifier
        from .inference import FixedBatches, fix_kernels, numerics

        facts = self._known_facts()
        checkpoint = find_checkpoint(self.parameters.model, facts["revision"])
        found = checkpoint.sha256()
        if found != facts["weights"]:
            raise Refused(
                f"the weights of {self.parameters.model} on this machine have sha256 {found}, the plan was made with "
                f"{facts['weights']}. Put the same files on every machine, or plan again."
            )
        fix_kernels(self.threads)
        network = DenseClassifier(load_classifier(checkpoint), device, self.parameters.dtype)
        grid = network.prove(self.parameters.input_size)
        assert list(grid) == facts["grid"], (grid, facts["grid"])
        self._label = FixedBatches(network, self.compute_batch, self.parameters.top_k, self.parameters.input_size)
        engine = {"transformers": version(TRANSFORMERS)} if checkpoint.architecture == TRANSFORMERS else {}
        self._numerics = {**numerics(network.device), **engine, "compute_batch": self.compute_batch}

    def __call__(self, batch: Batch) -> Labels:
        assert self._label is not None, "load() comes before the first batch"
        arrays = self._label(np.asarray(batch["image"]))
        complete = self.parameters.top_k == self.facts["classes"]["count"]
        finite = np.isfinite(arrays["scores"]).all() and (complete or np.isfinite(arrays["residual"]).all())
        if not finite:
            raise BadSample(Reason.BAD_OUTPUT, "the network's logits are not finite, or beyond float16 (65504)")
        columns = {**arrays, "height": np.asarray(batch["height"]), "width": np.asarray(batch["width"])}
        return {f"{self.label}_{suffix}": values for suffix, values in columns.items()}

    def numerics(self) -> dict[str, Json]:
        return self._numerics
