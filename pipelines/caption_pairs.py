"""Caption pairs: one picture of two captions of the same samples: the photo, what each says, and the old caption."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from relabel.errors import UsageError
from relabel.labels.caption import Caption

from .caption_rows import NOTE, draw_caption
from .drawing import DPI, FAINT, PNG, STYLE, draw_image
from .wording import shortened

ROW_INCHES, WIDTH_INCHES = 2.7, 14.0
HEADER, FOOTER = 0.78, 0.42
CHARACTERS = 72
"""Of a line of either text."""
HEAD_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class CaptionPair:
    """One row of the picture."""

    image: UInt8[np.ndarray, "height width 3"]
    title: str
    old: str | None
    first: Caption
    second: Caption


def render(pairs: Sequence[CaptionPair], heads: tuple[str, str], summary: str, out: Path) -> None:
    """Write a PNG of 2100 pixels' width, `summary` above; the same pairs give the same picture."""
    if not pairs:
        raise UsageError("a comparison needs at least one sample that both recipes labelled, got none.")
    with mpl.rc_context(STYLE):
        height = len(pairs) * ROW_INCHES + HEADER + FOOTER
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            len(pairs), 3, width_ratios=(1, 2.05, 2.05), wspace=0.04, hspace=0.09,
            left=0.014, right=0.988, top=1 - HEADER / height, bottom=FOOTER / height,
        )  # fmt: skip
        for row, pair in enumerate(pairs):
            photo, *texts = (figure.add_subplot(grid[row, column]) for column in range(3))
            draw_image(photo, pair.image)
            for panel, caption, letter, head in zip(texts, (pair.first, pair.second), "AB", heads, strict=True):
                draw_caption(panel, caption, pair.title, pair.old if caption.old is None else caption.old, CHARACTERS)
                if row == 0:
                    named = shortened(f"{letter}  {head}", HEAD_CHARACTERS)
                    panel.set_title(named, loc="left", color=FAINT, size=9.5, pad=7)
        figure.text(0.014, 1 - 0.3 / height, summary, size=12.5)
        figure.text(0.014, 0.16 / height, NOTE, color=FAINT, size=8.5)
        figure.savefig(out, **PNG)
