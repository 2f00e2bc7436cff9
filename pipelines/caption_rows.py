"""Rows of captions: the photo, what was said of it before, and what is said of it now, style by style.

Text is wrapped and, where it does not fit, cut with an ellipsis; what the font cannot draw stands as a box.
"""

import functools
import textwrap
from collections.abc import Sequence

from matplotlib import font_manager
from matplotlib.axes import Axes

from relabel.labels.caption import Caption, Text

from .drawing import FAINT, INK, RULE, PreviewSample, draw_image, write
from .wording import shortened

NOTE = (
    "Below each text: its tokens, how it ended, its mean log-probability, how often the engine was asked; in red its "
    "flags."
)
ALERT = "#c0392b"
LINES = 15.2
"""Of a panel, in its height."""
CHARACTERS = 100
"""Of a line beside one photo."""
OLD_LINES = 2
UNDRAWN = "□"


def draw_rows(rows: Sequence[Sequence[Axes]], samples: Sequence[PreviewSample]) -> None:
    """One row per sample: the photo, and text over the other two panels."""
    for panels, sample in zip(rows, samples, strict=True):
        photo, middle, panel = panels
        draw_image(photo, sample.image)
        middle.set_axis_off()
        left, right = middle.get_position(), panel.get_position()
        panel.set_position((left.x0, right.y0, right.x1 - left.x0, right.height))
        draw_caption(panel, caption_of(sample), sample.title, sample.old_label)
    for axes, text in zip(rows[0], ("photo", "captions"), strict=False):
        axes.set_title(text, loc="left", color=FAINT, size=9.5, pad=7)


def caption_of(sample: PreviewSample) -> Caption:
    assert isinstance(sample.label, Caption)
    return sample.label


def draw_caption(axes: Axes, caption: Caption, title: str, old: str | None, width: int = CHARACTERS) -> None:
    """Title, old caption, a rule, then every style's text with what is known of it."""
    axes.set(xlim=(0, 1), ylim=(LINES, 0))
    axes.set_axis_off()
    write(axes, 0.0, 0.6, shortened(drawn(title), width), color=FAINT, size=9)
    y, indent = 1.9, 7 / width
    write(axes, 0.0, y, "old", color=FAINT, size=9)
    said = wrapped(old, width - 8, OLD_LINES) if old and old.strip() else ["none"]
    for line in said:
        write(axes, indent, y, line, color=INK if old else FAINT, size=10)
        y += 1.0
    y -= 0.3
    axes.plot((0.0, 0.99), (y, y), color=RULE, linewidth=1)
    room = int((LINES - y) / len(caption.texts) - 2.0)
    for style, text in caption.texts.items():
        y = draw_text(axes, style, text, y + 1.0, max(1, room), width)


def draw_text(axes: Axes, style: str, text: Text, y: float, lines: int, width: int) -> float:
    """One style from the line `y` on; returns the line below it."""
    indent = max(7, len(style) + 2) / width
    write(axes, 0.0, y, style, color=FAINT, size=9)
    for line in wrapped(text.text, round(width * (1 - indent)) - 1, lines):
        write(axes, indent, y, line, size=10.5)
        y += 1.0
    known = told(text)
    write(axes, indent, y, known, color=FAINT, size=8)
    if text.flags:
        write(axes, indent + (len(known) + 2) * 0.74 / width, y, ", ".join(text.flags), color=ALERT, size=8)
    return y + 0.55


def told(text: Text) -> str:
    """`23 tokens · stop · log-prob -0.41 · 2 attempts`."""
    parts = [f"{text.num_tokens} tokens", text.finish_reason]
    if text.mean_logprob is not None:
        parts.append(f"log-prob {text.mean_logprob:.2f}")
    parts.append(f"{text.attempts} attempt{'s' if text.attempts > 1 else ''}")
    if text.names_lost:
        parts.append(f"lost: {shortened(drawn(', '.join(text.names_lost)), 40)}")
    return " · ".join(parts)


def wrapped(text: str, width: int, lines: int) -> list[str]:
    """At most so many lines of at most so many characters; boxes and East Asian characters are twice as wide."""
    known = drawn(" ".join(text.split()))
    wide = sum(ord(character) > 0x2E80 or character == UNDRAWN for character in known)
    limit = width if 2 * wide < len(known) else width // 2
    found = textwrap.wrap(known, limit, max_lines=lines, placeholder=" …", break_on_hyphens=False)
    return found or [""]


def drawn(text: str) -> str:
    """The text with a box for what the font has not."""
    known = glyphs()
    return "".join(character if ord(character) in known or character == " " else UNDRAWN for character in text)


@functools.cache
def glyphs() -> frozenset[int]:
    """The characters of the pictures' font, by code point."""
    path = font_manager.findfont("DejaVu Sans", fallback_to_default=True)
    return frozenset(font_manager.get_font(path).get_charmap())
