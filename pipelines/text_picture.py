"""Text picture: what labels of texts were worth, and which of them are doubted, on one page."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .drawing import COLOURS, DPI, FAINT, INK, PNG, RULE, STYLE, write
from .wording import shortened

WIDTH, HEIGHT = 11.0, 6.4
MOST = 9
"""Doubted labels that are shown."""
CHARACTERS = 92
GOOD, BAD = "#2e7d4f", COLOURS[0]


@dataclasses.dataclass(frozen=True)
class Audited:
    """What both releases say of the articles, row by row; classes are positions in `names`."""

    names: Sequence[str]
    keys: Sequence[str]
    truth: Int64[np.ndarray, " rows"]
    """What people said."""
    raw: Int64[np.ndarray, " rows"]
    centred: Int64[np.ndarray, " rows"]
    guess: Int64[np.ndarray, " rows"]
    """Of models that did not see the row."""
    flagged: Sequence[int]
    """Rows whose label is doubted, the most doubtful first."""

    def accuracy(self, said: Int64[np.ndarray, " rows"]) -> float:
        return float((said == self.truth).mean())

    def confusion(self, said: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, "true said"]:
        """How many rows of each true class were said to be of each."""
        counts = np.zeros((len(self.names), len(self.names)), np.int64)
        np.add.at(counts, (self.truth, said), 1)
        return counts

    @property
    def wrong_among_flagged(self) -> int:
        return int((self.centred[list(self.flagged)] != self.truth[list(self.flagged)]).sum())


def draw_audit(known: Audited, texts: Sequence[str], out: Path) -> None:
    """Two confusions, and the most doubtful labels with their texts (as `known.flagged` has them)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        sides = (("as the model said them", known.raw), ("its bias taken off", known.centred))
        for place, (title, said) in enumerate(sides):
            axes = figure.add_axes((0.13 + 0.47 * place, 0.55, 0.25, 0.34))
            draw_confusion(axes, known.confusion(said), known.names)
            axes.set_title(f"{title}: {known.accuracy(said):.1%} right", fontsize=11, color=INK, loc="left")
        page = figure.add_axes((0.03, 0.02, 0.94, 0.42))
        draw_doubts(page, known, texts)
        figure.savefig(out, **PNG)


def draw_confusion(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Rows: what people said; columns: the label."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(counts):
        if number:
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(number), ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(names)), [shortened(name, 10) for name in names], fontsize=8, rotation=20)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("label", fontsize=8, color=FAINT)
    axes.set_ylabel("people", fontsize=8, color=FAINT)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(RULE)


def draw_doubts(axes: Axes, known: Audited, texts: Sequence[str]) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(MOST + 1.2, -0.6)
    write(
        axes,
        0.0,
        -0.3,
        f"{len(known.flagged)} labels are doubted, {known.wrong_among_flagged} of them are wrong",
        fontsize=11,
        weight="bold",
    )
    for x, title in ((0.0, "label"), (0.12, "rather"), (0.24, "people"), (0.36, "text")):
        write(axes, x, 0.6, title, fontsize=8, color=FAINT)
    for line, (row, text) in enumerate(zip(known.flagged[:MOST], texts[:MOST], strict=True)):
        y = line + 1.5
        true = int(known.truth[row])
        write(
            axes,
            0.0,
            y,
            known.names[int(known.centred[row])],
            fontsize=9,
            color=GOOD if known.centred[row] == true else BAD,
        )
        write(
            axes,
            0.12,
            y,
            known.names[int(known.guess[row])],
            fontsize=9,
            color=GOOD if known.guess[row] == true else BAD,
        )
        write(axes, 0.24, y, known.names[true], fontsize=9)
        write(axes, 0.36, y, shortened(" ".join(text.split()), CHARACTERS), fontsize=8, color=FAINT)
