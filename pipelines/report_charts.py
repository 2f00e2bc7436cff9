"""Report charts: plots as SVG that stands in a page and takes its colours from the page, light or dark."""

import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from relabel.labels.distribution import Distribution, edges

from .drawing import STYLE
from .wording import shortened

WIDTH = 4.4
"""Inches, of 72 points: about a phone's."""
BINS = 32
NAME_CHARACTERS = 24
NOW, BEFORE, INK, FAINT, RULE, TINT = "#0b5fa5", "#a3a9b2", "#1d2129", "#6b717b", "#d9dce1", "#e7f0f8"
VARIABLES = {
    NOW: "now", BEFORE: "before", INK: "ink", FAINT: "faint", RULE: "rule", TINT: "tint",
}  # fmt: skip
"""Colours of a chart -> the page's CSS variables."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a run, in seconds since its begin."""

    name: str
    begin: float
    end: float


def chart(name: str, height: float, draw: Callable[[Axes], None], described: str) -> Markup:
    """An SVG element; `described` is what who cannot see it is told. The same data give the same bytes."""
    style = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "axes.linewidth": 0.6}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(RULE)
        axes.tick_params(length=0, labelsize=9, labelcolor=FAINT)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Markup(inline(out.getvalue(), described))  # noqa: S704  # made by matplotlib, which escapes what it writes


def inline(svg: str, described: str) -> str:
    """One element as wide as its place, with the page's colours and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"<g>\s*</g>|<g/>|<defs>\s*</defs>|<g id=\"[^\"]*\"/>", "", svg)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = rest.replace(f"font-family: '{STYLE['font.family']}'; ", "")
    for colour, variable in VARIABLES.items():
        rest = rest.replace(colour, f"var(--{variable})")
    return f'{head} role="img" aria-label="{Markup.escape(described)}">{rest}'


def draw_classes(
    axes: Axes,
    names: Sequence[str],
    now: Float64[np.ndarray, " classes"],
    before: Float64[np.ndarray, " classes"] | None,
) -> None:
    """Shares of classes in percent, now and before, one below the other."""
    places = np.arange(len(names))
    half = 0.38 if before is not None else 0.62
    axes.barh(places - (half / 2 if before is not None else 0), 100 * now, half, color=NOW)
    if before is not None:
        axes.barh(places + half / 2, 100 * before, half, color=BEFORE)
    axes.set_yticks(places, [shortened(name, NAME_CHARACTERS) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_spread(axes: Axes, now: Distribution, before: Distribution | None) -> None:
    """Shares of the samples by value, in equal steps between the 0.5 % and the 99.5 % quantile of both together."""
    sides = [now, *([before] if before is not None else [])]
    low = min(each.quantile(0.005) for each in sides)
    high = max(each.quantile(0.995) for each in sides)
    steps = steps_of(low, high, now.whole)
    if before is not None:
        axes.stairs(100 * shares_in(before, steps), steps, color=BEFORE, linewidth=1.6)
    axes.stairs(100 * shares_in(now, steps), steps, fill=True, color=NOW, alpha=0.35)
    axes.stairs(100 * shares_in(now, steps), steps, color=NOW, linewidth=1.6)
    axes.set_xlim(steps[0], steps[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=now.whole))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def steps_of(low: float, high: float, whole: bool) -> Float64[np.ndarray, " steps"]:
    """Whole numbers lie in the middle of theirs."""
    if whole:
        first, end = math.floor(low), math.floor(high) + 1
        width = max(1, math.ceil((end - first) / BINS))
        return np.arange(first, end + width, width).astype(np.float64) - 0.5
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def shares_in(found: Distribution, steps: Float64[np.ndarray, " steps"]) -> Float64[np.ndarray, " bars"]:
    """Which share of the numbers lies in each step, as if those of a bin were spread evenly."""
    shares = np.zeros(len(steps) - 1)
    for index, count in found.bins.items():
        low, high = (min(max(end, found.smallest), found.largest) for end in edges(index))
        if found.whole:
            numbers = np.arange(math.ceil(low), max(math.ceil(low) + 1, math.ceil(high)))
            shares += count * np.histogram(numbers, steps)[0] / len(numbers)
        elif high <= low:
            shares += count * np.histogram([low], steps)[0]
        else:
            overlap = np.minimum(steps[1:], high) - np.maximum(steps[:-1], low)
            shares += count * np.maximum(overlap, 0) / (high - low)
    return shares / found.count


def draw_progress(axes: Axes, seconds: Sequence[float], samples: Sequence[int], phases: Sequence[Phase]) -> None:
    """Samples finished over time; the steady state lies on a tint."""
    unit, name = time_unit(seconds[-1])
    for phase in phases:
        if phase.name == "steady state":
            axes.axvspan(phase.begin / unit, phase.end / unit, color=TINT, linewidth=0)
    axes.step(np.array(seconds) / unit, samples, where="post", color=NOW, linewidth=1.6)
    axes.set_xlim(0, seconds[-1] / unit)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{name} since the run began", color=FAINT, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_thousands(value)))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def time_unit(seconds: float) -> tuple[float, str]:
    for unit, name in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 3 * unit:
            return unit, name
    return 1.0, "seconds"


def in_thousands(value: float) -> str:
    """`1.2 M`, `350 k`."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
