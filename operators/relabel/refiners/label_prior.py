"""Refiner `label_prior`: class probabilities without the model's own bias towards some classes.

Contextual calibration (Zhao et al., arXiv 2102.09690) and its form over a corpus (batch calibration, Zhou et al., arXiv
2309.17249): each class's mean log-probability over the corpus is subtracted, and the rest is normalised again. What it
assumes is that the classes are about equally frequent: a class that is truly rare gains, too.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import UsageError
from ..labelers.class_reader import ClassIds, ClassReader, ClassSource
from ..labelers.labeler import Batch, Labels, Parameters
from ..labelers.registry import register
from ..labels.contract import LabelContract
from ..labels.probabilities import Probabilities, best_first, distribution, log_softmax, softmax
from ..statistics.statistic import UNITS, Rows, State, Statistic, added, fixed_point

TEMPERATURES = tuple(2.0 ** (step / 8) for step in range(-24, 25))
"""From 1/8 to 8, in steps of a factor 2^(1/8)."""


class LabelPriorParameters(Parameters):
    """Which label is corrected, and by what."""

    probabilities: str = Field(default="pseudo_label", min_length=1)
    """The label that is corrected: of kind `classes`, with the scores of all classes."""
    log_prior: tuple[float, ...] | None = Field(default=None, min_length=2)
    """What is subtracted, in the order of the classes: the log-probabilities that the model gives to a text without
    content ("N/A"). Default: the mean log-probabilities over all samples."""
    gold: ClassSource | None = None
    """Where the true class of some samples is said: then scores are also divided by the temperature that makes these
    most likely."""
    min_gold: int = Field(default=20, ge=1)
    """So many samples with a true class are wanted to choose a temperature."""

    @model_validator(mode="after")
    def is_finite(self) -> "LabelPriorParameters":
        if not np.isfinite(self.log_prior or ()).all():
            raise ValueError("log_prior must hold finite logarithms; where a class has probability 0, give -30")
        return self


@dataclasses.dataclass(frozen=True)
class MeanLogs(Statistic):
    """The mean log-probability of every class over all rows."""

    name, version = "label_prior.mean", 1
    read: Probabilities

    def identity(self) -> Json:
        return self.read.to_json()

    def empty(self) -> State:
        return {"rows": np.zeros((), np.int64), "logs": np.zeros(self.read.classes.count, np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        logs = self.read.logs(rows)
        return added(state, {"rows": np.array(len(logs)), "logs": fixed_point(logs).sum(axis=0)})

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        rows = int(state["rows"])
        if not rows:
            raise UsageError("label_prior has no sample to learn the prior from. Give `log_prior`, or more samples.")
        return {"rows": rows, "log_prior": [int(total) / UNITS / rows for total in state["logs"]]}


@dataclasses.dataclass(frozen=True)
class TemperatureFit(Statistic):
    """The log-likelihood of the true classes at every temperature of a fixed grid."""

    name, version = "label_prior.temperature", 1
    read: Probabilities
    gold: ClassIds
    log_prior: tuple[float, ...]
    min_gold: int

    def identity(self) -> Json:
        chosen = {"log_prior": list(self.log_prior), "min_gold": self.min_gold, "temperatures": list(TEMPERATURES)}
        return {**self.read.to_json(), **chosen, "gold": self.gold.to_json()}

    def empty(self) -> State:
        return {"rows": np.zeros((), np.int64), "likelihood": np.zeros(len(TEMPERATURES), np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        gold = self.gold.of(rows)
        known = gold >= 0
        logits = self.read.logs(rows)[known] - np.array(self.log_prior)
        found = [
            fixed_point(np.take_along_axis(log_softmax(logits / each), gold[known, None], axis=1)).sum()
            for each in TEMPERATURES
        ]
        return added(state, {"rows": np.array(known.sum(), np.int64), "likelihood": np.array(found, np.int64)})

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        rows = int(state["rows"])
        if rows < self.min_gold:
            raise UsageError(
                f"label_prior chooses a temperature from at least {self.min_gold} samples with a true class, got "
                f"{rows}. Give more, lower `min_gold`, or leave `gold` out."
            )
        likelihood = [int(total) / UNITS / rows for total in state["likelihood"]]
        best = int(np.argmax(state["likelihood"]))
        return {"rows": rows, "temperature": TEMPERATURES[best], "log_likelihood": likelihood[best]}


@register
class LabelPrior(ClassReader[LabelPriorParameters]):
    """All classes' probabilities, corrected: `ids` and `scores`, best first."""

    name, version = "label_prior", 1

    def read_labels(self) -> Sequence[str]:
        return (self.parameters.probabilities,)

    def sources(self) -> dict[str, ClassSource]:
        return {"gold": self.parameters.gold} if self.parameters.gold else {}

    @property
    def read(self) -> Probabilities:
        return self.probabilities_of(self.parameters.probabilities)

    @property
    def log_prior(self) -> Float64[np.ndarray, " classes"] | None:
        """What is subtracted; None: that is not known yet. Raises UsageError where it has not all classes."""
        given = self.parameters.log_prior
        if given is None and not self.finished:
            return None
        found = np.array(self.finished[0]["log_prior"] if given is None else given)
        if len(found) != self.classes.count:
            raise UsageError(f"log_prior must have {self.classes.count} entries, one a class, got {len(found)}.")
        return found

    def statistic(self) -> Statistic | None:
        """The corpus's mean where none is given; then, where there is gold, the temperature."""
        prior = self.log_prior
        if prior is None:
            return MeanLogs(self.read)
        passes = self.parameters.log_prior is None, self.parameters.gold is not None
        if len(self.finished) == sum(passes):
            return None
        return TemperatureFit(self.read, self.ids_from("gold"), tuple(prior.tolist()), self.parameters.min_gold)

    def writes(self) -> LabelContract:
        assert self.read
        return distribution(self.label, self.classes)

    def __call__(self, batch: Batch) -> Labels:
        prior = self.log_prior
        assert prior is not None, "the statistics come before the first batch"
        temperature = float(self.finished[-1]["temperature"]) if self.parameters.gold else 1.0
        return self.columns(**best_first(softmax((self.read.logs(batch) - prior) / temperature)))
