"""Side by side: one picture of two labels of the same samples: the photo, what each says of it, and the old label.

In one row a class has one colour on both sides, so that two maps of one colour agree.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from relabel.errors import UsageError

from . import mask_rows
from .agreement import CellAgreement
from .drawing import COLOURS, DPI, FAINT, INK, OTHER, PNG, RULE, STYLE, backdrop, draw_image, write
from .readings import NOTHING, Classified
from .wording import percent, shortened

ROW_INCHES, WIDTH_INCHES = 2.7, 14.0
HEADER, FOOTER = 0.78, 0.42
HEAD_CHARACTERS = 38
NOTE = (
    "Each cell has the colour of its most probable class, the stronger the more probable; in one row a class has one "
    "colour in both maps. Grey: unsure, or a class not listed."
)
MOST_CELLS = 64
"""Of a side: what has more is told in pixels, and not in a head."""


class Columns(NamedTuple):
    """Of a list, in its width."""

    name: float
    name_characters: int
    bar: float
    bar_width: float
    shares: tuple[float, float]
    confidences: tuple[float, float] | None


OF_MASKS = Columns(0.055, 24, 0.40, 0.17, (0.665, 0.905), (0.755, 0.99))
OF_MAPS = Columns(0.0, 30, 0.44, 0.26, (0.86, 0.99), None)
Photo = UInt8[np.ndarray, "height width 3"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """One row of the picture; classes by common ids."""

    image: UInt8[np.ndarray, "height width 3"]
    """RGB, oriented as the labels are."""
    title: str
    old_label: str | None
    first: Classified
    second: Classified
    cells: CellAgreement | None


def render(pairs: Sequence[Pair], names: Sequence[str], heads: tuple[str, str], summary: str, out: Path) -> None:
    """Write a PNG of 2100 pixels' width, `summary` above; the same pairs give the same picture."""
    if not pairs:
        raise UsageError("a comparison needs at least one sample that both recipes labelled, got none.")
    with mpl.rc_context(STYLE):
        height = len(pairs) * ROW_INCHES + HEADER + FOOTER
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            len(pairs), 4, width_ratios=(1, 1, 1, 1.75), wspace=0.05, hspace=0.09,
            left=0.014, right=0.988, top=1 - HEADER / height, bottom=FOOTER / height,
        )  # fmt: skip
        for row, (pair, colours) in enumerate(zip(pairs, class_colours_of(pairs), strict=True)):
            panels = [figure.add_subplot(grid[row, column]) for column in range(4)]
            draw_pair(panels, pair, names, colours)
            if row == 0:
                draw_heads(panels, pairs, heads)
        figure.text(0.014, 1 - 0.3 / height, summary, size=12.5)
        note = mask_rows.NOTE if all(is_mask(pair) for pair in pairs) else NOTE
        figure.text(0.014, 0.16 / height, note, color=FAINT, size=8.5)
        figure.savefig(out, **PNG)


def is_mask(pair: Pair) -> bool:
    return pair.first.kind == pair.second.kind == "mask"


def class_colours_of(pairs: Sequence[Pair]) -> list[dict[int, str]]:
    """Per row the colours of its listed classes: by rank in the row or, of masks, one per class in all rows."""
    rows = [listed_classes(pair) for pair in pairs]
    if not all(is_mask(pair) for pair in pairs):
        return [dict(zip(listed, COLOURS, strict=False)) for listed in rows]
    together = np.sum([pair.first.masses + pair.second.masses for pair in pairs], axis=0)
    order = sorted({index for listed in rows for index in listed}, key=lambda index: (-together[index], index))
    colours = mask_rows.class_colours(order)
    return [{index: colours[index] for index in listed} for listed in rows]


def draw_pair(panels: Sequence[Axes], pair: Pair, names: Sequence[str], colours: Mapping[int, str]) -> None:
    draw_image(panels[0], pair.image)
    for panel, side in zip(panels[1:3], (pair.first, pair.second), strict=True):
        OVERLAYS.get(side.kind, draw_cells)(panel, pair.image, side, colours)
    draw_list(panels[3], pair, names, colours)


