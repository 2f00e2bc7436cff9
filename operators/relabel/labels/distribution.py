"""Distributions: how numbers are spread, as counts and fixed-point sums.

Whatever parts the numbers come in, and in whatever order these are added, the result is the same to the last digit. The
edges of the histogram are the same for all data: 16 bins from each power of two to the next, so that a quantile is off
by less than 1/16 of itself.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from ..digests import Json

UNITS = 2**20
"""Of a sum, a smallest and a largest number: they are kept as multiples of 2^-20."""
PER_OCTAVE = 16
LEAST, MOST = -10, 20
"""Powers of two: numbers between -2^LEAST and 2^LEAST share bin 0, those from 2^MOST on one bin."""
LAST = 1 + PER_OCTAVE * (MOST - LEAST)
LARGEST = 2.0**1000
"""What is larger counts as this: in 1/UNITS it would be no float."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Of some numbers, at least one."""

    count: int
    total: int
    """Their sum, each rounded, in 1/UNITS."""
    least: int
    most: int
    """In 1/UNITS."""
    bins: Mapping[int, int]
    """Bin -> how many; those of negative numbers are negative."""
    whole: bool = False
    """All are integers by their type."""

    @property
    def mean(self) -> float:
        return self.total / UNITS / self.count

    @property
    def smallest(self) -> float:
        return self.least / UNITS

    @property
    def largest(self) -> float:
        return self.most / UNITS

    def quantile(self, share: float) -> float:
        """Below which this share of the numbers lies, as if those of a bin were spread evenly; whole numbers are exact
        up to 32.
        """
        rank = share * (self.count - 1)
        before = 0
        for index in sorted(self.bins):
            here = self.bins[index]
            if rank < before + here or before + here == self.count:
                low, high = edges(index)
                part = min(1.0, (rank - before + 0.5) / here)
                value = low + (high - low) * part if math.isfinite(high - low) else max(low, -(2.0**MOST))
                value = value if index else 0.0
                value = min(max(value, self.smallest), self.largest)
                return float(math.trunc(value)) if self.whole else value
            before += here
        raise AssertionError("a distribution has at least one number")

    def to_json(self) -> dict[str, Json]:
        """For people: count, mean, min, max and quantiles."""
        return {
            "count": self.count,
            "mean": shortened(self.mean),
            "min": shortened(self.smallest),
            "max": shortened(self.largest),
            "quantiles": {f"{share:g}": shortened(self.quantile(share)) for share in QUANTILES},
        }

    def state(self) -> list[Json]:
        """All of it, for `from_state`; bins as runs of neighbours, each its first bin and then the counts."""
        runs: list[list[int]] = []
        end = None
        for index in sorted(self.bins):
            if index != end:
                runs.append([index])
            runs[-1].append(self.bins[index])
            end = index + 1
        return [self.count, self.total, self.least, self.most, int(self.whole), runs]


def distribution(numbers: Float64[np.ndarray, " rows"], whole: bool = False) -> Distribution | None:
    """Of the finite ones among these numbers; None where there is none."""
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    units = np.rint(np.clip(numbers, -LARGEST, LARGEST) * UNITS)
    total = units.astype(np.int64).sum() if fits(units) else sum(map(int, units.tolist()))  # Python's have no limit
    indices, counts = np.unique(bins_of(numbers), return_counts=True)
    bins = dict(zip(indices.tolist(), counts.tolist(), strict=True))
    return Distribution(len(units), int(total), int(units.min()), int(units.max()), bins, whole)


def fits(units: Float64[np.ndarray, " rows"]) -> bool:
    """Whether 64 bits hold their sum."""
    return len(units) < 2**20 and bool(np.abs(units).max() < 2**42)


def from_state(state: Sequence[Json]) -> Distribution:
    return merged_states([state])


def merged(parts: Sequence[Distribution]) -> Distribution:
    """Of all numbers of the parts together."""
    return merged_states([part.state() for part in parts])


def merged_states(states: Sequence[Sequence[Json]]) -> Distribution:
    """As `merged`, of what `state` gave: many small ones are added up without being made."""
    counts, totals, least, most, whole, bins = zip(*states, strict=True)
    runs = [run for each in bins for run in each]
    places = np.fromiter(itertools.chain.from_iterable(range(run[0], run[0] + len(run) - 1) for run in runs), np.int64)
    numbers = np.fromiter(itertools.chain.from_iterable(run[1:] for run in runs), np.int64)
    added = np.zeros(2 * LAST + 1, np.int64)
    np.add.at(added, places + LAST, numbers)
    found = np.flatnonzero(added)
    held = dict(zip((found - LAST).tolist(), added[found].tolist(), strict=True))
    return Distribution(sum(counts), sum(totals), min(least), max(most), held, all(whole))


def bins_of(numbers: Float64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """In which bin each number lies."""
    mantissas, exponents = np.frexp(np.abs(numbers))  # in [1/2, 1), so that 2^LEAST has the exponent LEAST + 1
    within = np.floor((mantissas - 0.5) * 2 * PER_OCTAVE).astype(np.int64)
    index = 1 + PER_OCTAVE * (exponents.astype(np.int64) - LEAST - 1) + within
    index = np.where(np.abs(numbers) < 2.0**LEAST, 0, np.minimum(index, LAST))
    return np.where(numbers < 0, -index, index)


def edges(index: int) -> tuple[float, float]:
    """The numbers that a bin lies between; the last bin has no end."""
    if index == 0:
        return -(2.0**LEAST), 2.0**LEAST
    octave, within = divmod(abs(index) - 1, PER_OCTAVE)
    low, high = (2.0 ** (LEAST + octave) * (1 + each / PER_OCTAVE) for each in (within, within + 1))
    high = math.inf if abs(index) == LAST else high
    return (low, high) if index > 0 else (-high, -low)


def shortened(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
