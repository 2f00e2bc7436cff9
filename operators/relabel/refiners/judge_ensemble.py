"""Refiner `judge_ensemble`: a jury of models on given classes: which to keep, flip, drop or show to a person.

Nahum et al. (arXiv 2410.18889): the mean of the judges' probabilities; a given class that is not the most probable is
flagged, and the surer the jury, the more often it is right. Judges of one family err alike, and are one vote.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64
from pydantic import Field, model_validator

from ..digests import Json
from ..errors import UsageError
from ..labelers.class_reader import UNKNOWN, ClassIds, ClassReader, ClassSource
from ..labelers.labeler import Batch, Labels, Parameters
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..labels.probabilities import Dense, Probabilities, best_first, distribution, mean
from ..statistics.hashes import key_hashes, shares
from ..statistics.statistic import Rows, State, Statistic, added
from .families import check_families, family_members

BINS = 50
"""Of the confidence, from 0 to 1."""
KEEP, FLIP, DROP, HUMAN = "keep", "flip", "drop", "human"
ACTIONS = (KEEP, FLIP, DROP, HUMAN)


class JudgeEnsembleParameters(Parameters):
    """Who judges what, and what follows."""

    judges: tuple[str, ...] = Field(min_length=1)
    """Labels of kind `classes` with the scores of all classes: one for every judge and prompt."""
    families: dict[str, str] = Field(default={})
    """Judge -> family: models of one maker, fine-tunes of one model, prompts of one judge. A family has one vote, the
    mean of its members. A judge that is not named is a family of its own."""
    given: ClassSource
    """Where the class is said that is judged."""
    ordinal: bool = False
    """Classes are steps of a scale: one step apart is no error."""
    flip: float | None = Field(default=0.8, ge=0, le=1)
    """A flagged class gives way to the jury's where the jury is as sure as this; null: never."""
    drop: float | None = Field(default=0.5, ge=0, le=1)
    """Else it is dropped where the jury is as sure as this (null: never); what is flagged beyond goes to a person."""
    gold: ClassSource | None = None
    """Where the true class of some samples is said."""
    flip_precision: float | None = Field(default=None, gt=0, lt=1)
    """Instead of `flip`: the least confidence from which on the jury is right about so large a share of the flagged
    rows with a true class."""
    min_gold: int = Field(default=20, ge=1)
    """So many flagged rows with a true class must lie above a threshold that is chosen."""
    audit: float = Field(default=0.01, ge=0, le=1)
    """The share of rows without a flag that people should look at nevertheless: what the jury overlooks shows there."""
    report: bool = False
    """Count confidence and flags over all rows first: one more pass."""
    seed: int = 0
    """Which rows are audited."""

    @model_validator(mode="after")
    def fits(self) -> "JudgeEnsembleParameters":
        check_families(self.judges, self.families)
        if self.flip_precision is not None and self.gold is None:
            raise ValueError("flip_precision is measured on true classes: give `gold`, or `flip` instead")
        return self


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the jury says of each row."""

    mean: Dense
    confidence: Float64[np.ndarray, " rows"]
    best: Int64[np.ndarray, " rows"]
    flag: Bool[np.ndarray, " rows"]
    agree: Int64[np.ndarray, " rows"]
    """Families whose own most probable class is the jury's."""


@dataclasses.dataclass(frozen=True)
class Jury:
    """Families of judges, one vote each, and the class that they judge."""

    families: tuple[tuple[Probabilities, ...], ...]
    given: ClassIds
    ordinal: bool

    def to_json(self) -> Json:
        families = [[each.to_json() for each in family] for family in self.families]
        return {"families": families, "given": self.given.to_json(), "ordinal": self.ordinal}

    def of(self, rows: Mapping[str, Any]) -> Verdict:
        votes = [mean([judge.dense(rows) for judge in family]) for family in self.families]
        jury, given = mean(votes), self.given.of(rows)
        best = jury.argmax(axis=1)
        return Verdict(
            mean=jury,
            confidence=jury.max(axis=1),
            best=best,
            flag=(given >= 0) & (np.abs(best - given) > int(self.ordinal)),
            agree=sum((vote.argmax(axis=1) == best).astype(np.int64) for vote in votes) + np.zeros(len(best), np.int64),
        )


