"""Report cost: where the time of a run's slots went, what was its bottleneck, and what it cost, as a release says it.

Releases without such figures have no such section.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from relabel.digests import Json

from .mask_rows import PALETTE
from .report_charts import BEFORE, INK, RULE, chart
from .reports import duration
from .wording import percent

WORK: Sequence[str] = ("infer", "decode", "read", "encode", "write", "commit", "load", "plan", "drive", "retry")
"""Stages in which something is done, by the order of their colours; in others a slot waits, or is not there yet."""
COLOURS: Mapping[str, str] = dict(zip(WORK, PALETTE, strict=True))


@dataclasses.dataclass(frozen=True)
class Slots:
    """Of one kind: device, reader, writer, driver."""

    kind: str
    count: int
    held: float
    """Seconds, of all together."""
    stages: Mapping[str, float]
    """Seconds, the most first."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """The section."""

    bottleneck: str
    figures: Sequence[tuple[str, str]]
    slots: Sequence[Slots]
    chart: Markup | None
    key: Sequence[tuple[str, str]]
    """Colour and stage."""


def costs(usage: Json) -> Costs | None:
    """Of a version's `usage`; None where it says nothing."""
    if not isinstance(usage, Mapping):
        return None
    slots = [slots_of(kind, each) for kind, each in (usage.get("slots") or {}).items()]
    slots = [each for each in slots if each.held > 0]
    stages = dict.fromkeys(stage for each in slots for stage in each.stages)
    key = [(COLOURS[stage], stage) for stage in WORK if stage in stages]
    waits = [stage for stage in stages if stage not in COLOURS]
    drawn = None
    if slots:
        draw = functools.partial(draw_slots, slots=slots)
        drawn = chart("slots", 0.5 + 0.34 * len(slots), draw, told(slots))
    return Costs(
        str((usage.get("bottleneck") or {}).get("text", "")),
        figures(usage),
        slots,
        drawn,
        [*key, *([("var(--before)", ", ".join(waits))] if waits else [])],
    )


def slots_of(kind: str, fields: Mapping[str, Any]) -> Slots:
    seconds = {stage: float(each["wall"]) for stage, each in fields["stages"].items()}
    ordered = dict(sorted(seconds.items(), key=lambda each: (each[0] not in COLOURS, -each[1], each[0])))
    return Slots(kind, int(fields["slots"]), float(fields["held_seconds"]), ordered)


def figures(usage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Time, then money where prices are known."""
    cost = usage.get("cost") or {}
    found = []
    if usage.get("wall_seconds"):
        found.append(("Wall time", duration(usage["wall_seconds"])))
    for name, text in (("device_hours", "Device hours"), ("cpu_hours", "CPU hours")):
        if cost.get(name):
            found.append((text, f"{cost[name]:,.4g}"))
    if cost.get("device_hours_per_million"):
        found.append(("Device hours per million labels", f"{cost['device_hours_per_million']:,.4g}"))
    if cost.get("usd"):
        found.append(("Cost", f"{cost['usd']:,.2f} USD"))
        parts = ((cost.get(f"{name}_usd"), name) for name in ("devices", "cpus", "engines"))
        found.append(("of which", ", ".join(f"{name} {value:,.2f}" for value, name in parts if value)))
    if cost.get("usd_per_million"):
        found.append(("Cost per million labels", f"{cost['usd_per_million']:,.2f} USD"))
    return found


def draw_slots(axes: Axes, slots: Sequence[Slots]) -> None:
    """A bar per kind, whose parts are the shares of its stages; waiting is grey."""
    for place, each in enumerate(slots):
        left = 0.0
        for stage, seconds in each.stages.items():
            width = 100 * seconds / each.held
            axes.barh(place, width, 0.62, left=left, color=COLOURS.get(stage, BEFORE), edgecolor="none")
            left += width
    names = [f"{each.count} {each.kind}{'s' if each.count != 1 else ''}" for each in slots]
    axes.set_yticks(range(len(slots)), names, color=INK)
    axes.set_ylim(len(slots) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def told(slots: Sequence[Slots]) -> str:
    """For who cannot see the chart."""
    shares = (
        (each.kind, ", ".join(f"{stage} {percent(seconds / each.held)}" for stage, seconds in each.stages.items()))
        for each in slots
    )
    return "; ".join(f"{kind}: {stages}" for kind, stages in shares)
