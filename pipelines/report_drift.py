"""Report drift: how labels are spread, now and before: classes, numbers, flags; and how many samples keep theirs."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup

from relabel.labels.distribution import Distribution
from relabel.releases.profile import Profile, distance

from .gate_drift import class_name
from .report_charts import chart, draw_classes, draw_spread
from .report_samples import Part
from .summary_lines import rate
from .wording import percent, short_name

MOST_CLASSES = 12
MOST_CHARTS = 12
MOST_MOVES = 12


@dataclasses.dataclass(frozen=True)
class Drift:
    """How one label is spread, now and before."""

    label: str
    kind: str
    distance: float | None
    """Jensen-Shannon, of the classes; None where they cannot be compared."""
    classes: Markup | None
    agreement: str
    moves: Sequence[tuple[str, str, int]]
    notes: Sequence[str]
    spreads: Sequence[tuple[str, str, Markup]]
    """Name, medians, chart."""
    constant: Sequence[tuple[str, str]]
    """Numbers that are the same in all samples."""
    flags: Sequence[tuple[str, str, str]]
    """Flag, share now, share before."""


def drift(part: Part, label: str) -> Drift:
    contract, names = part.release.labels[label], part.release.version.labels[label].class_names
    now, before = part.profiles(label)
    how, found = part.comparison(label), part.changes(label)
    same_classes = (
        before is not None and part.before is not None and part.before.labels[label].classes == contract.classes
    )
    old = before if same_classes else None
    far = distance(now.classes, old.classes) if old is not None and now.classes and old.classes else None
    agreement = ""
    if how is not None and found is not None and found.compared:
        what = {"texts": "text", "values": "value"}.get(how.kind, "class")
        agreement = (
            f"{rate(found.compared - found.changed, found.compared)} of {found.compared:,} samples keep their {what}"
        )
        if found.cells:
            agreement += f", {rate(found.cells - found.cells_changed, found.cells)} of the {how.kind}"
    moves = found.transitions.most_common(MOST_MOVES) if found else []
    numbers = list(numbers_of(part, now, before))
    return Drift(
        label, contract.kind, far, class_chart(label, names, now, old), agreement,
        [(short_name(one), short_name(other), number) for (one, other), number in moves],
        [*(how.notes if how else ()), *([] if before is None or same_classes else ["another class map than before"])],
        [(each.name, each.told, each.drawn(label)) for each in numbers if each.constant is None],
        [(each.name, each.constant) for each in numbers if each.constant is not None],
        flags(part, now, before),
    )  # fmt: skip


def flags(part: Part, now: Profile, before: Profile | None) -> list[tuple[str, str, str]]:
    """Those of which the release has no summary, most frequent first."""
    told = part.release.summary.flags if part.release.summary else {}
    return [
        (flag, rate(number, now.samples), rate(before.flags.get(flag, 0), before.samples) if before else "")
        for flag, number in sorted(now.flags.items(), key=lambda each: (-each[1], each[0]))
        if flag.partition(": ")[0] not in told
    ]


def class_chart(label: str, names: Sequence[str], now: Profile, before: Profile | None) -> Markup | None:
    """The classes that moved most and those that are most frequent, by their share now."""
    if not now.classes:
        return None
    shares = {index: each / max(1, now.samples) for index, each in now.classes.items()}
    old = {index: each / max(1, before.samples) for index, each in before.classes.items()} if before else {}
    ids = shares.keys() | old.keys()
    frequent = sorted(ids, key=lambda index: (-shares.get(index, 0.0), index))
    moved = sorted(ids, key=lambda index: (-abs(shares.get(index, 0.0) - old.get(index, 0.0)), index)) if before else []
    listed = dict.fromkeys([*moved[: MOST_CLASSES // 2], *frequent])
    shown = sorted([*listed][:MOST_CLASSES], key=lambda index: (-shares.get(index, 0.0), index))
    values = np.array([shares.get(index, 0.0) for index in shown])
    others = np.array([old.get(index, 0.0) for index in shown]) if before else None
    texts = [short_name(class_name(names, index)) for index in shown]
    told = ", ".join(f"{name} {percent(share)}" for name, share in zip(texts, values, strict=True))
    draw = functools.partial(draw_classes, names=texts, now=values, before=others)
    return chart(f"classes of {label}", 0.5 + 0.26 * len(shown), draw, f"Shares of classes: {told}")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """How one number of a label is spread."""

    name: str
    now: Distribution
    before: Distribution | None

    @property
    def constant(self) -> str | None:
        """What it is in all samples, now and before; None where it differs."""
        ends = {(each.smallest, each.largest) for each in (self.now, self.before) if each is not None}
        return f"{self.now.smallest:g}" if ends == {(self.now.smallest,) * 2} else None

    @property
    def told(self) -> str:
        was = "" if self.before is None else f" (was {self.before.quantile(0.5):.3g})"
        return f"median {self.now.quantile(0.5):.3g}{was} of {self.now.count:,}"

    def drawn(self, label: str) -> Markup:
        draw = functools.partial(draw_spread, now=self.now, before=self.before)
        return chart(f"{label} {self.name}", 1.35, draw, f"{self.name}: {self.told}")


def numbers_of(part: Part, now: Profile, before: Profile | None) -> Iterator[Numbers]:
    """Over all rows where the release has a summary of a number, else of what was looked at."""
    whole, old = part.release.summary, part.before.summary if part.before else None
    for name, found in sorted(now.numbers.items())[:MOST_CHARTS]:
        if whole is not None and name in whole.numbers:
            yield Numbers(name, whole.numbers[name], old.numbers.get(name) if old else None)
        else:
            yield Numbers(name, found, before.numbers.get(name) if before else None)
