"""Overlaps: how much each cell along one axis of a label map counts for an interval of it.

Twice the same: of one interval in plain Python, which a single crop is read by faster than by numpy, and of many.
Intervals [low, high] lie in [0, 1]; weights sum to 1.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

Intervals = Float64[np.ndarray, " rows"]
Weights = tuple[int, list[float]]
"""The first cell that counts, and the weights from there on."""
NOISE = 1e-5
"""A side of 9 cells and this much is one of 9 cells: rounding, also of float32 boxes, must not add a row of samples."""


def overlap(low: float, high: float, cells: int) -> Weights:
    """The share of [low, high] that lies in each cell."""
    first, side = min(int(low * cells), cells - 1), high - low
    last = min(max(math.ceil(high * cells), first + 1), cells)
    inside = (min(high, (at + 1) / cells) - max(low, at / cells) for at in range(first, last))
    return first, [max(length, 0.0) / side for length in inside]


def overlaps(low: Intervals, high: Intervals, cells: int) -> Float64[np.ndarray, "rows cells"]:
    """As `overlap`, of all cells."""
    low, high = low[:, None], high[:, None]
    edges = np.minimum(np.maximum(np.arange(cells + 1) / cells, low), high)
    return np.asarray((edges[:, 1:] - edges[:, :-1]) / (high - low))


def align(low: float, high: float, cells: int) -> Weights:
    """RoIAlign: ceil(side) samples of the bilinear interpolation between cell centres."""
    side = (high - low) * cells
    samples = max(math.ceil(side - NOISE), 1)
    start, step, last = low * cells - 0.5, side / samples, cells - 1.0
    first = int(min(max(start + 0.5 * step, 0.0), last))
    weights = [0.0] * (min(first + samples + 2, cells) - first)
    for sample in range(samples):
        place = min(max(start + (sample + 0.5) * step, 0.0), last) - first
        at = int(place)
        weights[at] += (at + 1 - place) / samples
        if place > at:
            weights[at + 1] += (place - at) / samples
    return first, weights


def aligns(low: Intervals, high: Intervals, cells: int) -> Float64[np.ndarray, "rows cells"]:
    """As `align`, of all cells."""
    side = ((high - low) * cells)[:, None]
    samples = np.maximum(np.ceil(side - NOISE), 1)
    step = np.arange(int(samples.max()) if len(samples) else 0)
    positions = low[:, None] * cells - 0.5 + (step + 0.5) * (side / samples)
    inside = np.minimum(np.maximum(positions, 0), cells - 1)
    nearness = np.maximum(1 - np.abs(inside[:, :, None] - np.arange(cells)), 0)
    counted = (step < samples) / samples
    return np.asarray((counted[:, None, :] @ nearness)[:, 0])


AXIS: dict[str, Callable[[float, float, int], Weights]] = {"prob": overlap, "logit": align}
AXES: dict[str, Callable[[Intervals, Intervals, int], np.ndarray]] = {"prob": overlaps, "logit": aligns}
"""By mode (see `pooling`)."""