@dataclasses.dataclass(frozen=True)
class JuryReport(Statistic):
    """How many rows there are of each confidence, flagged or not; of those with a true class, how often each is right.

    `counts`: [flag, bin]. `gold`: [flag, jury right, given right, bin].
    """

    name, version = "judge_ensemble.report", 1
    jury: Jury
    gold: ClassIds | None
    precision: float | None
    min_gold: int

    def identity(self) -> Json:
        chosen = {"precision": self.precision, "min_gold": self.min_gold, "bins": BINS}
        return {**self.jury.to_json(), **chosen, "gold": self.gold and self.gold.to_json()}

    def empty(self) -> State:
        return {"counts": np.zeros((2, BINS), np.int64), "gold": np.zeros((2, 2, 2, BINS), np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        said = self.jury.of(rows)
        flag, bins = said.flag.astype(np.int64), np.minimum((said.confidence * BINS).astype(np.int64), BINS - 1)
        more = self.empty()
        np.add.at(more["counts"], (flag, bins), 1)
        if self.gold is not None:
            gold, given = self.gold.of(rows), self.jury.given.of(rows)
            right = (said.best == gold).astype(np.int64), (given == gold).astype(np.int64)
            known = gold >= 0
            np.add.at(more["gold"], (flag[known], right[0][known], right[1][known], bins[known]), 1)
        return added(state, more)

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """Counts by bin, and `flip`, the threshold that was asked for; null where no threshold is so precise."""
        counts, gold = state["counts"], state["gold"]
        found: dict[str, Json] = {
            "rows": int(counts.sum()),
            "flagged": int(counts[1].sum()),
            "bins": BINS,
            "unflagged_by_confidence": counts[0].tolist(),
            "flagged_by_confidence": counts[1].tolist(),
        }
        if self.gold is not None:
            found["gold_rows"] = int(gold.sum())
            found["given_wrong_of_flagged"] = gold[1, :, 0].sum(axis=0).tolist()
            found["jury_right_of_flagged"] = gold[1, 1].sum(axis=0).tolist()
            found["given_wrong_of_unflagged"] = gold[0, :, 0].sum(axis=0).tolist()
        if self.precision is not None:
            found["flip"] = self._threshold(gold[1].sum(axis=(0, 1)), gold[1, 1].sum(axis=0))
        return found

    def _threshold(self, flagged: Int64[np.ndarray, " bins"], right: Int64[np.ndarray, " bins"]) -> float | None:
        above, correct = flagged[::-1].cumsum()[::-1], right[::-1].cumsum()[::-1]
        if int(above[0]) < self.min_gold:
            raise UsageError(
                f"judge_ensemble chooses a threshold from at least {self.min_gold} flagged rows with a true class, got "
                f"{int(above[0])}. Give more, lower `min_gold`, or set `flip` yourself."
            )
        enough = np.flatnonzero((above >= self.min_gold) & (correct >= float(self.precision or 0) * above))
        return None if not len(enough) else int(enough[0]) / BINS


@register
class JudgeEnsemble(ClassReader[JudgeEnsembleParameters]):
    """The jury's probabilities, `ids` and `scores`, best first, and of each row: `flag`, whether the jury doubts the
    given class; `confidence`, the probability of its own; `agree`, how many families say the same; `action` (keep,
    flip, drop, human); `chosen`, the class that follows (-1: none yet); `given`; `audit`, whether a row without a flag
    is in the random sample for people. A row without a given class has no flag, and the jury's class is chosen where
    it is sure enough to flip.
    """

    name, version = "judge_ensemble", 1

    def read_labels(self) -> Sequence[str]:
        return self.parameters.judges

    def sources(self) -> dict[str, ClassSource]:
        gold = {"gold": self.parameters.gold} if self.parameters.gold else {}
        return {"given": self.parameters.given, **gold}

    @property
    def jury(self) -> Jury:
        members = family_members(self.parameters.judges, self.parameters.families)
        families = tuple(tuple(self.probabilities_of(judge) for judge in family) for family in members)
        return Jury(families, self.ids_from("given"), self.parameters.ordinal)

    @property
    def flip(self) -> float | None:
        """From which confidence on a flagged class gives way."""
        return self.parameters.flip if self.parameters.flip_precision is None else self.finished[0]["flip"]

    def statistic(self) -> Statistic | None:
        """The report, where one is wanted or a threshold is to be chosen."""
        parameters = self.parameters
        if self.finished or not (parameters.report or parameters.flip_precision is not None):
            return None
        gold = self.ids_from("gold") if parameters.gold else None
        return JuryReport(self.jury, gold, parameters.flip_precision, parameters.min_gold)

    def writes(self) -> LabelContract:
        assert self.jury
        dtypes = {
            "flag": "|b1", "confidence": "<f4", "agree": "|u1", "action": "string", "chosen": "<i4", "given": "<i4",
            "audit": "|b1",
        }  # fmt: skip
        more = [Column(name=f"{self.label}_{suffix}", dtype=dtype) for suffix, dtype in dtypes.items()]
        return distribution(self.label, self.classes, *more)

    def __call__(self, batch: Batch) -> Labels:
        jury = self.jury
        said, given = jury.of(batch), jury.given.of(batch)
        flip = self.flip
        action = actions(said, flip, self.parameters.drop)
        sure = said.confidence >= (np.inf if flip is None else flip)
        kept = np.where(given >= 0, given, np.where(sure, said.best, UNKNOWN))
        chosen = np.select([action == KEEP, action == FLIP], [kept, said.best], UNKNOWN)
        return self.columns(
            **best_first(said.mean),
            flag=said.flag,
            confidence=said.confidence,
            agree=said.agree,
            action=action.tolist(),
            chosen=chosen,
            given=given,
            audit=~said.flag & audited(key_hashes(batch["key"], "audit", self.parameters.seed), self.parameters.audit),
        )


def actions(said: Verdict, flip: float | None, drop: float | None) -> np.ndarray:
    """What follows for each row, as text [rows]; every row has exactly one."""
    limits = [np.inf if limit is None else limit for limit in (flip, drop)]
    flipped, dropped = (said.flag & (said.confidence >= limit) for limit in limits)
    return np.select([~said.flag, flipped, dropped], [KEEP, FLIP, DROP], HUMAN)


def audited(hashes: UInt64[np.ndarray, " rows"], rate: float) -> Bool[np.ndarray, " rows"]:
    """Whether a row is in a random sample of that share, the same whatever shard it comes in."""
    return np.asarray(shares(hashes) < rate)
