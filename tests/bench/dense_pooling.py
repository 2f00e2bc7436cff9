"""Dense pooling: what label maps are commonly read by, to be compared with: the sparse map scattered into a dense one
[rows, classes, y, x], then RoIAlign to 1 x 1 (arXiv 1703.06870, aligned), point by point, and a softmax.
"""

import math

import torch
from torch import Tensor

ROUNDING = 1e-5
"""120 of 225 pixels are 8 of 15 cells, and not 8.000000000000002, which would be sampled 9 times."""


def scatter(ids: Tensor, scores: Tensor, residual: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Logits [rows, classes, y, x] of [rows, y, x, k]; classes that are not listed share the residual."""
    left_out = classes - ids.shape[-1]
    fill = residual.to(dtype) - math.log(left_out)
    dense = fill[:, None].repeat(1, classes, 1, 1)
    places, values = (each.movedim(-1, 1) for each in (ids.long(), scores.to(dtype)))
    return dense.scatter_(1, places, values)


def roi_align(dense: Tensor, boxes: Tensor) -> Tensor:
    """[rows, classes]: the mean over ceil(side) x ceil(side) points of each box of the bilinear interpolation."""
    height, width = dense.shape[-2:]
    pooled = []
    for image, (y1, x1, y2, x2) in zip(dense, boxes.tolist(), strict=True):
        y, x = points(y1, y2, height), points(x1, x2, width)
        low_y, low_x = y.long(), x.long()
        high_y, high_x = (low_y + 1).clamp(max=height - 1), (low_x + 1).clamp(max=width - 1)
        down, across = (y - low_y).to(dense.dtype), (x - low_x).to(dense.dtype)
        flat = image.reshape(len(image), -1)
        total = torch.zeros(len(image), dtype=dense.dtype)
        for rows, part in ((low_y, 1 - down), (high_y, down)):
            for columns, share in ((low_x, 1 - across), (high_x, across)):
                places = (rows[:, None] * width + columns).reshape(-1)
                total += flat.index_select(1, places) @ (part[:, None] * share).reshape(-1)
        pooled.append(total / (len(y) * len(x)))
    return torch.stack(pooled)


def points(low: float, high: float, cells: int) -> Tensor:
    side = (high - low) * cells
    count = math.ceil(side - ROUNDING)
    found = low * cells - 0.5 + (torch.arange(count, dtype=torch.float64) + 0.5) * side / count
    return found.clamp(0, cells - 1)


def pool_densely(
    ids: Tensor, scores: Tensor, residual: Tensor, classes: int, boxes: Tensor, dtype: torch.dtype
) -> Tensor:
    """Probabilities [rows, classes]."""
    return torch.softmax(roi_align(scatter(ids, scores, residual, classes, dtype), boxes), dim=1)
