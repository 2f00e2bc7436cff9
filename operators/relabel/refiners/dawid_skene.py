"""Refiner `dawid_skene`: the true class behind several judges' votes, by how each judge errs on each class.

Dawid and Skene (Applied Statistics 28, 1979): expectation-maximisation over confusion matrices. With at most eight
judges the counts of vote patterns are all that it needs: one pass over the rows. Rows whose true class is known are
pinned to it and set out the first confusion matrices; two bad judges can then not outvote a good one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import UsageError
from ..labelers.class_reader import ClassIds, ClassReader, ClassSource
from ..labelers.labeler import Batch, Labels, Parameters
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..labels.probabilities import Dense, Probabilities, best_first, distribution, mean
from ..statistics.patterns import PatternTable
from ..statistics.statistic import Rows, State, Statistic
from .families import check_families, family_members

SMOOTHING = 0.01
"""Added to every count of a confusion matrix."""
MAX_JUDGES, MAX_CLASSES, MAX_PATTERNS = 8, 256, 1_000_000
Votes = Integer[np.ndarray, "rows judges"]


class DawidSkeneParameters(Parameters):
    """Whose votes are weighed."""

    judges: tuple[str, ...] = Field(min_length=2)
    """Labels of kind `classes`; their best class is the vote."""
    families: dict[str, str] = Field(default={})
    """Judge -> family: judges that err alike. A family has one vote, the best class of its members' mean. A judge that
    is not named is a family of its own; at most eight families."""
    gold: ClassSource | None = None
    """Where the true class of some samples is said."""
    iterations: int = Field(default=100, ge=1, le=10_000)
    """At most; fewer where nothing changes any more."""
    tolerance: float = Field(default=1e-9, ge=0)
    """The largest change of any probability that counts as none."""

    @model_validator(mode="after")
    def fits(self) -> "DawidSkeneParameters":
        check_families(self.judges, self.families)
        count = len(family_members(self.judges, self.families))
        if not 2 <= count <= MAX_JUDGES:
            raise ValueError(f"at least two families and at most {MAX_JUDGES} have a vote, got {count}")
        return self


@dataclasses.dataclass(frozen=True)
class Panel:
    """The families that vote, and the true class where it is known."""

    families: tuple[tuple[Probabilities, ...], ...]
    gold: ClassIds | None

    def votes(self, rows: Mapping[str, Any]) -> Int64[np.ndarray, "rows judges"]:
        """One class per family."""
        return np.stack([vote_of(family, rows) for family in self.families], axis=1)

    def pinned(self, rows: Mapping[str, Any], count: int) -> Int64[np.ndarray, " rows"]:
        """The true class; -1 where it is not known."""
        return np.full(count, -1) if self.gold is None else self.gold.of(rows)


def vote_of(family: Sequence[Probabilities], rows: Mapping[str, Any]) -> Int64[np.ndarray, " rows"]:
    if len(family) == 1:
        return family[0].best(rows)
    return np.asarray(mean([judge.dense(rows) for judge in family]).argmax(axis=1))


@dataclasses.dataclass(frozen=True)
class Confusions(Statistic):
    """How many rows have each pattern of votes and true class; of these, every family's confusion matrix."""

    name, version = "dawid_skene.confusions", 1
    panel: Panel
    classes: int
    iterations: int
    tolerance: float

    @property
    def table(self) -> PatternTable:
        return PatternTable(len(self.panel.families) + 1, MAX_PATTERNS)

    def identity(self) -> Json:
        panel = self.panel
        families = [[each.to_json() for each in family] for family in panel.families]
        gold = panel.gold and panel.gold.to_json()
        return {"families": families, "gold": gold, "iterations": self.iterations, "tolerance": self.tolerance}

    def empty(self) -> State:
        return self.table.empty()

    def update(self, state: State, rows: Rows) -> State:
        votes = self.panel.votes(rows)
        return self.table.update(state, np.column_stack([votes, self.panel.pinned(rows, len(votes))]))

    def merge(self, left: State, right: State) -> State:
        return self.table.merge(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """`prior` [classes], `confusions` [families, true, said], `accuracy` of each family, `iterations`."""
        patterns, counts = state["patterns"].astype(np.int64), state["counts"].astype(np.float64)
        if not len(counts):
            raise UsageError("dawid_skene has no row to learn from. Give more samples.")
        found = expectation_maximisation(
            patterns[:, :-1], patterns[:, -1], counts, self.classes, self.iterations, self.tolerance
        )
        return {
            "rows": int(state["counts"].sum()),
            "gold_rows": int(state["counts"][patterns[:, -1] >= 0].sum()),
            "patterns": len(counts),
            "iterations": found.iterations,
            "prior": found.prior.tolist(),
            "confusions": found.confusions.tolist(),
            "accuracy": [float((found.prior * matrix.diagonal()).sum()) for matrix in found.confusions],
        }


@dataclasses.dataclass(frozen=True)
class Model:
    """What is believed of classes and judges."""

    prior: Float64[np.ndarray, " classes"]
    confusions: Float64[np.ndarray, "judges true said"]
    iterations: int = 0

    def posterior(self, votes: Votes, gold: Integer[np.ndarray, " rows"]) -> Float64[np.ndarray, "rows classes"]:
        """How probable each class is, given the votes; certain where the true class is known."""
        logs = np.tile(np.log(self.prior), (len(votes), 1))
        for judge, confusion in enumerate(self.confusions):
            logs += np.log(confusion).T[votes[:, judge]]
        found = np.exp(logs - logs.max(axis=1, keepdims=True))
        found = found / found.sum(axis=1, keepdims=True)
        return np.asarray(np.where(gold[:, None] >= 0, np.eye(len(self.prior))[gold], found))


def expectation_maximisation(
    votes: Votes,
    gold: Integer[np.ndarray, " rows"],
    weights: Float64[np.ndarray, " rows"],
    classes: int,
    iterations: int,
    tolerance: float,
) -> Model:
    """From the rows whose class is known, where there are such, else from the shares of votes."""
    known = gold >= 0
    belief = np.eye(classes)[votes].mean(axis=1)
    belief = np.where(known[:, None], np.eye(classes)[gold], belief)
    model = maximised(votes, belief, weights * known if known.any() else weights, classes)
    for step in range(1, iterations + 1):
        before, belief = belief, model.posterior(votes, gold)
        model = dataclasses.replace(maximised(votes, belief, weights, classes), iterations=step)
        if np.abs(belief - before).max() <= tolerance:
            break
    return model


def maximised(
    votes: Votes, belief: Float64[np.ndarray, "rows classes"], weights: Float64[np.ndarray, " rows"], classes: int
) -> Model:
    """The prior and the confusion matrices that fit these beliefs best, every count raised by SMOOTHING."""
    weighted = belief * weights[:, None]
    prior = weighted.sum(axis=0) + SMOOTHING
    counts = np.full((votes.shape[1], classes, classes), SMOOTHING)
    for judge in range(votes.shape[1]):
        np.add.at(counts[judge].T, votes[:, judge], weighted)
    return Model(prior / prior.sum(), counts / counts.sum(axis=2, keepdims=True))


@register
class DawidSkene(ClassReader[DawidSkeneParameters]):
    """All classes' probabilities, `ids` and `scores`, best first, and `agree`, how many families voted for the best."""

    name, version = "dawid_skene", 1

    def read_labels(self) -> Sequence[str]:
        return self.parameters.judges

    def sources(self) -> dict[str, ClassSource]:
        return {"gold": self.parameters.gold} if self.parameters.gold else {}

    @property
    def panel(self) -> Panel:
        """Raises UsageError where there are too many classes."""
        if self.classes.count > MAX_CLASSES:
            raise UsageError(f"dawid_skene takes at most {MAX_CLASSES} classes, got {self.classes.count}.")
        members = family_members(self.parameters.judges, self.parameters.families)
        families = tuple(tuple(self.probabilities_of(judge, partial=True) for judge in family) for family in members)
        return Panel(families, self.ids_from("gold") if self.parameters.gold else None)

    def statistic(self) -> Statistic | None:
        if self.finished:
            return None
        return Confusions(self.panel, self.classes.count, self.parameters.iterations, self.parameters.tolerance)

    def writes(self) -> LabelContract:
        assert self.panel
        return distribution(self.label, self.classes, Column(name=f"{self.label}_agree", dtype="|u1"))

    def __call__(self, batch: Batch) -> Labels:
        result, panel = self.finished[0], self.panel
        votes = panel.votes(batch)
        model = Model(np.array(result["prior"]), np.array(result["confusions"]))
        found: Dense = model.posterior(votes, panel.pinned(batch, len(votes)))
        return self.columns(**best_first(found), agree=(votes == found.argmax(axis=1)[:, None]).sum(axis=1))
