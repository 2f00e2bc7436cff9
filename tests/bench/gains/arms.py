"""Arms: what training gains by one kind of labels over another: scores over seeds, their spread, and who is better.

An experiment brings rows (arm, seed, score) and the claims that it makes. A claim holds where the lower end of the
better arm, its mean less its standard error, lies above the upper end of the worse one; else the result says so.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from measure import report

Verdict = Literal["holds", "overlap", "reversed"]
PHONE = 4.2
"""Inches: the width of the picture, so that its text is as large on a phone as that of the page."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One training."""

    arm: str
    """`PANEL: NAME`, or a name alone; the picture has the arms of a panel under one heading."""
    seed: int
    score: float
    """On clean samples that were never trained on: a share in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one arm scores more than another."""

    better: str
    worse: str

    @property
    def against(self) -> str:
        """The worse arm, without the panel where both are of one."""
        panel, _, name = self.worse.rpartition(": ")
        return name if panel and self.better.startswith(f"{panel}: ") else self.worse


@dataclasses.dataclass(frozen=True)
class Spread:
    """The scores of one arm."""

    mean: float
    error: float
    """The standard error of the mean over seeds; what the choice of the test samples adds is not in it."""
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def spreads(rows: Sequence[Row]) -> dict[str, Spread]:
    """Of every arm, in order of appearance; raises ValueError where an arm has no two seeds, or one of them twice."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        of_arm = scores.setdefault(row.arm, {})
        if row.seed in of_arm or not 0 <= row.score <= 1:
            raise ValueError(f"expected one score in [0, 1] a seed of {row.arm!r}, got {row.score} for {row.seed}")
        of_arm[row.seed] = row.score
    if few := next((arm for arm, of_arm in scores.items() if len(of_arm) < 2), None):
        raise ValueError(f"the arm {few!r} has one seed, expected at least two: one has no standard error")
    return {
        arm: Spread(statistics.fmean(each.values()), statistics.stdev(each.values()) / math.sqrt(len(each)), len(each))
        for arm, each in scores.items()
    }


def verdict(better: Spread, worse: Spread) -> Verdict:
    """Whether mean ± standard error of the one lies wholly above that of the other."""
    if better.mean - better.error > worse.mean + worse.error:
        return "holds"
    return "reversed" if worse.mean - worse.error > better.mean + better.error else "overlap"


def conclude(
    title: str, rows: Sequence[Row], claims: Sequence[Claim], folder: Path, notes: Mapping[str, str],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """The table on standard output, by `measure.report`; `gains.json` and `gains.png` in `folder`.

    `notes`: arm -> what else the table says of it; `about`: what else was measured or chosen, into the JSON.
    """
    found = spreads(rows)
    for arm, spread in found.items():
        report(arm, spread.mean, f"± {spread.error:.4f} of {spread.seeds} seeds", ratio=notes.get(arm, ""))
    for claim in claims:
        better, worse = found[claim.better], found[claim.worse]
        said, gain = verdict(better, worse), better.mean - worse.mean
        report(f"{claim.better}, over {claim.against}", gain, "", str(worse), f"{better}: {said}",
               "mean ± standard error apart", said == "holds")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "title": title,
        "about": dict(about),
        "rows": [dataclasses.asdict(row) for row in rows],
        "arms": {arm: {**dataclasses.asdict(spread), "note": notes.get(arm, "")} for arm, spread in found.items()},
        "claims": [
            {**dataclasses.asdict(claim), "verdict": verdict(found[claim.better], found[claim.worse])}
            for claim in claims
        ],
    }
    (folder / "gains.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(title, rows, folder / "gains.png")


def draw(title: str, rows: Sequence[Row], path: Path) -> None:
    """Every arm on a line of its own: its seeds as dots, mean and standard error as a bar, both in words."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = spreads(rows)
    panels: dict[str, list[str]] = {}
    for arm in found:
        panels.setdefault(arm.rpartition(": ")[0], []).append(arm)
    lines = len(found) + sum(0.9 for panel in panels if panel)
    figure = Figure((PHONE, 0.75 + 0.42 * lines), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    at, last = 0.0, max(spread.mean for spread in found.values())
    for panel, arms in panels.items():
        if panel:
            axes.text(0, at, panel, transform=axes.get_yaxis_transform(), fontsize=9, fontweight="bold", va="center")
            at += 0.9
        for arm in arms:
            spread, name = found[arm], arm.rpartition(": ")[2]
            scores = [row.score for row in rows if row.arm == arm]
            colour = "tab:green" if spread.mean == last else "tab:blue"
            axes.plot(scores, [at] * len(scores), "o", color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
            axes.errorbar(spread.mean, at, xerr=spread.error, fmt="|", color=colour, capsize=3, markersize=9)
            words = f"{name}  {spread}"
            axes.text(0, at - 0.36, words, transform=axes.get_yaxis_transform(), fontsize=8, va="center")
            at += 1
    axes.set_ylim(at - 0.5, -0.8)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_title(title, fontsize=9, loc="left")
    figure.savefig(path)
