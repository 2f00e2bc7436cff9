"""Dense engines: what a dense classifier is computed with, and how far that lies from the same network in torch fp32.

The distance is measured on fixed images whenever an engine is opened. It is rounded outward when a label is planned,
so that machines of one kind state the same bounds, stands in the label's contract, and holds on every actor, or the
actor refuses to label.
"""

import dataclasses
import math
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ..errors import Refused, UsageError
from ..labels.contract import EngineError
from . import onnx_engine
from .classifiers import Classifier
from .content import VERSION, Images, fixed_images, folder_images
from .dense import DenseClassifier, Surgery

EngineName = Literal["torch", "onnxruntime", "onnxruntime-int8"]
Precision = Literal["fp32", "bf16"]

CONFIDENT = 0.3
"""Probability above which a cell's most probable class counts; below, engines may differ over ties of noise."""
MIN_CONFIDENT_CELLS = 30
"""Fewer say nothing about agreement."""
SMALLEST_ERROR = 2.0**-10
"""Stated where less was measured: it is below the rounding of stored scores (float16)."""
AGREEMENT_STEP = 0.05
MIN_AGREEMENT = 0.75
"""An engine that agrees less has lost the model."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was chosen to compute with."""

    engine: EngineName = "torch"
    dtype: Precision = "fp32"
    compile: bool = False
    calibration: str | None = None
    """Folder of images for int8; None: the package's own."""

    @property
    def exact(self) -> bool:
        """Whether this is the reference itself."""
        return self == Choice()

    @property
    def description(self) -> str:
        if self.engine != "torch":
            return self.engine
        return f"torch {self.dtype}" + (" compiled" if self.compile else "")


@runtime_checkable
class Network(Protocol):
    """uint8 images to dense logits."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, pixels: UInt8[Tensor, "n size size 3"]) -> Float32[Tensor, "n classes y x"]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """An engine against torch fp32 on fixed images."""

    max_logit_error: float
    agreement: float
    """Share of confident cells whose most probable class is the same; 1.0 where there are none."""
    confident_cells: int

    def bounds(self, engine: str) -> EngineError:
        """Rounded outward, for the contract."""
        steps = math.floor(self.agreement / AGREEMENT_STEP + 1e-9)
        return EngineError(
            engine=engine,
            max_logit_error=max(SMALLEST_ERROR, 2.0 ** math.ceil(math.log2(max(self.max_logit_error, SMALLEST_ERROR)))),
            confident_agreement=(
                round(steps * AGREEMENT_STEP, 2) if self.confident_cells >= MIN_CONFIDENT_CELLS else None
            ),
        )

    def breaks(self, bounds: EngineError) -> bool:
        """Whether this is worse than `bounds` by more than two machines differ: twice the error, 5 points."""
        agreement = bounds.confident_agreement
        lost = agreement is not None and self.agreement < agreement - AGREEMENT_STEP
        return lost or not self.max_logit_error <= 2 * bounds.max_logit_error


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An engine ready to label."""

    network: Network
    surgery: Surgery
    measured: Measured | None
    """None where the engine is the reference."""
    packages: tuple[str, ...] = ()
    """Whose versions decide the last bits, beyond torch's."""


def open_engine(
    classifier: Classifier, choice: Choice, device: str, *, size: int, compute_batch: int, threads: int
) -> Opened:
    """The classifier made dense, proven, computed as chosen, and measured.

    Raises Refused where the proof fails or the engine loses the model, UsageError where it cannot run here.
    """
    if choice.engine != "torch" and device != "cpu":
        raise UsageError(f"engine {choice.engine} runs on CPUs. Set `resources.gpus: 0`, or use `engine: torch`.")
    dense = DenseClassifier(classifier, device)
    surgery = dense.prove(size)
    if choice.exact:
        return Opened(dense, surgery, None)
    images = fixed_images(size)
    expected = logits_of(dense, images, compute_batch)
    network, packages = _network(dense, choice, images, compute_batch, threads)
    measured = compare(expected, logits_of(network, images, compute_batch))
    if measured.confident_cells >= MIN_CONFIDENT_CELLS and measured.agreement < MIN_AGREEMENT:
        raise Refused(
            f"{choice.description} loses this model: only {measured.agreement:.0%} of {measured.confident_cells} "
            f"confident cells keep their class, at least {MIN_AGREEMENT:.0%} must. Use `engine: torch` or "
            "`engine: onnxruntime`, or give `calibration` images like those to be labelled."
        )
    return Opened(network, surgery, measured, packages)


def _network(
    dense: DenseClassifier, choice: Choice, images: Images, compute_batch: int, threads: int
) -> tuple[Network, tuple[str, ...]]:
    size = images.shape[1]
    if choice.engine == "torch":
        if choice.dtype == "bf16":
            dense.to_bf16(size)
        if choice.compile:
            dense.compile_features(compute_batch, size)
        return dense, ()
    model = onnx_engine.export(dense, compute_batch, size)
    if choice.engine == "onnxruntime-int8":
        calibration = images if choice.calibration is None else folder_images(choice.calibration, size)[0]
        model = onnx_engine.quantise(model, calibration, compute_batch)
    return onnx_engine.OnnxNetwork(model, threads), onnx_engine.PACKAGES


def calibration_digest(choice: Choice, size: int) -> str | None:
    """What identifies the calibration images; None for engines without."""
    if choice.engine != "onnxruntime-int8":
        return None
    return VERSION if choice.calibration is None else folder_images(choice.calibration, size)[1]


def logits_of(network: Network, images: Images, compute_batch: int) -> Float32[Tensor, "rows classes y x"]:
    """Dense logits of every image, on the CPU."""
    chunks = [
        network(torch.from_numpy(chunk).to(network.device)).cpu()
        for chunk in onnx_engine.batches(images, compute_batch)
    ]
    return torch.cat(chunks)[: len(images)]


def compare(expected: Float32[Tensor, "rows classes y x"], found: Float32[Tensor, "rows classes y x"]) -> Measured:
    """`found` against `expected`, cell by cell."""
    confident = expected.softmax(dim=1).amax(dim=1) > CONFIDENT
    same = (expected.argmax(dim=1) == found.argmax(dim=1))[confident]
    return Measured(
        max_logit_error=float(np.nan_to_num(float((expected - found).abs().max()), nan=math.inf)),
        agreement=float(same.double().mean()) if len(same) else 1.0,
        confident_cells=len(same),
    )
