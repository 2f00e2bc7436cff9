"""Questions: what confident learning asks of a row: which of many classes it is, or of each class whether it has it.

Statistics count answers, not rows: one of a row with one class, one per class of a row that may have several. Answers
are numbered through, question by question: `question * choices + choice`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, UInt64

from ..digests import Json
from ..labelers.class_reader import ClassIds
from ..labels.probabilities import Probabilities
from ..statistics.hashes import key_hashes

PURPOSE = "confident_learning"
UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Answers:
    """Those of a batch, row by row, each row's in the order of the questions."""

    probabilities: Float64[np.ndarray, "answers choices"]
    given: Int64[np.ndarray, " answers"]
    """The choice that was given."""
    question: Int64[np.ndarray, " answers"]
    row: Int64[np.ndarray, " answers"]

    @property
    def number(self) -> Int64[np.ndarray, " answers"]:
        """Of the given choice, over all questions."""
        return np.asarray(self.question * self.probabilities.shape[1] + self.given)

    @property
    def own(self) -> Float64[np.ndarray, " answers"]:
        """How probable the given choice is."""
        return np.asarray(self.probabilities[np.arange(len(self.given)), self.given])


@dataclasses.dataclass(frozen=True)
class Questions(ABC):
    """Of a label with probabilities and classes given elsewhere."""

    read: Probabilities
    given: ClassIds
    """Where the classes lie that were given."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """How many questions, and choices of each."""

    @abstractmethod
    def answers(self, rows: Mapping[str, Any]) -> Answers:
        """Of the rows with a given class."""

    def to_json(self) -> dict[str, Json]:
        """What is read, and what is asked."""
        return {**self.read.to_json(), "questions": list(self.shape), "given": self.given.to_json()}


@dataclasses.dataclass(frozen=True)
class WhichClass(Questions):
    """One question, all classes to choose from."""

    @property
    def shape(self) -> tuple[int, int]:
        return 1, self.read.classes.count

    def answers(self, rows: Mapping[str, Any]) -> Answers:
        given = self.given.of(rows)
        known = np.flatnonzero(given >= 0)
        return Answers(self.read.dense(rows)[known], given[known], np.zeros(len(known), np.int64), known)


@dataclasses.dataclass(frozen=True)
class HasClass(Questions):
    """One question per class: no or yes; probabilities need not sum to 1.

    What was given is 1 or 0 per class [rows, classes], -1 where that is not known; or a list of ids per row.
    """

    @property
    def shape(self) -> tuple[int, int]:
        return self.read.classes.count, 2

    def told(self, rows: Mapping[str, Any]) -> Int8[np.ndarray, "rows classes"]:
        """1, 0 or -1."""
        values, count = rows[self.given.column], self.read.classes.count
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return values.astype(np.int8)
        return np.stack([*map(self._marked, values), np.zeros(count, np.int8)])[:-1]

    def answers(self, rows: Mapping[str, Any]) -> Answers:
        told = self.told(rows)
        known = np.flatnonzero((told >= 0).all(axis=1))
        yes = np.clip(self.read.dense(rows)[known].reshape(-1), 0, 1)
        questions = np.tile(np.arange(self.read.classes.count), len(known))
        row = np.repeat(known, self.read.classes.count)
        return Answers(np.stack([1 - yes, yes], axis=1), told[known].reshape(-1).astype(np.int64), questions, row)

    def _marked(self, ids: Sequence[int]) -> Int8[np.ndarray, " classes"]:
        found = np.zeros(self.read.classes.count, np.int8)
        found[np.asarray(ids, np.int64)] = 1
        return found


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Per given and other choice, the margin and hash of the last answer that is taken for wrong."""

    margins: Float64[np.ndarray, "given choices"]
    ties: UInt64[np.ndarray, "given choices"]

    def beyond(self, answers: Answers, keys: Any, seed: int) -> Bool[np.ndarray, " answers"]:
        """Whether an answer comes before the last in any other choice."""
        margins, number = answers.probabilities - answers.own[:, None], answers.number
        hashes = key_hashes(keys, PURPOSE, seed)[answers.row]
        at = (margins == self.margins[number]) & (hashes[:, None] <= self.ties[number])
        return np.asarray(((margins > self.margins[number]) | at).any(axis=1))


def cuts_of(cells: Sequence[Json], shape: tuple[int, int]) -> Cuts:
    """From given, other, margin and hash of the cells that have any."""
    size = shape[0] * shape[1], shape[1]
    found = Cuts(np.full(size, np.inf), np.zeros(size, np.uint64))
    for given, other, margin, tie in cells:
        found.margins[given, other], found.ties[given, other] = margin, tie
    return found
