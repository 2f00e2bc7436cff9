"""Labeler `label_map`: an image classifier read at every cell of its last feature map (ReLabel, arXiv 2101.05022).

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import BadSample, Refused
from ..labels.class_map import ClassMap
from ..labels.contract import EngineError, LabelContract
from ..labels.label_map import Arrays, label_map_contract
from ..reasons import Reason
from .checkpoints import LITE_PREFIX, find_checkpoint
from .content import folder_files
from .image_model import ImageModel, ImageModelParameters
from .labeler import Batch, Labels
from .registry import register

STRIDE = 32
COMPUTED_WITH = ("engine", "dtype", "compile", "calibration")
"""Parameters that decide the engine's error."""


class LabelMapParameters(ImageModelParameters):
    """What a label map is made with."""

    model: str
    """`efficientnet-lite0` (1, 2), `hf:org/name[@revision]`, `timm:name[@revision]`, `torchvision:name[@weights]`, or a
    folder that transformers or timm saved. The head must be linear in pooled features or in a class token."""
    input_size: int = Field(ge=STRIDE, le=4096)
    """Pixels of the square that the model sees; a multiple of 32 for the lite nets. The map is 1/32 of it, or what
    the model's patches give."""
    top_k: int = Field(default=5, ge=1)
    """Classes kept per cell; the mass of the others is kept as one number."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in, with torch."""
    engine: Literal["torch", "onnxruntime", "onnxruntime-int8"] = "torch"
    """What computes it. onnxruntime is for CPUs, in fp32 or static int8; its error is stated in the contract."""
    calibration: str | None = None
    """onnxruntime-int8: a folder of 1 to 512 images like those to be labelled (default: images that relabel makes)."""
    compile: bool = False
    """`torch.compile`: half a minute once per actor, for long jobs."""

    @model_validator(mode="after")
    def _fits_the_stride(self) -> "LabelMapParameters":
        if self.model.startswith(LITE_PREFIX) and self.input_size % STRIDE:
            nearest = round(self.input_size / STRIDE) * STRIDE
            raise ValueError(
                f"input_size must be a multiple of {STRIDE} for {self.model} (else its padding shifts the map), "
                f"got {self.input_size}; the nearest is {nearest}."
            )
        return self

    @model_validator(mode="after")
    def _fits_the_engine(self) -> "LabelMapParameters":
        if self.engine != "torch" and (self.dtype != "fp32" or self.compile):
            raise ValueError(f"dtype bf16 and compile are torch's; leave them out with engine {self.engine}")
        if self.calibration is not None and self.engine != "onnxruntime-int8":
            raise ValueError(f"calibration is for engine onnxruntime-int8; leave it out with engine {self.engine}")
        return self


