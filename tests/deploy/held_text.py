"""A plugin for jobs of a cluster: texts and their lengths; after its first call it waits while a file is there."""

import time
from pathlib import Path

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores
from relabel.errors import BadSample
from relabel.reasons import Reason


class HeldParameters(Parameters):
    hold: str
    """The file."""
    broken: bool = False
    """Every sample is a dead letter."""


@register
class HeldText(Labeler[HeldParameters]):
    """How long a text is."""

    name, version = "held_text", 1
    needs = ("text",)
    calls = 0

    def writes(self) -> LabelContract:
        return scores(self.label, "length")

    def prepare(self, sample: Fields) -> Prepared:
        if self.parameters.broken:
            raise BadSample(Reason.EMPTY_FIELD, "broken on purpose")
        return {"length": np.array(len(str(sample["text"])))}

    def __call__(self, batch: Batch) -> Labels:
        self.calls += 1
        while self.calls > 1 and Path(self.parameters.hold).exists():
            time.sleep(0.05)
        return self.columns(length=batch["length"])
