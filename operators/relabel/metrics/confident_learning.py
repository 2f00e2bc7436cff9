"""Metrics `confident_learning` and `confident_labels`: which given classes are wrong, by models that never saw the row.

Confident learning (Northcutt et al., arXiv 1911.00068, 2103.14749), exact over any number of shards: three statistics
find the class thresholds, the joint of given and true class, and per pair of classes how sure the last row is that is
still taken for wrong; then every row is judged alone.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from pydantic import Field

from ..errors import BadSample, UsageError
from ..labelers.class_reader import ClassIds, ClassReader, ClassSource, text_of
from ..labelers.labeler import Batch, Labels, Parameters
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..labels.probabilities import Probabilities
from ..reasons import Reason
from ..shards.shard import Value
from ..statistics.statistic import Statistic
from .confident_joint import holds
from .confident_passes import next_pass
from .confident_questions import UNKNOWN, Cuts, HasClass, Questions, WhichClass, cuts_of

NO_SCORE = -1.0


class ConfidentLearningParameters(Parameters):
    """Which classes are doubted, and whose probabilities doubt them."""

    probabilities: str = Field(default="fold_out", min_length=1)
    """The label with the probabilities of all classes, of models that were not trained on the row that they judge."""
    given: ClassSource
    """Where the class is said that may be wrong."""
    max_agreement: float = Field(default=0.999, gt=0, le=1)
    """Where the most probable class is the given one for a larger share of rows, the probabilities are refused: a model
    that was trained on these very rows knows their errors by heart, and finds none."""
    seed: int = 0
    """Which of rows that are equally sure is taken for wrong."""


P = TypeVar("P", bound=ConfidentLearningParameters)


class ConfidentMetric(ClassReader[P]):
    """What both metrics share; a subclass says what is asked of a row."""

    def read_labels(self) -> Sequence[str]:
        return (self.parameters.probabilities,)

    def sources(self) -> Mapping[str, ClassSource]:
        return {"given": self.parameters.given}

    @property
    def read(self) -> Probabilities:
        return self.probabilities_of(self.parameters.probabilities)

    @property
    def questions(self) -> Questions:
        return WhichClass(self.read, self.ids_from("given"))

    def statistic(self) -> Statistic | None:
        return next_pass(self.questions, self.finished, self.parameters.max_agreement, self.parameters.seed)

    @functools.cached_property
    def cuts(self) -> Cuts:
        assert len(self.finished) == 3, "the statistics come before the first batch"
        return cuts_of(self.finished[2]["cuts"], self.questions.shape)

    def contract(self, *columns: Column) -> LabelContract:
        """Of these columns, named by their suffixes."""
        assert self.questions
        named = tuple(column.model_copy(update={"name": f"{self.label}_{column.name}"}) for column in columns)
        return LabelContract(
            name=self.label, kind="score", columns=named, classes=self.classes, score_domain="probability",
            no_score=NO_SCORE,
        )  # fmt: skip


@register
class ConfidentLearning(ConfidentMetric[ConfidentLearningParameters]):
    """Per row: `quality`, the probability of the given class; `margin`, how far it is above the best other, from 0 to 1
    (below 0.5: the other is more probable); `issue`, whether it is taken for wrong; `guess`, the most probable class;
    `given`. Without a given class quality and margin are -1, given is -1 and there is no issue.

    The rows with an issue are those that cleanlab's `find_label_issues(filter_by="prune_by_noise_rate")` finds, but
    that ties are broken by the key's hash.
    """

    name, version = "confident_learning", 1

    def writes(self) -> LabelContract:
        dtypes = {"quality": "<f4", "margin": "<f4", "issue": "|b1", "guess": "<i4", "given": "<i4"}
        return self.contract(*(Column(name=name, dtype=dtype) for name, dtype in dtypes.items()))

    def __call__(self, batch: Batch) -> Labels:
        answers, guess = self.questions.answers(batch), self.read.dense(batch).argmax(axis=1)
        quality, margin = (np.full(len(guess), NO_SCORE) for _ in range(2))
        issue, given = np.zeros(len(guess), np.bool_), np.full(len(guess), UNKNOWN)
        others = answers.probabilities.copy()
        others[np.arange(len(answers.row)), answers.given] = -np.inf
        quality[answers.row], given[answers.row] = answers.own, answers.given
        margin[answers.row] = (answers.own - others.max(axis=1) + 1) / 2
        doubted = self.cuts.beyond(answers, batch["key"], self.parameters.seed)
        issue[answers.row] = doubted & ~holds(answers.probabilities, answers.given)
        return self.columns(quality=quality, margin=margin, issue=issue, guess=guess, given=given)


class ConfidentLabelsParameters(ConfidentLearningParameters):
    """Which sets of classes are doubted: `given` is a field with their names, or a label with a list of ids."""

    separator: str = Field(default=",", min_length=1)
    """What stands between the names in a field that is no JSON list."""


@register
class ConfidentLabels(ConfidentMetric[ConfidentLabelsParameters]):
    """Where a sample has any number of classes: confident learning of each class, yes or no, against the rest.

    Per row: `issue`, whether any class is wrongly given or left out; per class [classes] `issues`, 1 where it is, and
    `quality`, the probability of what was given (that it has the class, or has not); -1 where nothing is given. An
    empty field is unknown, `[]` is no class. Probabilities are each class's own, and need not sum to 1.
    """

    name, version = "confident_labels", 1

    @property
    def questions(self) -> Questions:
        source = self.parameters.given
        if source.label is None:
            return HasClass(self.read, ClassIds("given", source))
        contract = self.contract_of(source.label)
        lists = [column for column in contract.columns if column.name == f"{source.label}_ids"]
        if contract.classes != self.classes or not lists or not lists[0].dtype.startswith("list:"):
            raise UsageError(
                f"{self.label} reads lists of class ids, and the label {contract.name!r} has no such column `ids` of "
                "the same classes. Name another, or use confident_learning where a sample has one class."
            )
        return HasClass(self.read, ClassIds(lists[0].name, source))

    def writes(self) -> LabelContract:
        per_class = {"shape": (self.classes.count,), "axes": ("class",)}
        return self.contract(
            Column(name="issue", dtype="|b1"),
            Column(name="issues", dtype="|u1", **per_class),
            Column(name="quality", dtype="<f4", **per_class),
        )

    def read_class(self, value: Value, field: str) -> np.ndarray:
        """1 per class that is named, 0 for all others; -1 for all where the field is empty."""
        text, found = text_of(value, field).strip(), np.zeros(self.classes.count, np.int8)
        if not text:
            return found - np.int8(1)
        try:
            named = json.loads(text) if text.startswith("[") else text.split(self.parameters.separator)
        except (ValueError, RecursionError) as error:
            raise BadSample(Reason.BAD_METADATA, f"{field} is no JSON list: {error}") from error
        for each in named:
            place = self.id_of(str(each), field)
            if place != UNKNOWN:
                found[place] = 1
        return found

    def __call__(self, batch: Batch) -> Labels:
        answers = self.questions.answers(batch)
        shape = len(batch["key"]), self.classes.count
        issues, quality = np.zeros(shape, np.uint8), np.full(shape, NO_SCORE)
        doubted = self.cuts.beyond(answers, batch["key"], self.parameters.seed)
        issues[answers.row, answers.question] = doubted & ~holds(answers.probabilities, answers.given)
        quality[answers.row, answers.question] = answers.own
        return self.columns(issue=np.asarray(issues.any(axis=1)), issues=issues, quality=quality)