def draw_cells(panel: Axes, image: Photo, side: Classified, colours: Mapping[int, str]) -> None:
    """The photo in grey under cells."""
    draw_image(panel, backdrop(image))
    height, width = image.shape[:2]
    panel.imshow(coloured(side, colours), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")


def draw_mask(panel: Axes, image: Photo, side: Classified, colours: Mapping[int, str]) -> None:
    mask_rows.draw_regions(panel, image, side.cells, colours)


OVERLAYS: Mapping[str, Callable[[Axes, Photo, Classified, Mapping[int, str]], None]] = {"mask": draw_mask}
"""By the contract's kind; others are drawn as cells."""


def draw_heads(panels: Sequence[Axes], pairs: Sequence[Pair], heads: tuple[str, str]) -> None:
    texts = ["photo"]
    both = [pair.first for pair in pairs], [pair.second for pair in pairs]
    for letter, head, sides in zip("AB", heads, both, strict=True):
        texts.append(shortened(f"{letter}  {head}{grid_of(sides)}", HEAD_CHARACTERS))
    for axes, text in zip(panels, [*texts, "label of the whole image"], strict=True):
        axes.set_title(text, loc="left", color=FAINT, size=9.5, pad=7)


def grid_of(sides: Sequence[Classified]) -> str:
    """`, 10 × 10` where all maps have one size; masks have their images'."""
    shapes = {side.cells.shape for side in sides}
    [(rows, columns), *others] = shapes
    return "" if others or max(rows, columns) > MOST_CELLS else f", {rows} × {columns}"


def listed_classes(pair: Pair) -> list[int]:
    """The best class of each side first, then those with the most on both together."""
    together = pair.first.masses + pair.second.masses
    best = [side.best for side in (pair.first, pair.second) if side.best != NOTHING]
    order = dict.fromkeys([*best, *np.argsort(-together, kind="stable")[: len(COLOURS)].tolist()])
    return sorted(list(order)[: len(COLOURS)], key=lambda index: -together[index])


def coloured(side: Classified, colours: Mapping[int, str]) -> Float32[np.ndarray, "rows columns 4"]:
    """RGBA in 0..1 per cell; transparent where its class is not listed."""
    rgba = np.zeros((*side.cells.shape, 4), np.float32)
    for index, colour in colours.items():
        cells = side.cells == index
        rgba[cells, :3] = to_rgb(colour)
        rgba[cells, 3] = 0.12 + 0.78 * side.strength[cells]
    return rgba


def draw_list(axes: Axes, pair: Pair, names: Sequence[str], colours: Mapping[int, str]) -> None:
    """Title and old label, the class of the whole image on both sides, then two bars per listed class."""
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_axis_off()
    write(axes, 0.0, 0.05, shortened(pair.title, 40), color=FAINT, size=9)
    agreeing = "" if pair.cells is None else f"{pair.cells} of the {'pixels' if is_mask(pair) else 'cells'} agree"
    write(axes, 0.99, 0.05, agreeing, color=FAINT, size=9, ha="right")
    write(axes, 0.0, 0.15, "old", color=FAINT, size=9)
    write(axes, 0.06, 0.15, shortened(pair.old_label or "none", 40), size=11)
    for letter, y, side in (("A", 0.25, pair.first), ("B", 0.35, pair.second)):
        colour = INK if is_mask(pair) else colours.get(side.best, OTHER)
        write(axes, 0.0, y, letter, color=FAINT, size=9)
        name = "nothing" if side.best == NOTHING else names[side.best]
        write(axes, 0.06, y, shortened(name, 40), size=11.5, weight="bold", color=colour)
        write(axes, 0.99, y, percent(float(side.masses.max())), size=11.5, ha="right")
    axes.plot((0.0, 0.99), (0.425, 0.425), color=RULE, linewidth=1)
    scale = max(float(side.masses.max()) for side in (pair.first, pair.second)) or 1.0
    columns = OF_MASKS if is_mask(pair) else OF_MAPS
    for letter, x in zip("AB", columns.shares, strict=True):
        write(axes, x, 0.475, letter, color=FAINT, size=8, ha="right")
    for x in columns.confidences or ():
        write(axes, x, 0.475, "conf.", color=FAINT, size=8, ha="right")
    for number, (index, colour) in enumerate(colours.items()):
        y = 0.56 + 0.1 * number
        draw_class(axes, pair, index, names[index], colour, y, scale)
        if columns is OF_MASKS:
            mask_rows.draw_swatch(axes, y, colour, str(number + 1))


def draw_class(axes: Axes, pair: Pair, index: int, name: str, colour: str, y: float, scale: float) -> None:
    """Name, one bar per side (A above B, B paler) and both masses, on the line `y`; `scale` has the longest bar."""
    sides, columns = (pair.first, pair.second), OF_MASKS if is_mask(pair) else OF_MAPS
    write(axes, columns.name, y, shortened(name, columns.name_characters), color=INK, size=9.5)
    for side, top, alpha, x in zip(sides, (y - 0.032, y + 0.004), (1.0, 0.5), columns.shares, strict=True):
        mass = float(side.masses[index])
        length = columns.bar_width * mass / scale
        axes.add_patch(Rectangle((columns.bar, top), length, 0.028, facecolor=colour, alpha=alpha))
        write(axes, x, y, percent(mass), size=9.5, ha="right")
    for side, x in zip(sides, columns.confidences or (), strict=False):
        if side.masses[index]:
            write(axes, x, y, percent(side.confidence_in(index)), color=FAINT, size=9.5, ha="right")
