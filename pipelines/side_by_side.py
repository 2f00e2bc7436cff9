"""Side by side: one picture of two labels of the same samples: the photo, what each says of it, and the old label.

In one row a class has one colour on both sides, so that two maps of one colour agree.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from relabel.errors import UsageError

from .agreement import CellAgreement
from .preview import COLOURS, DPI, FAINT, INK, RULE, STYLE, backdrop, draw_image, percent, shortened, write
from .readings import NOTHING, Classified

ROW_INCHES, WIDTH_INCHES = 2.7, 14.0
HEADER, FOOTER = 0.78, 0.42
BAR, BARS_FROM = 0.26, 0.44
HEAD_CHARACTERS = 38
MOST_CELLS = 64
"""Of a side: what has more is told in pixels, and not in a head."""
OTHER = "#9aa0a8"
"""Of a class that is not listed."""


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
        for row, pair in enumerate(pairs):
            panels = [figure.add_subplot(grid[row, column]) for column in range(4)]
            draw_pair(panels, pair, names)
            if row == 0:
                draw_heads(panels, pairs, heads)
        figure.text(0.014, 1 - 0.3 / height, summary, size=12.5)
        figure.text(
            0.014, 0.16 / height,
            "Each cell has the colour of its most probable class, the stronger the more probable; in one row a class "
            "has one colour in both maps. Grey: unsure, or a class not listed.",
            color=FAINT, size=8.5,
        )  # fmt: skip
        figure.savefig(out, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def draw_pair(panels: Sequence[Axes], pair: Pair, names: Sequence[str]) -> None:
    listed = listed_classes(pair)
    draw_image(panels[0], pair.image)
    for panel, side in zip(panels[1:3], (pair.first, pair.second), strict=True):
        draw_image(panel, backdrop(pair.image))
        height, width = pair.image.shape[:2]
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        panel.imshow(coloured(side, listed), extent=extent, interpolation="nearest")
    draw_list(panels[3], pair, names, listed)


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


def coloured(side: Classified, listed: Sequence[int]) -> Float32[np.ndarray, "rows columns 4"]:
    """RGBA in 0..1 per cell; transparent where its class is not listed."""
    rgba = np.zeros((*side.cells.shape, 4), np.float32)
    for index, colour in zip(listed, COLOURS, strict=False):
        cells = side.cells == index
        rgba[cells, :3] = to_rgb(colour)
        rgba[cells, 3] = 0.12 + 0.78 * side.strength[cells]
    return rgba


def draw_list(axes: Axes, pair: Pair, names: Sequence[str], listed: Sequence[int]) -> None:
    """Title and old label, the class of the whole image on both sides, then two bars per listed class."""
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_axis_off()
    write(axes, 0.0, 0.05, shortened(pair.title, 40), color=FAINT, size=9)
    agreeing = "" if pair.cells is None else f"{pair.cells} of the cells agree"
    write(axes, 0.99, 0.05, agreeing, color=FAINT, size=9, ha="right")
    write(axes, 0.0, 0.15, "old", color=FAINT, size=9)
    write(axes, 0.06, 0.15, shortened(pair.old_label or "none", 40), size=11)
    for letter, y, side in (("A", 0.25, pair.first), ("B", 0.35, pair.second)):
        colour = dict(zip(listed, COLOURS, strict=False)).get(side.best, OTHER)
        write(axes, 0.0, y, letter, color=FAINT, size=9)
        name = "nothing" if side.best == NOTHING else names[side.best]
        write(axes, 0.06, y, shortened(name, 40), size=11.5, weight="bold", color=colour)
        write(axes, 0.99, y, percent(float(side.masses.max())), size=11.5, ha="right")
    axes.plot((0.0, 0.99), (0.425, 0.425), color=RULE, linewidth=1)
    scale = max(float(side.masses.max()) for side in (pair.first, pair.second)) or 1.0
    for letter, x in (("A", 0.86), ("B", 0.99)):
        write(axes, x, 0.475, letter, color=FAINT, size=8, ha="right")
    for number, index in enumerate(listed):
        draw_class(axes, pair, index, names[index], COLOURS[number], 0.56 + 0.1 * number, scale)


def draw_class(axes: Axes, pair: Pair, index: int, name: str, colour: str, y: float, scale: float) -> None:
    """Name, one bar per side (A above B, B paler) and both masses, on the line `y`; `scale` has the longest bar."""
    first, second = float(pair.first.masses[index]), float(pair.second.masses[index])
    write(axes, 0.0, y, shortened(name, 30), color=INK, size=9.5)
    for mass, top, alpha in ((first, y - 0.032, 1.0), (second, y + 0.004, 0.5)):
        axes.add_patch(Rectangle((BARS_FROM, top), BAR * mass / scale, 0.028, facecolor=colour, alpha=alpha))
    write(axes, 0.86, y, percent(first), size=9.5, ha="right")
    write(axes, 0.99, y, percent(second), size=9.5, ha="right")
