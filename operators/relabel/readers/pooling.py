"""Pooling: the soft label of a crop, read from the label map of its image (arXiv 2101.05022).

Boxes are (y1, x1, y2, x2) in fractions of the labelled image. What lies outside a cell's top k is spread evenly over
the classes that are not in it, never set to a constant logit: a label must not depend on the offset of the logits.
Maps stay sparse: no array of rows x classes x cells is ever made. `torch_pooling` is the same on tensors.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int64, Shaped

from ..errors import UsageError
from ..labels.label_map import LabelMap
from .overlaps import AXES, AXIS

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
Mode = Literal["prob", "logit"]
MODES: tuple[Mode, ...] = ("prob", "logit")


@dataclasses.dataclass(frozen=True)
class StackedMaps:
    """Label maps of several images in one batch, as numpy arrays or as tensors of one device."""

    ids: Shaped[Any, "rows y x k"]
    """Integers."""
    scores: Shaped[Any, "rows y x k"]
    residual: Shaped[Any, "rows y x"]
    classes: int
    """How many there are."""

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self) -> "StackedMaps":
        """As tensors; those that are stay as they are."""
        import torch

        return self._each(torch.as_tensor)

    def to(self, device: Any, non_blocking: bool = False) -> "StackedMaps":
        """As tensors on a device."""
        return self.tensors()._each(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "StackedMaps":
        """As a DataLoader asks with `pin_memory`."""
        return self.tensors()._each(lambda values: values.pin_memory())

    def _each(self, change: Any) -> "StackedMaps":
        return StackedMaps(change(self.ids), change(self.scores), change(self.residual), self.classes)


def stack_maps(maps: Sequence[LabelMap]) -> StackedMaps:
    """Raises UsageError where there are none, or they have not one grid, top k and number of classes."""
    kinds = {(one.ids.shape, one.classes) for one in maps}
    if len(kinds) != 1:
        raise UsageError(
            "label maps that are pooled together must have one shape [y, x, k] and one number of classes, got "
            f"{', '.join(map(str, sorted(kinds))) or 'no maps'}. Pool the maps of one label at a time."
        )
    return StackedMaps(
        np.stack([one.ids for one in maps]),
        np.stack([one.scores for one in maps]),
        np.stack([one.residual for one in maps]),
        maps[0].classes,
    )


def pool(
    label_map: LabelMap, box: Box = WHOLE, mode: Mode = "prob", flip: bool = False
) -> Float32[np.ndarray, " classes"]:
    """Probabilities of all classes in `box`; they sum to 1.

    `prob` means the cells' probabilities weighted by their overlap with the box. `logit` is the paper's RoIAlign to
    1 x 1 on logits, then softmax. With `flip`, the box lies in the horizontally mirrored image.
    """
    return np.asarray(pool_exactly(label_map, box, mode, flip).astype(np.float32))


def pool_exactly(label_map: LabelMap, box: Box, mode: Mode, flip: bool = False) -> Float64[np.ndarray, " classes"]:
    """As `pool`, before rounding."""
    y1, x1, y2, x2 = box
    if not (0 <= y1 < y2 <= 1 and 0 <= x1 < x2 <= 1):
        raise impossible(box)
    if flip:
        x1, x2 = 1 - x2, 1 - x1
    height, width, top_k = label_map.ids.shape
    weigh = AXIS[checked_mode(mode)]
    (top, down), (left, across) = weigh(y1, y2, height), weigh(x1, x2, width)
    part = slice(top, top + len(down)), slice(left, left + len(across))
    weight = np.outer(down, across).reshape(-1)
    scores, residual = label_map.scores[part].reshape(-1, top_k), label_map.residual[part].reshape(-1)
    above, base = contributions(scores, residual, weight, mode, label_map.classes - top_k)
    ids: Int64[np.ndarray, " entries"] = label_map.ids[part].astype(np.int64).reshape(-1)
    pooled = np.bincount(ids, above.reshape(-1), minlength=label_map.classes) + base.sum()
    return np.asarray(pooled if mode == "prob" else softmax(pooled[None])[0])


def label_pooling(
    maps: StackedMaps | Sequence[LabelMap], boxes: Any, mode: Mode = "prob", flip: Any = None
) -> Float32[Any, "rows classes"]:
    """Probabilities of all classes in the box of every map; rows sum to 1. `mode` is as in `pool`.

    `boxes` [rows, 4] are (y1, x1, y2, x2) in fractions of the labelled image; where `flip` [rows] is true, of its
    mirror image. The crops of this package give boxes of the image as it was before a flip: these need no `flip`.
    Maps of tensors give a tensor on their device, others a numpy array. Raises UsageError for impossible boxes.
    """
    maps = maps if isinstance(maps, StackedMaps) else stack_maps(maps)
    if not isinstance(maps.ids, np.ndarray):
        from .torch_pooling import pool_tensors

        return pool_tensors(maps, boxes, mode, flip)
    rows, _, _, top_k = maps.ids.shape
    cells, weight = cell_weights(maps, boxes, mode, flip)
    scores, residual = maps.scores.reshape(-1, top_k)[cells], maps.residual.reshape(-1)[cells]
    above, base = contributions(scores, residual, weight, mode, maps.classes - top_k)
    row = cells // (maps.residual.size // rows)
    places: Int64[np.ndarray, "cells k"] = maps.ids.reshape(-1, top_k)[cells] + (row * maps.classes)[:, None]
    pooled = np.bincount(places.reshape(-1), above.reshape(-1), minlength=rows * maps.classes)
    pooled = pooled.reshape(rows, maps.classes) + np.bincount(row, base, minlength=rows)[:, None]
    return np.asarray((pooled if mode == "prob" else softmax(pooled)).astype(np.float32))


def cell_weights(
    maps: StackedMaps, boxes: Any, mode: Mode, flip: Any
) -> tuple[Int64[np.ndarray, " cells"], Float64[np.ndarray, " cells"]]:
    """Which cells of all maps, counted through, the boxes touch, and how much each weighs in its box."""
    rows, height, width, _ = maps.ids.shape
    y1, x1, y2, x2 = checked_boxes(boxes, flip, rows).T
    weigh = AXES[checked_mode(mode)]
    flat = (weigh(y1, y2, height)[:, :, None] * weigh(x1, x2, width)[:, None, :]).reshape(-1)
    cells = np.flatnonzero(flat)
    return cells, flat[cells]


def checked_boxes(boxes: Any, flip: Any, rows: int) -> Float64[np.ndarray, "rows 4"]:
    """Those with `flip` mirrored. Raises UsageError where they are not as many as rows, or one is empty or reaches out
    of the image.
    """
    found = np.asarray(boxes, np.float64)
    if found.shape != (rows, 4):
        raise UsageError(f"{rows} maps need boxes of shape [{rows}, 4], got {list(found.shape)}.")
    y1, x1, y2, x2 = found.T
    possible = (y1 >= 0) & (y1 < y2) & (y2 <= 1) & (x1 >= 0) & (x1 < x2) & (x2 <= 1)
    if not possible.all():
        raise impossible(found[~possible][0].tolist())
    if flip is None:
        return found
    flips = np.asarray(flip, np.bool_)
    if flips.shape != (rows,):
        raise UsageError(f"{rows} maps need `flip` of shape [{rows}], got {list(flips.shape)}.")
    return np.where(flips[:, None], np.stack([y1, 1 - x2, y2, 1 - x1], axis=1), found)


def checked_mode(mode: str) -> str:
    """Raises UsageError where there is no such mode."""
    if mode not in MODES:
        raise UsageError(f"mode must be 'prob' or 'logit', got {mode!r}.")
    return mode


def impossible(box: Sequence[float]) -> UsageError:
    return UsageError(
        "a box must be (y1, x1, y2, x2) with 0 <= y1 < y2 <= 1 and 0 <= x1 < x2 <= 1, in fractions of the labelled "
        f"image; got {tuple(box)}."
    )


def contributions(
    scores: Float16[np.ndarray, "cells k"],
    residual: Float16[np.ndarray, " cells"],
    weight: Float64[np.ndarray, " cells"],
    mode: Mode,
    left_out: int,
) -> tuple[Float64[np.ndarray, "cells k"], Float64[np.ndarray, " cells"]]:
    """What each cell adds to its listed classes, beyond what it adds to every class, and that."""
    listed, unlisted = scores.astype(np.float64), residual.astype(np.float64)
    if mode == "prob":
        highest = np.maximum(listed[:, 0], unlisted)
        listed, unlisted = np.exp(listed - highest[:, None]), np.exp(unlisted - highest)
        weight = weight / (listed.sum(axis=1) + unlisted)
        base = weight * unlisted / max(left_out, 1)
    else:
        base = weight * (unlisted - math.log(left_out)) if left_out else np.zeros_like(weight)
    return listed * weight[:, None] - base[:, None], base


def softmax(logits: Float64[np.ndarray, "rows classes"]) -> Float64[np.ndarray, "rows classes"]:
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))
