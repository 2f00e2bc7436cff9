"""Unhurried: a labeler of texts that takes its time, where it is told to: to prepare a sample, or to label a batch."""

import time

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


class UnhurriedParameters(Parameters):
    """How long it takes."""

    prepare_seconds: float = 0.0
    """For a sample."""
    label_seconds: float = 0.0
    """For a call."""


@register
class Unhurried(Labeler[UnhurriedParameters]):
    """The length of a text, in its own time."""

    name, version, needs = "unhurried", 1, ("text",)

    def writes(self) -> LabelContract:
        return scores(self.label, "length")

    def prepare(self, sample: Fields) -> Prepared:
        time.sleep(self.parameters.prepare_seconds)
        return {"length": np.array(len(str(sample["text"])), np.float32)}

    def __call__(self, batch: Batch) -> Labels:
        time.sleep(self.parameters.label_seconds)
        return self.columns(length=np.asarray(batch["length"]))
