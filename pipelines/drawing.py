"""Drawing: what all pictures share: colours, type, photos, and the row that a sample becomes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes

from relabel.labels.caption import Caption
from relabel.labels.label_map import LabelMap
from relabel.labels.mask import Mask

COLOURS = ("#e4572e", "#1f7a8c", "#f2a900", "#7b4fa3", "#4c9f50")
INK, FAINT, RULE = "#1d2129", "#7a808a", "#e4e6ea"
OTHER = "#9aa0a8"
"""Of a class that is not listed."""
DPI = 150
STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10.0, "text.color": INK, "text.parse_math": False}
PNG: dict[str, Any] = {"format": "png", "metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
"""How figures are saved: the same bytes for the same picture, and not for long."""


@dataclasses.dataclass(frozen=True)
class PreviewSample:
    """One row of the preview."""

    image: UInt8[np.ndarray, "height width 3"]
    """RGB, oriented as the label is; may be smaller than what was labelled."""
    label: LabelMap | Mask | Caption
    class_names: Sequence[str]
    old_label: str | None
    """What the data set said; None where it said nothing."""
    title: str


def backdrop(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """The photo in light grey, so that the only colours are the map's."""
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((110 + grey * (145 / 255)).astype(np.uint8)[:, :, None], 3, axis=2)


def draw_image(axes: Axes, image: UInt8[np.ndarray, "height width 3"]) -> None:
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_anchor("NW")


def write(axes: Axes, x: float, y: float, text: str, **font: Any) -> None:
    """Text whose middle lies on `y`."""
    axes.text(x, y, text, va="center", **font)
