"""Passes: the three statistics of confident learning: thresholds, the joint of given and true, and where to cut."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int64

from ..digests import Json
from ..errors import UsageError
from ..statistics.hashes import key_hashes
from ..statistics.statistic import Rows, State, Statistic, added
from ..statistics.sums import fine, mean_of
from ..statistics.top import Top
from .confident_joint import LEAST_THRESHOLD, NEVER, calibrated, confident, noise_rates, wrong
from .confident_questions import PURPOSE, Questions

MIN_AGREEMENT_ROWS = 100
"""Fewer rows may all agree by chance."""


@dataclasses.dataclass(frozen=True)
class Thresholds(Statistic):
    """How probable a choice is on the mean where it was given."""

    name, version = "confident_learning.thresholds", 1
    questions: Questions
    max_agreement: float

    def identity(self) -> Json:
        return {**self.questions.to_json(), "max_agreement": self.max_agreement}

    def empty(self) -> State:
        questions, choices = self.questions.shape
        zeros = np.zeros(questions * choices, np.int64)
        return {"given": zeros, "high": zeros, "low": zeros, "agree": np.zeros((), np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        answers = self.questions.answers(rows)
        high, low = fine(answers.own)
        agree = (answers.probabilities.argmax(axis=1) == answers.given).reshape(-1, self.questions.shape[0])
        more = {"given": np.zeros_like(state["given"]), "high": np.zeros_like(state["high"])}
        more |= {"low": np.zeros_like(state["low"]), "agree": np.array(agree.all(axis=1).sum(), np.int64)}
        np.add.at(more["given"], answers.number, 1)
        np.add.at(more["high"], answers.number, high)
        np.add.at(more["low"], answers.number, low)
        return added(state, more)

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """Per choice how often it was `given`, and its threshold; `agreement`: the share of rows without any doubt."""
        rows = int(state["given"].sum()) // self.questions.shape[0]
        if not rows:
            raise UsageError("confident learning has no row with a given class. Correct `given`.")
        agreement = int(state["agree"]) / rows
        if agreement > self.max_agreement and rows >= MIN_AGREEMENT_ROWS:
            raise UsageError(
                f"confident learning: the most probable class is the given one for {agreement:.2%} of {rows} rows. The "
                "model was probably trained on these rows, and then it cannot find their errors. Give probabilities of "
                "models that never saw the row (the step fold_out makes them); where they are such, there is little "
                "to find: set max_agreement: 1 to go on."
            )
        sums = zip(*(state[name].tolist() for name in ("high", "low", "given")), strict=True)
        means = [mean_of(high, low, count) if count else NEVER for high, low, count in sums]
        thresholds = [max(mean, LEAST_THRESHOLD) for mean in means]
        return {"given": state["given"].tolist(), "thresholds": thresholds, "agreement": agreement}


@dataclasses.dataclass(frozen=True)
class JointCounts(Statistic):
    """How many answers of a given choice are confidently of each."""

    name, version = "confident_learning.joint", 1
    questions: Questions
    thresholds: tuple[float, ...]
    given: tuple[int, ...]

    def identity(self) -> Json:
        return {**self.questions.to_json(), "thresholds": list(self.thresholds), "given": list(self.given)}

    def empty(self) -> State:
        questions, choices = self.questions.shape
        return {"counts": np.zeros((questions * choices, choices), np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        answers = self.questions.answers(rows)
        thresholds = np.array(self.thresholds).reshape(self.questions.shape)
        found = confident(answers.probabilities, thresholds[answers.question])
        counts = np.zeros_like(state["counts"])
        np.add.at(counts, (answers.number[found >= 0], found[found >= 0]), 1)
        return added(state, {"counts": counts})

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """The joint and what of it is wrong, as [given, true, rows] with what is not there left out; noise rates."""
        _, choices = self.questions.shape
        given = np.array(self.given, np.int64).reshape(self.questions.shape)
        joints = [calibrated(counts, of) for counts, of in zip(_blocks(state["counts"], choices), given, strict=True)]
        mistakes = [wrong(joint, of) for joint, of in zip(joints, given, strict=True)]
        rates = [noise_rates(joint) for joint in joints]
        return {
            "joint": sparse(np.concatenate(joints)),
            "wrong": sparse(np.concatenate(mistakes)),
            **{name: [rate for each in rates for rate in each[name]] for name in rates[0]},
        }


@dataclasses.dataclass(frozen=True)
class Margins(Statistic):
    """Per given and other choice, the answers that are surest to be the other: as many as are wrong.

    A state holds 20 bytes for each of them: 20 MB where a million are wrong.
    """

    name, version = "confident_learning.margins", 1
    questions: Questions
    wrong: tuple[tuple[int, int, int], ...]
    seed: int

    @functools.cached_property
    def limits(self) -> Int64[np.ndarray, "given choices"]:
        questions, choices = self.questions.shape
        found = np.zeros((questions * choices, choices), np.int64)
        for given, other, count in self.wrong:
            found[given, other] = count
        return found

    @functools.cached_property
    def top(self) -> Top:
        return Top(self.limits.reshape(-1))

    def identity(self) -> Json:
        return {**self.questions.to_json(), "wrong": [list(cell) for cell in self.wrong], "seed": self.seed}

    def empty(self) -> State:
        return self.top.empty()

    def update(self, state: State, rows: Rows) -> State:
        answers = self.questions.answers(rows)
        which, other = np.nonzero(self.limits[answers.number])
        margins = answers.probabilities[which, other] - answers.own[which]
        hashes = key_hashes(rows["key"], PURPOSE, self.seed)[answers.row[which]]
        return self.top.update(state, answers.number[which] * self.questions.shape[1] + other, margins, hashes)

    def merge(self, left: State, right: State) -> State:
        return self.top.merge(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        """The cuts as [given, other, margin, hash]: answers down to them are taken for wrong."""
        choices = self.questions.shape[1]
        return {"cuts": [[cell // choices, cell % choices, margin, tie] for cell, margin, tie in self.top.cuts(state)]}


def next_pass(
    questions: Questions, finished: tuple[dict[str, Json], ...], max_agreement: float, seed: int
) -> Statistic | None:
    """Thresholds, then the joint, then the cuts."""
    if not finished:
        return Thresholds(questions, max_agreement)
    if len(finished) == 1:
        return JointCounts(questions, tuple(finished[0]["thresholds"]), tuple(finished[0]["given"]))
    if len(finished) == 2:
        return Margins(questions, tuple((one, other, rows) for one, other, rows in finished[1]["wrong"]), seed)
    return None


def _blocks(table: Int64[np.ndarray, "given choices"], choices: int) -> list[Int64[np.ndarray, "choices choices"]]:
    return [table[at : at + choices] for at in range(0, len(table), choices)]


def sparse(table: Int64[np.ndarray, "given choices"]) -> list[list[int]]:
    """Given, true and count of every pair that there is."""
    return [[int(one), int(other), int(table[one, other])] for one, other in np.argwhere(table)]
