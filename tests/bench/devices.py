"""Devices: labelers that write down when they were busy: a simulated accelerator, and a real network."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import process_start

from relabel.errors import BadSample
from relabel.labelers.images import decode_image, resize_square
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.labelers.labeler import Batch, Labeler, Labels, Parameters, Prepared
from relabel.labelers.registry import register
from relabel.labels.contract import Classes, Geometry, LabelContract
from relabel.labels.label_map import label_map_contract
from relabel.reasons import Reason
from relabel.shards.shard import Value

SIZE = 224
"""Pixels of the simulated model's input."""
GRID = 7
TOP_K = 5
NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a labeler: monotonic seconds, the same clock in every process of the machine."""

    begun: float
    ended: float
    cpu: float
    """CPU seconds of the calling thread."""
    rows: int


@dataclasses.dataclass(frozen=True)
class Steady:
    """What a device did in its steady state: without the first and the last tenth of its calls."""

    rate: float
    """Images per second."""
    busy: float
    """Fraction of the time in which it was working."""
    cpu: float
    """CPU seconds of the calling thread per image."""


def recorded(log: str, rows: int, work: Callable[[], Labels]) -> Labels:
    """Do the work and append the call to the log."""
    begun, cpu = time.monotonic(), time.thread_time()
    labels = work()
    line = f"{begun} {time.monotonic()} {time.thread_time() - cpu} {rows}\n"
    with Path(log).open("a", encoding="ascii") as file:
        file.write(line)
    return labels


def read_calls(log: Path) -> list[Call]:
    """In the order of time."""
    lines = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    return sorted((Call(float(a), float(b), float(cpu), int(rows)) for a, b, cpu, rows in lines), key=lambda c: c.begun)


def steady(calls: Sequence[Call]) -> Steady:
    """From the end of the first tenth of the calls to the end of the ninth."""
    tenth = max(1, len(calls) // 10)
    middle = calls[tenth:-tenth]
    span = middle[-1].ended - calls[tenth - 1].ended
    rows = sum(call.rows for call in middle)
    busy = sum(call.ended - call.begun for call in middle) / span
    return Steady(rows / span, busy, sum(call.cpu for call in middle) / rows)


class SimulatedParameters(Parameters):
    """What the accelerator is like."""

    rate: float
    """Images per second; 0 takes no time at all."""
    log: str
    """File to which every call is appended; empty: none."""
    input_size: int = SIZE


@register
class Simulated(Labeler[SimulatedParameters]):
    """Sleeps as long as a device of `rate` would compute, uses no CPU, and hands out label maps of its own making."""

    name = "simulated"
    version = 1
    Parameters = SimulatedParameters

    def writes(self) -> LabelContract:
        geometry = Geometry(size=self.parameters.input_size, interpolation="bilinear", orientation="exif")
        return label_map_contract(
            self.label, Classes(digest="0" * 64, count=NUM_CLASSES), (GRID, GRID), TOP_K, geometry
        )

    def prepare(self, sample: Mapping[str, Value]) -> Prepared:
        data = sample["image"]
        if not isinstance(data, bytes):
            raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
        image = decode_image(data)
        height, width, _ = image.shape
        square = resize_square(image, self.parameters.input_size, "bilinear")
        return {"image": square, "height": np.array(height, np.int32), "width": np.array(width, np.int32)}

    def load(self, device: str) -> None:
        random = np.random.default_rng(0)
        shape = (self.compute_batch, GRID, GRID)
        ids = np.argsort(random.random((*shape, NUM_CLASSES)), axis=-1)[..., :TOP_K]
        scores = -np.sort(-random.normal(10, 4, (*shape, TOP_K)), axis=-1)
        residual = random.normal(8, 2, shape)
        arrays = {"ids": ids.astype("<u2"), "scores": scores.astype("<f2"), "residual": residual.astype("<f2")}
        self._arrays = {f"{self.label}_{name}": values for name, values in arrays.items()}

    def __call__(self, batch: Batch) -> Labels:
        rows = len(batch["image"])
        return recorded(self.parameters.log, rows, lambda: self._work(batch, rows)) if self.parameters.log else (
            self._work(batch, rows)
        )  # fmt: skip

    def _work(self, batch: Batch, rows: int) -> Labels:
        if self.parameters.rate:
            time.sleep(rows / self.parameters.rate)
        sides = {f"{self.label}_{side}": np.asarray(batch[side]) for side in ("height", "width")}
        return {**{name: values[:rows] for name, values in self._arrays.items()}, **sides}


class TimedParameters(LabelMapParameters):
    """Of `label_map`, and where to write down the calls."""

    log: str = os.devnull


@register
class TimedLabelMap(LabelMapLabeler):
    """`label_map`, its calls written down."""

    name = "timed_label_map"
    Parameters = TimedParameters

    def __call__(self, batch: Batch) -> Labels:
        assert isinstance(self.parameters, TimedParameters)
        return recorded(self.parameters.log, len(batch["image"]), lambda: super(TimedLabelMap, self).__call__(batch))


@register
class StagedLabelMap(TimedLabelMap):
    """`label_map`, its calls and the stages of its loading written down."""

    name = "staged_label_map"

    def load(self, device: str) -> None:
        assert isinstance(self.parameters, TimedParameters)
        moments = {"process": process_start(), "load": time.monotonic()}
        import torch

        from relabel.labelers.dense import DenseClassifier

        assert torch.__version__
        moments["torch"] = time.monotonic()
        prove = DenseClassifier.prove

        def timed(self: DenseClassifier, size: int) -> Any:
            moments["network"] = time.monotonic()
            proof = prove(self, size)
            moments["proof"] = time.monotonic()
            return proof

        DenseClassifier.prove = timed
        super().load(device)
        moments["loaded"] = time.monotonic()
        Path(f"{self.parameters.log}.stages").write_text(json.dumps(moments), encoding="ascii")
