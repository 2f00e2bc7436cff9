"""Weights: how much a sample counts, from what a release says of its quality."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UnknownName, UsageError
from ..labels.contract import LabelContract


class SampleWeight:
    """See `sample_weight`."""

    def __init__(
        self, label: str, column: str, floor: float, cap: float, scale: float,
        values: Mapping[Any, float] | None, missing: float, into: str,
    ) -> None:  # fmt: skip
        if not 0 <= floor <= cap < float("inf") or not scale > 0:
            raise UsageError(f"0 <= floor <= cap and scale > 0 are expected, got {floor}, {cap} and {scale}.")
        self.label, self.column, self.floor, self.cap, self.scale = label, column, floor, cap, scale
        self.values, self.missing, self.into = values, missing, into
        self.prefix = label
        self.no_score: float | None = None

    def check(self, contracts: Mapping[str, LabelContract]) -> None:
        """Raises UnknownName where there is no such label or column; takes over what stands for `not scored`."""
        if self.label not in contracts:
            raise UnknownName("label", self.label, contracts, "Name it among the wanted columns.")
        self.prefix = contracts[self.label].name
        known = [each.name.removeprefix(f"{self.prefix}_") for each in contracts[self.label].columns]
        if self.column not in known:
            raise UnknownName("column", self.column, known)
        self.no_score = contracts[self.label].no_score

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        value = columns_of(sample, self.label).get(f"{self.prefix}_{self.column}")
        return {**sample, self.into: np.float32(self.weight(value))}

    def weight(self, value: Any) -> float:
        """Of one value of the column; of an array (scores, best first) the first."""
        if isinstance(value, np.ndarray):
            value = value.reshape(-1)[0].item()
        if self.values is not None:
            if value not in self.values:
                raise UsageError(f"`values` gives no weight to {value!r} of {self.label}_{self.column}.")
            return float(self.values[value])
        if value is None or value != value or value == self.no_score:
            return self.missing
        if isinstance(value, str):
            raise UsageError(f"{self.label}_{self.column} holds text ({value!r}); give a weight to each by `values`.")
        return float(min(max(float(value) * self.scale, self.floor), self.cap))


def sample_weight(
    label: str, column: str, floor: float = 0.0, cap: float = 1.0, scale: float = 1.0,
    values: Mapping[Any, float] | None = None, missing: float = 1.0, into: str = "weight",
) -> SampleWeight:  # fmt: skip
    """A transform that adds `into`, float32: the label's column times `scale`, at least `floor`, at most `cap`.

    `scale` of 1 / mean of the column (`relabel show` says it) makes the mean weight about 1; `soft_cross_entropy`
    divides by the sum of weights in any case. `values` gives weights to flags and words instead, as {True: 0.0, False:
    1.0} for an `issue`. `missing` is the weight of a row without a score. It comes before a transform that replaces the
    same label.
    """
    return SampleWeight(label, column, floor, cap, scale, values, missing, into)


def columns_of(sample: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """Raises UsageError where the sample does not hold the label's columns."""
    found = sample.get(label)
    if not isinstance(found, Mapping):
        raise UsageError(
            f"sample[{label!r}] is expected to hold the columns of a label, got {type(found).__name__}. Want the label "
            "as a column; read weights from it before it is made a target, and that once."
        )
    return found
