"""Regions: which part of an image a crop takes, in pixels, and in the fractions that a label map is addressed by.

All arithmetic is exact up to float64: the box that is decoded and the box that is pooled are one box.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import UsageError
from .draws import Draws
from .pooling import Box

ATTEMPTS = 10
"""Of drawing a box that fits, before the largest centred one is taken."""


class Region(NamedTuple):
    """Of an image, in its pixels; may begin and end within one."""

    top: float
    left: float
    height: float
    width: float

    def fractions(self, height: int, width: int) -> Box:
        """(y1, x1, y2, x2) in fractions of an image of so many pixels."""
        return (
            self.top / height,
            self.left / width,
            min(1.0, (self.top + self.height) / height),
            min(1.0, (self.left + self.width) / width),
        )


def random_region(draws: Draws, height: int, width: int, scale: Sequence[float], ratio: Sequence[float]) -> Region:
    """Whole pixels: of `scale` of the area (uniform) and an aspect width / height in `ratio` (uniform in its
    logarithm), anywhere; as torchvision's and timm's crops choose it. After ATTEMPTS misses the largest centred one of
    the nearest aspect.
    """
    logs = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        area, aspect = height * width * draws.uniform(*scale), math.exp(draws.uniform(*logs))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return Region(draws.below(height - tall + 1), draws.below(width - wide + 1), tall, wide)
    tall, wide = height, width
    if width / height < ratio[0]:
        tall = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        wide = max(1, round(height * ratio[1]))
    return Region((height - tall) // 2, (width - wide) // 2, tall, wide)


def centred_region(height: int, width: int, size: tuple[int, int], resize: int) -> Region:
    """What a centre crop of `size` (height, width) takes of an image whose shorter side was scaled to `resize`."""
    scale = min(height, width) / resize
    tall, wide = min(height, size[0] * scale), min(width, size[1] * scale)
    return Region((height - tall) / 2, (width - wide) / 2, tall, wide)


def size_pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of `size`; raises UsageError where a side is below 1."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise UsageError(f"size must be a number of pixels or (height, width), each at least 1, got {size!r}.")
    return pair[0], pair[1]
