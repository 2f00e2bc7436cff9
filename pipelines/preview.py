"""Preview: one picture of a release, a row per sample: the photo, its label over it, and what the label says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from relabel.errors import UsageError
from relabel.labels.contract import LabelContract

from . import caption_rows, map_rows, mask_rows
from .drawing import DPI, FAINT, PNG, STYLE, PreviewSample

ROW_INCHES, WIDTH_INCHES = 2.55, 11.0


class Kind(NamedTuple):
    """How labels of one kind are drawn."""

    draw_rows: Callable[[Sequence[Sequence[Axes]], Sequence[PreviewSample]], None]
    """Three panels per sample."""
    note: str
    """Below the picture: how to read it."""


KINDS: Mapping[str, Kind] = {
    "caption": Kind(caption_rows.draw_rows, caption_rows.NOTE),
    "label_map": Kind(map_rows.draw_rows, map_rows.NOTE),
    "mask": Kind(mask_rows.draw_rows, mask_rows.NOTE),
}
"""By the contract's kind."""


def drawable(contracts: Mapping[str, LabelContract]) -> str | None:
    """The first label of a kind that can be drawn."""
    return next((name for name, contract in contracts.items() if can_be_drawn(contract)), None)


def can_be_drawn(contract: LabelContract) -> bool:
    """Plain text without styles is not: nothing is known of its columns."""
    return contract.kind in KINDS and (contract.kind != "caption" or contract.styles is not None)


def render(samples: Sequence[PreviewSample], out: Path, kind: str = "label_map") -> None:
    """Write a PNG of 1650 pixels' width; the same samples give the same picture."""
    if not samples:
        raise UsageError("a preview needs at least one labelled sample, got none; name other shards or keys.")
    with mpl.rc_context(STYLE):
        header, footer = 0.42, 0.42
        height = len(samples) * ROW_INCHES + header + footer
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            len(samples), 3, width_ratios=(1, 1, 1.95), wspace=0.07, hspace=0.09,
            left=0.018, right=0.985, top=1 - header / height, bottom=footer / height,
        )  # fmt: skip
        rows = [[figure.add_subplot(grid[row, column]) for column in range(3)] for row in range(len(samples))]
        KINDS[kind].draw_rows(rows, samples)
        figure.text(0.018, 0.16 / height, KINDS[kind].note, color=FAINT, size=8.5)
        figure.savefig(out, **PNG)
