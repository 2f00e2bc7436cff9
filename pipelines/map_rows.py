"""Rows of label maps: the photo, the map over it, and the label read from it.

A class has one colour per row, by its rank in the whole map; a cell takes the colour of its most probable class and
the opacity of that class's probability, so that what the teacher is unsure of stays grey.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from relabel.labels.label_map import LabelMap

from .drawing import COLOURS, FAINT, RULE, PreviewSample, backdrop, draw_image, write
from .wording import percent, short_name, shortened

NUM_LISTED = 5
NOTE = (
    "Each cell has the colour of its most probable class, the stronger the more probable; grey: unsure, or a class not "
    "listed."
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a row's list: a class, its colour, and how much of the map is its."""

    name: str
    colour: str
    probability: float
    """Mean over all cells."""
    cells: float
    """Fraction of the cells in which it is the most probable class."""


@dataclasses.dataclass(frozen=True)
class View:
    """What is drawn of one sample."""

    sample: PreviewSample
    entries: Sequence[Entry]
    """Best first."""
    cells: Float32[np.ndarray, "rows columns 4"]
    """RGBA, to lay over the photo."""


def draw_rows(rows: Sequence[Sequence[Axes]], samples: Sequence[PreviewSample]) -> None:
    """One row of three panels per sample; all bars have one scale."""
    views = [view_of(sample) for sample in samples]
    scale = max(view.entries[0].probability for view in views)
    for panels, view in zip(rows, views, strict=True):
        draw_row(panels, view, scale)
    draw_heads(rows[0], views[0])


def view_of(sample: PreviewSample) -> View:
    """Rank the classes by their mean probability, best first, and colour the cells by it."""
    assert isinstance(sample.label, LabelMap)
    probabilities = sample.label.probabilities()
    mean, winners = probabilities.mean((0, 1)), probabilities.argmax(-1)
    best: list[int] = np.argsort(-mean, kind="stable")[:NUM_LISTED].tolist()
    entries = [
        Entry(short_name(sample.class_names[index]), colour, float(mean[index]), float((winners == index).mean()))
        for index, colour in zip(best, COLOURS, strict=False)
    ]
    return View(sample, entries, coloured_cells(probabilities, best))


def draw_row(panels: Sequence[Axes], view: View, scale: float) -> None:
    """Photo, map and list, side by side; a probability of `scale` has the longest bar."""
    photo, overlay, panel = panels
    draw_image(photo, view.sample.image)
    draw_image(overlay, backdrop(view.sample.image))
    height, width = view.sample.image.shape[:2]
    overlay.imshow(view.cells, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    draw_list(panel, view, scale)


def draw_heads(panels: Sequence[Axes], view: View) -> None:
    rows, columns = view.cells.shape[:2]
    heads = ("photo", f"label map, {rows} × {columns} cells", "label of the whole map")
    for axes, text in zip(panels, heads, strict=True):
        axes.set_title(text, loc="left", color=FAINT, size=9.5, pad=7)


def coloured_cells(
    probabilities: Float32[np.ndarray, "rows columns classes"], best: Sequence[int]
) -> Float32[np.ndarray, "rows columns 4"]:
    """RGBA in 0..1 per cell; transparent where the most probable class is not among `best`."""
    winners, strength = probabilities.argmax(-1), probabilities.max(-1)
    rgba = np.zeros((*winners.shape, 4), np.float32)
    for index, colour in zip(best, COLOURS, strict=False):
        cells = winners == index
        rgba[cells, :3] = to_rgb(colour)
        rgba[cells, 3] = 0.12 + 0.78 * strength[cells]
    return rgba


def draw_list(axes: Axes, view: View, scale: float) -> None:
    """Title, old label beside new, then one bar per listed class."""
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_axis_off()
    write(axes, 0.0, 0.055, view.sample.title, color=FAINT, size=9)
    write(axes, 0.0, 0.165, "old", color=FAINT, size=9)
    write(axes, 0.06, 0.165, shortened(short_name(view.sample.old_label or "none"), 24), size=12)
    best = view.entries[0]
    write(axes, 0.50, 0.165, "new", color=FAINT, size=9)
    write(axes, 0.57, 0.165, shortened(best.name, 20), size=12, weight="bold", color=best.colour)
    axes.plot((0.0, 0.99), (0.27, 0.27), color=RULE, linewidth=1)
    write(axes, 0.86, 0.335, "probability", color=FAINT, size=8, ha="right")
    write(axes, 0.99, 0.335, "cells", color=FAINT, size=8, ha="right")
    for number, entry in enumerate(view.entries):
        draw_entry(axes, entry, 0.435 + 0.118 * number, entry.probability / scale)


def draw_entry(axes: Axes, entry: Entry, y: float, filled: float) -> None:
    """Name, bar, mean probability and share of cells, on the line `y`; `filled` is the bar's length in 0..1."""
    write(axes, 0.0, y, shortened(entry.name, 28))
    axes.add_patch(Rectangle((0.40, y - 0.03), 0.30 * filled, 0.06, facecolor=entry.colour))
    write(axes, 0.86, y, percent(entry.probability), ha="right")
    write(axes, 0.99, y, percent(entry.cells), ha="right", color=FAINT)
