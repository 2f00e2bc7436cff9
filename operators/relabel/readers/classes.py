"""Classes: labels of kind `classes`, and hard labels of the data set, as targets of a training job.

Mass that a label with few scores leaves out is spread evenly over the classes that it does not list, as in label maps:
renormalising a top 5 is further from the teacher than that, by a third (see FKD).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from ..errors import BadSample, Refused, UnknownName, UsageError
from ..labels.class_map import ClassMap
from ..labels.contract import LabelContract
from ..labels.probabilities import Probabilities
from ..reasons import Reason
from .weights import columns_of

NoClass = Literal["error", "zeros", "uniform"]
SHOWN = 80


class Target:
    """From classes of the label to those of the training job, smoothed.

    `names`: what the label's ids stand for; `classes`: the job's classes, in the order of its outputs. Without them ids
    stay as they are. Raises UsageError for a name that the job does not have, or that occurs twice.
    """

    def __init__(self, names: Sequence[str] | None, classes: Sequence[str] | None, smoothing: float) -> None:
        if not 0 <= smoothing < 1:
            raise UsageError(f"smoothing must be at least 0 and below 1, got {smoothing}.")
        if (names is None) != (classes is None):
            raise UsageError("`names` (of the label's ids) and `classes` (of the training job) are given together.")
        self.smoothing, self.places, self.count = smoothing, None, 0
        if names is not None and classes is not None:
            self.places, self.count = places_of(names, classes), len(classes)

    def __call__(self, probabilities: Float64[np.ndarray, " from_classes"]) -> Float32[np.ndarray, " classes"]:
        if self.places is not None:
            moved = np.zeros(self.count)
            moved[self.places] = probabilities
            probabilities = moved
        smoothed = (1 - self.smoothing) * probabilities + self.smoothing / len(probabilities)
        return np.asarray(smoothed.astype(np.float32))


def places_of(names: Sequence[str], classes: Sequence[str]) -> Int64[np.ndarray, " names"]:
    """Where each name stands among the classes."""
    for what, each in (("names", names), ("classes", classes)):
        if len(set(each)) < len(each):
            doubled, _ = Counter(each).most_common(1)[0]
            raise UsageError(f"{what} must differ to be matched, got {doubled!r} more than once.")
    place = {name: index for index, name in enumerate(classes)}
    for name in names:
        if name not in place:
            raise UnknownName("class", name, classes, "Every class of the label needs one of the training job.")
    return np.array([place[name] for name in names], np.int64)


class SoftLabels:
    """See `soft_labels`."""

    def __init__(
        self, label: str, names: Sequence[str] | None = None, classes: Sequence[str] | None = None,
        smoothing: float = 0.0, hard: bool = False, no_class: NoClass = "error",
    ) -> None:  # fmt: skip
        if no_class not in ("error", "zeros", "uniform"):
            raise UsageError(f"no_class must be error, zeros or uniform, got {no_class!r}.")
        self.label, self.names, self.hard, self.no_class = label, names, hard, no_class
        self.target = Target(names, classes, smoothing)
        self.contract: LabelContract | None = None

    def check(self, contracts: Mapping[str, LabelContract]) -> None:
        """Raises UnknownName, Refused or UsageError where the label cannot be read so; keeps its contract."""
        if self.label not in contracts:
            raise UnknownName("label", self.label, contracts, "Name a label of classes among the wanted columns.")
        contract = contracts[self.label]
        if contract.applicable is not None:
            raise Refused(
                f"samples of {self.label!r} may have several classes, and of others nothing is known: that is no "
                "distribution over classes. Read its `applicable` by a transform of your own."
            )
        if self.names is not None and contract.classes is not None:
            declared = ClassMap(tuple(self.names)).declare()
            if declared != contract.classes:
                raise Refused(
                    f"`names` are not the {contract.classes.count} names of {self.label!r} in their order: the contract"
                    f" says digest {contract.classes.digest[:12]}, these {declared.count} have {declared.digest[:12]}. "
                    f"Take release.version.labels[{self.label!r}].class_names."
                )
        self.read = reading(contract)
        self.contract = contract

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        if self.contract is None:
            raise UsageError(
                "soft_labels has not seen the label's contract. Give it to release.dataset(transform=...), or call "
                "check(release.labels) first."
            )
        columns, name = columns_of(sample, self.label), self.contract.name
        ids = np.atleast_1d(columns[f"{name}_ids"])
        ignored = self.contract.ignore_index
        scores = np.atleast_1d(columns[f"{name}_scores"])
        unvoted = self.contract.score_domain == "vote_share" and not scores.any()
        if unvoted or (ignored is not None and (ids == ignored).all()):
            return {**sample, self.label: self._without_class(sample)}
        if self.hard:
            found = np.zeros(self.read.classes.count)
            found[int(ids[0])] = 1.0
        else:
            found = self.read.dense({f"{name}_ids": ids[None], f"{name}_scores": scores[None]})[0]
            if self.contract.score_domain == "vote_share":
                found = found / found.sum()
        return {**sample, self.label: self.target(found)}

    def _without_class(self, sample: Mapping[str, Any]) -> Float32[np.ndarray, " classes"]:
        count = self.target.count or self.read.classes.count
        if self.no_class == "error":
            raise BadSample(
                Reason.NO_LABEL,
                f"sample {sample.get('__key__')!r} has no class in {self.label!r}. no_class='zeros' gives it no loss, "
                "'uniform' every class alike.",
            )
        return np.full(count, 0.0 if self.no_class == "zeros" else 1 / count, np.float32)


def reading(contract: LabelContract) -> Probabilities:
    """How the label becomes a matrix; shares of votes are read as probabilities, which they are not quite."""
    if contract.score_domain == "vote_share":
        contract = contract.model_copy(update={"score_domain": "probability"})
    return Probabilities(contract, rest="even")


def soft_labels(
    label: str, names: Sequence[str] | None = None, classes: Sequence[str] | None = None, smoothing: float = 0.0,
    hard: bool = False, no_class: NoClass = "error",
) -> SoftLabels:  # fmt: skip
    """A transform that makes a label of kind `classes` float32 [classes] probabilities.

    Probabilities, log-probabilities and logits of all classes, or the best few with the rest spread evenly; shares of
    votes are divided by their sum. `hard` takes the best class alone; `smoothing` s gives every class s / classes.
    `names` and `classes` match classes by name (see `Target`). `no_class`: what a sample without a class gets.
    """
    return SoftLabels(label, names, classes, smoothing, hard, no_class)


class HardLabels:
    """See `hard_labels`."""

    def __init__(self, field: str, names: Sequence[str], classes: Sequence[str] | None, smoothing: float) -> None:
        self.field, self.ids = field, {name: index for index, name in enumerate(names)}
        self.target = Target(names, names if classes is None else classes, smoothing)

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        if self.field not in sample:
            raise UsageError(f"hard_labels reads {self.field!r}, the sample has {', '.join(map(str, sample))}.")
        value = sample[self.field]
        text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
        found = np.zeros(len(self.ids))
        if text in self.ids:
            found[self.ids[text]] = 1.0
        elif text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(found):
            found[int(text)] = 1.0
        else:
            raise BadSample(
                Reason.BAD_METADATA,
                f"{self.field} of sample {sample.get('__key__')!r} is none of the {len(found)} classes and no number "
                f"of one: {text[:SHOWN]!r}",
            )
        return {**sample, self.field: self.target(found)}


def hard_labels(
    field: str, names: Sequence[str], classes: Sequence[str] | None = None, smoothing: float = 0.0
) -> HardLabels:
    """A transform that makes a field of the data set, one of `names` or the number of one, float32 [classes].

    `classes`: the training job's, matched by name; default: `names` themselves. Raises BadSample for another value.
    """
    return HardLabels(field, names, classes, smoothing)
