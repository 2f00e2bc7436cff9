"""Cheap: a labeler that costs next to nothing and says when it was first needed."""

import time
from pathlib import Path

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


class CheapParameters(Parameters):
    log: str = ""
    """File that gets the moment (CLOCK_MONOTONIC, the machine's) at which the first sample is prepared."""


@register
class Cheap(Labeler[CheapParameters]):
    """How many bytes a sample has."""

    name, version = "cheap", 1

    def writes(self) -> LabelContract:
        return scores(self.label, "bytes")

    def prepare(self, sample: Fields) -> Prepared:
        if self.parameters.log and not Path(self.parameters.log).exists():
            Path(self.parameters.log).write_text(repr(time.monotonic()), encoding="ascii")
        return {"bytes": np.array(len(sample["image"]), np.float32)}  # type: ignore[arg-type]

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(bytes=np.asarray(batch["bytes"]))
