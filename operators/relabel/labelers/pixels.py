"""Pixels: the logits of a coarse grid brought to an image's own size, and one class per pixel out of them.

Logits are interpolated bilinearly, with the centres of the outer cells half a cell inside the border (torch's
`align_corners=False`), and only then compared. The full-size logits never exist at once: a tile of bounded size after
the other is made, read and dropped. Means are summed as integers, so that no order of summation shows in them.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt8, UInt16
from torch import Tensor

TILE_BYTES = 2**25
"""Of the logits of one tile; a few such buffers are alive at a time."""
UNITS = 2**24
"""One probability in integers: float32 has so many steps below 1."""


class Pixels(NamedTuple):
    """One image's mask."""

    map: UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]
    classes: Shaped[np.ndarray, " present"]
    """Ids that occur, ascending, in the map's dtype."""
    confidence: Float32[np.ndarray, " present"]
    """Mean probability of each over its pixels."""


def classify_pixels(
    logits: Float32[Tensor, "classes y x"], height: int, width: int, min_confidence: float, dtype: str, ignore: int
) -> Pixels:
    """The most probable class of every pixel (of equal ones the lowest id), or `ignore` where that is less probable
    than `min_confidence`.
    """
    cells = logits.permute(1, 2, 0).contiguous()
    num_classes, device = cells.shape[-1], cells.device
    whole = np.empty((height, width), dtype)
    sums, counts = (torch.zeros(num_classes, dtype=torch.int64, device=device) for _ in range(2))
    for rows, columns in _tiles(height, width, num_classes):
        tile = _interpolate(_interpolate(cells, 0, height, rows), 1, width, columns)
        highest, ids = tile.max(dim=-1)
        probability = 1 / tile.sub_(highest[..., None]).exp_().sum(dim=-1)
        sure = probability >= min_confidence
        sums.scatter_add_(0, ids[sure], (probability[sure].double() * UNITS).round().long())
        counts.scatter_add_(0, ids[sure], torch.ones_like(ids[sure]))
        whole[rows, columns] = ids.masked_fill_(~sure, ignore).cpu().numpy()
    present: Int64[Tensor, " present"] = counts.nonzero()[:, 0]
    means = sums[present].double() / (counts[present].double() * UNITS)
    return Pixels(whole, present.cpu().numpy().astype(dtype), means.float().cpu().numpy())


def _tiles(height: int, width: int, num_classes: int) -> list[tuple[slice, slice]]:
    """Whole rows where they fit, else parts of one row."""
    pixels = max(1, TILE_BYTES // (4 * num_classes))
    columns = min(width, pixels)
    rows = max(1, pixels // columns)
    return [
        (slice(y, min(y + rows, height)), slice(x, min(x + columns, width)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]


def _interpolate(
    cells: Float32[Tensor, "a b classes"], axis: int, length: int, part: slice
) -> Float32[Tensor, "c d classes"]:
    """Along one axis, of `length` positions those in `part`."""
    last = cells.shape[axis] - 1
    centres = (torch.arange(part.start, part.stop, dtype=torch.float64) + 0.5) * (last + 1) / length - 0.5
    places = centres.clamp(0, last)
    low = places.long()
    weight = (places - low).float().to(cells.device)
    low = low.to(cells.device)
    high = (low + 1).clamp(max=last)
    weight = weight[:, None, None] if axis == 0 else weight[:, None]
    return torch.lerp(cells.index_select(axis, low), cells.index_select(axis, high), weight)
