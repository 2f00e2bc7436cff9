"""Paced: a plugin whose labeler takes as long as a file says at the moment, which changes no label."""

import time
from pathlib import Path

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


class PacedParameters(Parameters):
    pace: str
    """The file: seconds of a call."""


@register
class Paced(Labeler[PacedParameters]):
    """The number that a text holds."""

    name, version = "paced", 1
    needs = ("txt",)

    def writes(self) -> LabelContract:
        return scores(self.label, "value")

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["txt"]
        return {"value": np.array(float(text.decode() if isinstance(text, bytes) else str(text)), np.float32)}

    def __call__(self, batch: Batch) -> Labels:
        time.sleep(float(Path(self.parameters.pace).read_text(encoding="ascii")))
        return self.columns(value=np.asarray(batch["value"]))
