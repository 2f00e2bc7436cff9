"""Caption gallery: scenes with the caption that they had and the new ones, what each scores, and what was flagged."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from relabel.releases.release import Release
from relabel.shards.source import SourceConfig

from .caption_rows import ALERT, wrapped
from .drawing import DPI, FAINT, INK, PNG, RULE, STYLE, draw_image, write
from .gallery import chosen, find, shares
from .opening import open_source
from .photos import photo

COLUMNS = 2
WIDTH_INCHES, CARD_INCHES = 11.0, 1.85
HEADER, FOOTER = 0.95, 0.4
GOOD = "#2e7d4f"
CHARACTERS = 32
"""Of a line beside one image."""
LINES = 10.0
"""Of a card, in its height."""
NOTE = "F1: words that a caption shares with what a person said, without articles; the store holds it for every image."


@dataclasses.dataclass(frozen=True)
class Judged:
    """A text and its F1 against the true caption; None where nobody measured it."""

    text: str
    f1: float | None
    flags: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Card:
    """One image."""

    image: UInt8[np.ndarray, "height width 3"]
    old: Judged
    new: Mapping[str, Judged]
    """By style."""


def cards(release: Release, count: int, label: str = "caption") -> Iterator[Card]:
    """About `count` captioned samples, spread evenly over the shards and chosen by the digests of their images."""
    config = SourceConfig.model_validate(release.recipe["source"])
    shards = {shard.name: shard for shard in open_source(config).shards()}
    names = [name for name in release.shards if name in shards and release.entry(name).ok]
    for name, share in shares(names, count):
        for sample in find(config, shards[name], chosen(release, name, share)):
            labels = release.get(name, sample.key)
            caption = labels[label]
            new = {style: Judged(text.text, score(labels, style), text.flags) for style, text in caption.texts.items()}
            yield Card(photo(config, sample), Judged(caption.old or "", score(labels, "old")), new)


def score(labels: Mapping[str, Any], name: str) -> float | None:
    """The first F1 of that style (or of the old caption) which a `caption_match` wrote."""
    columns = ((found, f"{label}_{name}_f1") for label, found in sorted(labels.items()) if isinstance(found, dict))
    return next((found[column] for found, column in columns if column in found), None)


def draw_gallery(found: Sequence[Card], title: str, told: str, out: Path) -> None:
    """A PNG of 1650 pixels' width; the same cards give the same picture."""
    with mpl.rc_context(STYLE):
        rows = -(-len(found) // COLUMNS)
        height = rows * CARD_INCHES + HEADER + FOOTER
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            rows, 2 * COLUMNS, width_ratios=(1, 1.95) * COLUMNS, wspace=0.06, hspace=0.1,
            left=0.018, right=0.99, top=1 - HEADER / height, bottom=FOOTER / height,
        )  # fmt: skip
        for number, card in enumerate(found):
            row, column = divmod(number, COLUMNS)
            draw_image(figure.add_subplot(grid[row, 2 * column]), card.image)
            draw_card(figure.add_subplot(grid[row, 2 * column + 1]), card)
        figure.text(0.018, 1 - 0.34 / height, title, size=14, weight="bold", color=INK, va="center")
        figure.text(0.018, 1 - 0.64 / height, told, size=10, color=INK, va="center")
        figure.text(0.018, 0.16 / height, NOTE, size=8.5, color=FAINT, va="center")
        figure.savefig(out, **PNG)


def draw_card(axes: Axes, card: Card) -> None:
    """The old caption, a rule, and every new one, each with its score."""
    axes.set(xlim=(0, 1), ylim=(LINES, 0))
    axes.set_axis_off()
    y = draw_text(axes, "old", card.old, 0.6, old=True)
    axes.plot((0.0, 0.97), (y, y), color=RULE, linewidth=1)
    for style, judged in card.new.items():
        y = draw_text(axes, style, judged, y + 0.95)


def draw_text(axes: Axes, name: str, judged: Judged, y: float, old: bool = False) -> float:
    """One text from the line `y` on: returns where the next may begin."""
    write(axes, 0.0, y, name, color=FAINT, size=9)
    if judged.f1 is not None and judged.f1 >= 0:
        colour = GOOD if judged.f1 >= 0.9 else INK if judged.f1 >= 0.5 else ALERT
        write(axes, 0.97, y, f"F1 {judged.f1:.2f}", color=colour, size=9, ha="right")
    lines = wrapped(judged.text, CHARACTERS, 2) if judged.text else ["no caption"]
    for line in lines:
        write(axes, 0.13, y, line, size=10, color=INK if judged.text else FAINT, style="italic" if old else "normal")
        y += 1.05
    if judged.flags:
        write(axes, 0.13, y, ", ".join(judged.flags), size=8.5, color=ALERT)
        y += 1.0
    return y
