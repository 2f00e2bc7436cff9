"""Sums: numbers added up as whole multiples of 2^-48, for means that must be exact to the last digits.

A sum is two integers, of the 24 bits before and the 24 after 2^-24, so that 2^39 probabilities fit.
"""

import numpy as np
from jaxtyping import Float64, Int64

from .statistic import LARGEST, UNITS


def fine(
    numbers: Float64[np.ndarray, "*shape"],
) -> tuple[Int64[np.ndarray, "*shape"], Int64[np.ndarray, "*shape"]]:
    """Each number as `high` / 2^24 + `low` / 2^48, the nearest such; what is beyond +-LARGEST counts as that."""
    units = np.clip(numbers, -LARGEST, LARGEST) * UNITS
    high = np.floor(units)
    return np.asarray(high).astype(np.int64), np.asarray(np.rint((units - high) * UNITS)).astype(np.int64)


def mean_of(high: int, low: int, count: int) -> float:
    """Of a sum's two parts; correctly rounded."""
    return (high * UNITS + low) / (UNITS * UNITS * count)
