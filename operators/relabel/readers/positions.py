"""Positions: sets of whole numbers as sorted intervals that do not touch: what of an epoch is still to come."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int64

Numbers = Int64[np.ndarray, " numbers"]


@dataclasses.dataclass(frozen=True)
class Positions:
    """The numbers `lows[i]` to `highs[i]` (exclusive) of all i, ascending."""

    lows: Numbers
    highs: Numbers

    @classmethod
    def span(cls, low: int, high: int) -> "Positions":
        """All numbers from `low` to `high` (exclusive)."""
        return cls.union([(low, high)])

    @classmethod
    def union(cls, intervals: Iterable[tuple[int, int]]) -> "Positions":
        """What lies in any of the intervals."""
        pairs = np.array([pair for pair in intervals if pair[0] < pair[1]], np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
        lows, highs = pairs[:, 0], np.maximum.accumulate(pairs[:, 1]) if len(pairs) else pairs[:, 1]
        first = np.append(True, lows[1:] > highs[:-1])[: len(pairs)]
        last = np.append(first[1:], True)[: len(pairs)]
        return cls(np.ascontiguousarray(lows[first]), np.ascontiguousarray(highs[last]))

    @functools.cached_property
    def _ends(self) -> Numbers:
        return np.cumsum(self.highs - self.lows)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def intervals(self) -> Iterator[tuple[int, int]]:
        return zip(self.lows.tolist(), self.highs.tolist(), strict=True)

    def at(self, ranks: Numbers) -> Numbers:
        """The numbers that have these ranks, 0 the smallest."""
        place = np.searchsorted(self._ends, ranks, side="right")
        before = np.append(0, self._ends)[place]
        return np.asarray(self.lows[place] + (ranks - before), np.int64)

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The intervals of the numbers with ranks `start` to `stop` (exclusive), ascending."""
        if start >= stop:
            return
        first = int(np.searchsorted(self._ends, start, side="right"))
        before = int(self._ends[first - 1]) if first else 0
        for place in range(first, len(self.lows)):
            low, high = int(self.lows[place]), int(self.highs[place])
            end = before + high - low
            yield low + max(0, start - before), high - max(0, end - stop)
            if end >= stop:
                return
            before = end
