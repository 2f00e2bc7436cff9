"""Patterns: how many rows have the same few numbers: all that must be known of votes, whatever the number of rows."""

import dataclasses

import numpy as np
from jaxtyping import Int64, Integer

from ..errors import UsageError
from .statistic import State


@dataclasses.dataclass(frozen=True)
class PatternTable:
    """Counts of tuples of `width` small integers; at most `limit` different ones. Sorted by the tuple."""

    width: int
    limit: int

    def empty(self) -> State:
        return {"patterns": np.zeros((0, self.width), np.int16), "counts": np.zeros(0, np.int64)}

    def update(self, state: State, rows: Integer[np.ndarray, "rows width"]) -> State:
        more: State = {"patterns": rows.astype(np.int16), "counts": np.ones(len(rows), np.int64)}
        return self.merge(state, more)

    def merge(self, left: State, right: State) -> State:
        """Raises UsageError where there are too many patterns."""
        rows = np.concatenate([left["patterns"], right["patterns"]])
        patterns, places = np.unique(rows, axis=0, return_inverse=True)
        if len(patterns) > self.limit:
            raise UsageError(
                f"the rows have more than {self.limit} different patterns of {self.width} votes. Use fewer judges, or "
                "classes that are fewer."
            )
        counts: Int64[np.ndarray, " patterns"] = np.zeros(len(patterns), np.int64)
        np.add.at(counts, places.reshape(-1), np.concatenate([left["counts"], right["counts"]]))
        return {"patterns": np.ascontiguousarray(patterns), "counts": counts}
