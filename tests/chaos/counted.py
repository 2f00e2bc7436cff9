"""Counted: a plugin whose labeler takes its time and writes down every sample that it labels."""

import os
import time
from pathlib import Path

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


class CountedParameters(Parameters):
    log: str
    """Folder in which every process notes, a line per sample, what it labelled."""
    call_seconds: float = 0.03


@register
class Counted(Labeler[CountedParameters]):
    """The number that a text holds."""

    name, version = "counted", 1
    needs = ("txt",)

    def writes(self) -> LabelContract:
        return scores(self.label, "value")

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["txt"]
        return {"value": np.array(float(text.decode() if isinstance(text, bytes) else str(text)), np.float32)}

    def __call__(self, batch: Batch) -> Labels:
        values = np.asarray(batch["value"])
        time.sleep(self.parameters.call_seconds)
        with Path(self.parameters.log, str(os.getpid())).open("a", encoding="ascii") as log:
            log.writelines(f"{value:.0f}\n" for value in np.unique(values))
        return self.columns(value=values)
