"""Drifting: a plugin whose labels depend on what no fingerprint holds: a file, the samples beside one."""

from pathlib import Path

import numpy as np

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, register, scores


class DriftingParameters(Parameters):
    """Where the file is, and whether neighbours matter."""

    file: str
    leaks: bool = False


@register
class Drifting(Labeler[DriftingParameters]):
    """The length of a text, times what the file says."""

    name, version, needs = "drifting", 1, ("text",)

    def writes(self) -> LabelContract:
        return scores(self.label, "value")

    def load(self, device: str) -> None:
        self.factor = float(Path(self.parameters.file).read_text(encoding="utf-8"))

    def prepare(self, sample: Fields) -> Prepared:
        return {"length": np.array(len(str(sample["text"])), np.float32)}

    def __call__(self, batch: Batch) -> Labels:
        lengths = np.asarray(batch["length"])
        return self.columns(value=self.factor * lengths + self.parameters.leaks * lengths.mean())
