"""Pooling: the soft label of a crop, read from the label map of its image (arXiv 2101.05022).

Boxes are (y1, x1, y2, x2) in fractions of the labelled image. What lies outside a cell's top k is spread evenly over
the classes that are not in it, never set to a constant logit: a label must not depend on the offset of the logits.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from ..errors import UsageError
from ..labels.label_map import LabelMap

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def pool(
    label_map: LabelMap, box: Box = WHOLE, mode: Literal["prob", "logit"] = "prob", flip: bool = False
) -> Float32[np.ndarray, " classes"]:
    """Probabilities of all classes in `box`; they sum to 1.

    `prob` means the cells' probabilities weighted by their overlap with the box. `logit` is the paper's RoIAlign to
    1 x 1 on logits, then softmax. With `flip`, the box lies in the horizontally mirrored image.
    """
    y1, x1, y2, x2 = box
    if not (0 <= y1 < y2 <= 1 and 0 <= x1 < x2 <= 1):
        raise UsageError(f"a box must be (y1, x1, y2, x2) with 0 <= y1 < y2 <= 1 and 0 <= x1 < x2 <= 1, got {box}.")
    if flip:
        x1, x2 = 1 - x2, 1 - x1
    height, width, _ = label_map.ids.shape
    axis_weights = _overlap if mode == "prob" else _align
    weights = np.outer(axis_weights(y1, y2, height), axis_weights(x1, x2, width))
    pooled = _pool_probabilities(label_map, weights) if mode == "prob" else _pool_logits(label_map, weights)
    return pooled.astype(np.float32)


def _overlap(low: float, high: float, cells: int) -> Float64[np.ndarray, " cells"]:
    """The share of [low, high] that lies in each cell; sums to 1."""
    edges = np.clip(np.arange(cells + 1) / cells, low, high)
    return np.diff(edges) / (high - low)


def _align(low: float, high: float, cells: int) -> Float64[np.ndarray, " cells"]:
    """RoIAlign along one axis: ceil(side) samples of the bilinear interpolation between cell centres; sums to 1."""
    side = (high - low) * cells
    samples = math.ceil(side)
    positions = low * cells - 0.5 + (np.arange(samples) + 0.5) * side / samples
    inside = np.clip(positions, 0, cells - 1)
    nearness = 1 - np.abs(inside[:, None] - np.arange(cells))
    return np.asarray(np.maximum(nearness, 0).mean(axis=0))


def _pool_probabilities(label_map: LabelMap, weights: Float64[np.ndarray, "y x"]) -> Float64[np.ndarray, " classes"]:
    top, rest = label_map.top_probabilities()
    left_out = label_map.classes - label_map.ids.shape[-1]
    share = rest / left_out if left_out else np.zeros_like(rest)
    return _sparse_mean(label_map, weights, top, share)


def _pool_logits(label_map: LabelMap, weights: Float64[np.ndarray, "y x"]) -> Float64[np.ndarray, " classes"]:
    scores, residual = label_map.scores.astype(np.float64), label_map.residual.astype(np.float64)
    left_out = label_map.classes - label_map.ids.shape[-1]
    fill = residual - math.log(left_out) if left_out else np.zeros_like(residual)
    logits = _sparse_mean(label_map, weights, scores, fill)
    likelihood = np.exp(logits - logits.max())
    return np.asarray(likelihood / likelihood.sum())


def _sparse_mean(
    label_map: LabelMap,
    weights: Float64[np.ndarray, "y x"],
    listed: Float64[np.ndarray, "y x k"],
    unlisted: Float64[np.ndarray, "y x"],
) -> Float64[np.ndarray, " classes"]:
    """Weighted mean over cells of a dense map that is `listed` at the ids and `unlisted` at all other classes."""
    above: Shaped[np.ndarray, "y x k"] = weights[..., None] * (listed - unlisted[..., None])
    ids: Int64[np.ndarray, " entries"] = label_map.ids.astype(np.int64).ravel()
    sums = np.bincount(ids, above.ravel(), minlength=label_map.classes)
    return np.asarray(sums + (weights * unlisted).sum())