@register
class LabelMapLabeler(ImageModel[LabelMapParameters]):
    """Encoded image in; ids, scores and residual per cell out.

    A network whose output is not finite on a batch raises BadSample(BAD_OUTPUT) for the batch: the caller halves it
    until the bad sample is alone.
    """

    name = "label_map"
    version = 1
    NAMES = (*ImageModel.NAMES, "calibration")
    UNIDENTIFIED = (*ImageModel.UNIDENTIFIED, "proof", "engine_error", "measured")

    def __init__(self, parameters: LabelMapParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self._label: Callable[[np.ndarray], Arrays] | None = None

    def weight_files(self) -> Sequence[Path]:
        calibration = self.parameters.calibration
        here = calibration is not None and Path(calibration).expanduser().is_dir()
        return (*super().weight_files(), *(folder_files(calibration) if calibration and here else ()))

    def inspected_parameters(self) -> dict[str, Json]:
        names = self.parameters.class_names
        return {"model": self.parameters.model, "input_size": self.parameters.input_size,
                "class_names": list(names) if names else None,
                **{name: getattr(self.parameters, name) for name in COMPUTED_WITH}}  # fmt: skip

    def open_classifier(self, revision: str | None) -> Any:
        """The `classifiers.Classifier` to be read densely, at `revision` where the facts name one.

        A labeler of your own overrides this one method with `classifiers.from_module`, and `weight_files` with the
        files that it reads; everything else stays as it is.
        """
        from .families import load_classifier

        return load_classifier(find_checkpoint(self.parameters.model, revision))

    def inspect(self) -> dict[str, Json]:
        """Loads the weights on the CPU, proves the surgery and measures the engine: what cannot work fails here,
        before any cluster. A compiled network is measured as it is before compiling.
        """
        from . import dense_engines

        classifier, choice = self.open_classifier(None), self._choice()
        opened = dense_engines.open_engine(
            classifier, dataclasses.replace(choice, compile=False), "cpu", **self._shape()
        )
        measured = opened.measured or dense_engines.Measured(0.0, 1.0, 0)
        names = self.parameters.class_names
        class_map = ClassMap(names) if names else classifier.load_class_map()
        return {
            **self.describe(classifier, opened.surgery.grid, class_map, classifier.head.out_features),
            "proof": opened.surgery.proof,
            "calibration": dense_engines.calibration_digest(choice, self.parameters.input_size),
            "engine_error": None if choice.exact else measured.bounds(choice.description).model_dump(mode="json"),
            "measured": None if choice.exact else dataclasses.asdict(measured),
        }

    def _choice(self) -> Any:
        from .dense_engines import Choice

        return Choice(**{name: getattr(self.parameters, name) for name in COMPUTED_WITH})

    def _shape(self) -> dict[str, int]:
        return {"size": self.parameters.input_size, "compute_batch": self.compute_batch, "threads": self.threads}

    def writes(self) -> LabelContract:
        facts = self.known_facts()
        rows, columns = facts["grid"]
        contract = label_map_contract(
            self.label, self.classes(), (rows, columns), self.parameters.top_k, self.geometry()
        )
        error = facts["engine_error"]
        return contract.model_copy(
            update={"proof": facts["proof"], "engine_error": EngineError.model_validate(error) if error else None}
        )

    def load(self, device: str) -> None:
        """Raises Refused where the weights are not those of the facts, the surgery's proof fails on this device, or
        the engine's error here is beyond the contract.
        """
        from . import dense_engines
        from .inference import FixedBatches, fix_kernels, numerics

        facts = self.known_facts()
        classifier, choice = self.open_classifier(facts["revision"]), self._choice()
        self.check_digest("weights", classifier.weights)
        self.check_digest("calibration", dense_engines.calibration_digest(choice, self.parameters.input_size))
        fix_kernels(self.threads)
        opened = dense_engines.open_engine(classifier, choice, device, **self._shape())
        assert list(opened.surgery.grid) == facts["grid"], (opened.surgery, facts["grid"])
        self._check_error(opened.measured)
        self._label = FixedBatches(
            opened.network, self.compute_batch, self.parameters.top_k, self.parameters.input_size
        )
        packages = {name: version(name) for name in (*classifier.packages, *opened.packages)}
        self._numerics = {**numerics(opened.network.device), **packages, "compute_batch": self.compute_batch}

    def _check_error(self, measured: Any) -> None:
        bounds = self.writes().engine_error
        if bounds is not None and measured is not None and measured.breaks(bounds):
            raise Refused(
                f"{bounds.engine} is less exact on this machine than the contract says: logits differ from torch fp32 "
                f"by up to {measured.max_logit_error:.3g} (contract: {bounds.max_logit_error:.3g}), "
                f"{measured.agreement:.1%} of confident cells agree (contract: {bounds.confident_agreement}). int8 "
                "needs a CPU with VNNI; label on machines of the planner's kind, or use `engine: torch`."
            )

    def __call__(self, batch: Batch) -> Labels:
        assert self._label is not None, "load() comes before the first batch"
        arrays = self._label(np.asarray(batch["image"]))
        complete = self.parameters.top_k == self.facts["classes"]["count"]
        finite = np.isfinite(arrays["scores"]).all() and (complete or np.isfinite(arrays["residual"]).all())
        if not finite:
            raise BadSample(Reason.BAD_OUTPUT, "the network's logits are not finite, or beyond float16 (65504)")
        columns = {**arrays, "height": np.asarray(batch["height"]), "width": np.asarray(batch["width"])}
        return {f"{self.label}_{suffix}": values for suffix, values in columns.items()}
