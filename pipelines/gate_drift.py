"""Gate drift: what was labelled now against the last release: classes, scores, lengths, flags, wins.

What counts as far is measured on the last release: as far as its own shards lie from each other is usual.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

from relabel.errors import StoreCorrupt
from relabel.labels.contract import LabelContract
from relabel.labels.distribution import Distribution
from relabel.releases.profile import MISSING, Profile, added, chosen, distance, noise, profile
from relabel.releases.release import Release

from .gate_checks import Check, spread_of
from .gate_policy import Gate

MAX_GROUPS = 16
FEWEST = 50
"""Samples on either side, below which a median is told and not judged."""
USUAL = 1.5
"""So many times as far as the farthest shards of the last release is still usual."""


@dataclasses.dataclass(frozen=True)
class Both:
    """One label of the same kind in both releases: profiles of shards."""

    label: str
    fresh: Sequence[Profile]
    """Of shards that were labelled now."""
    before: Sequence[Profile]
    """Of shards of the last release."""
    declared: bool
    """Another teacher, on purpose."""

    def usual(self, far: Callable[[Profile, Profile], float]) -> float:
        """How far groups of the last release's shards, as many as were labelled now, lie from its others at most."""
        size = min(len(self.fresh), max(1, len(self.before) // 2))
        starts = range(0, len(self.before) - size + 1, size)
        found = [0.0]
        for start in list(starts)[:MAX_GROUPS]:
            rest = [*self.before[:start], *self.before[start + size :]]
            if rest:
                found.append(far(added(self.before[start : start + size]), added(rest)))
        return max(found)


def fresh_shards(candidate: Release, parent: Release) -> list[str]:
    """Alive shards whose labels the last release does not have so."""
    before = parent.entries
    return [
        name
        for name, entry in candidate.entries.items()
        if entry.data is not None and (name not in before or before[name].outcome != entry.outcome)
    ]


def of_drift(candidate: Release, parent: Release, gate: Gate) -> Iterator[Check]:
    """For every label that both have; nothing where no shard was labelled."""
    fresh = chosen(fresh_shards(candidate, parent), gate.sample_shards)
    alive = [name for name, entry in parent.entries.items() if entry.data is not None]
    old = chosen(alive, gate.sample_shards)
    for name, label in candidate.version.labels.items():
        before = parent.version.labels.get(name)
        if before is None or before.contract.kind != label.contract.kind or not fresh or not old:
            continue
        both = Both(
            name, intact(candidate, label.contract, fresh), readable(parent, before.contract, old),
            before.fingerprint != label.fingerprint,
        )  # fmt: skip
        if label.contract.classes is not None:
            if label.contract.classes == before.contract.classes:
                yield classes(both, gate, label.class_names)
            else:
                yield Check(
                    "classes", name, True, "another class map: not compared with the last release's", judged=False
                )
        yield from numbers(both, gate)
        yield from flags(both, gate)
    yield from wins(candidate, parent, gate)


def profiles(release: Release, contract: LabelContract, shards: Sequence[str]) -> Iterator[Profile]:
    """Raises StoreCorrupt where one is damaged or gone."""
    names = ["status", *(column.name for column in contract.columns)]
    return (profile(contract, release.table(shard, names)) for shard in shards)


def intact(release: Release, contract: LabelContract, shards: Sequence[str]) -> list[Profile]:
    """Of a candidate, whose damaged label shards would be published."""
    try:
        return [*profiles(release, contract, shards)]
    except StoreCorrupt as error:
        raise StoreCorrupt(
            f"{error} It was labelled for this release, so nothing was published. Delete that file, and run again: its "
            "shard is labelled anew."
        ) from error


def readable(release: Release, contract: LabelContract, shards: Sequence[str]) -> list[Profile]:
    """Those of the last release; what of it is lost is labelled anew, and `verify` names it."""
    found: list[Profile] = []
    for shard in shards:
        with contextlib.suppress(StoreCorrupt):
            found += profiles(release, contract, [shard])
    return found


def classes(both: Both, gate: Gate, names: Sequence[str]) -> Check:
    now, before = added(both.fresh), added(both.before)
    value = distance(now.classes, before.classes)
    usual, chance = both.usual(lambda one, other: distance(one.classes, other.classes)), noise(now, before)
    limit = max(gate.classes, USUAL * usual) + chance
    moved = sorted(now.classes.keys() | before.classes.keys(), key=lambda index: -abs(change(now, before, index)))
    examples = [f"{class_name(names, index)}: {change(now, before, index):+.1%}" for index in moved[:5]]
    return Check(
        "classes", both.label, value <= limit,
        f"the classes of what was labelled now lie {value:.3f} from the last release's (Jensen-Shannon distance); at "
        f"most {limit:.3f} is usual for {now.samples} samples. Most moved: {', '.join(examples)}.",
        value, limit, examples,
    )  # fmt: skip


def change(now: Profile, before: Profile, index: int) -> float:
    return now.classes.get(index, 0.0) / max(1, now.samples) - before.classes.get(index, 0.0) / max(1, before.samples)


def class_name(names: Sequence[str], index: int) -> str:
    return "no class" if index < 0 else names[index] if index < len(names) else f"class {index}"


def numbers(both: Both, gate: Gate) -> Iterator[Check]:
    """Medians: of scores how far they fell, of lengths how far they moved, in interquartile ranges."""
    now, before = added(both.fresh), added(both.before)
    for name in sorted(now.numbers.keys() & before.numbers.keys()):
        lengths = name.endswith(": words")
        range_of = interquartile(before.numbers[name], lengths)
        far = functools.partial(moved_by, name, lengths, range_of)
        value, usual = far(now, before), both.usual(far)
        limit = max(gate.lengths if lengths else gate.scores, USUAL * usual) + 3 * chance_of_median(both)
        medians = [each.numbers[name].quantile(0.5) for each in (now, before)]
        yield Check(
            "lengths" if lengths else "scores", name, value <= limit,
            f"the median is {medians[0]:.4g}, {medians[1]:.4g} in the last release: "
            f"{abs(value):.2f} interquartile ranges {'away' if lengths else 'lower' if value > 0 else 'higher'}; "
            f"at most {limit:.2f} is usual.", value, limit,
            judged=not both.declared and min(now.samples, before.samples) >= FEWEST,
        )  # fmt: skip


def moved_by(name: str, both_ways: bool, unit: float, now: Profile, before: Profile) -> float:
    """How far a median lies below another one, in `unit`; 0 where one is missing."""
    if name not in now.numbers or name not in before.numbers:
        return 0.0
    fall = (before.numbers[name].quantile(0.5) - now.numbers[name].quantile(0.5)) / unit
    return abs(fall) if both_ways else fall


def interquartile(numbers: Distribution, whole: bool) -> float:
    """Never so small that nothing could move: a word, or a hundredth of the median."""
    found = numbers.quantile(0.75) - numbers.quantile(0.25)
    return max(found, 1.0 if whole else abs(numbers.quantile(0.5)) / 100, 1e-9)


def chance_of_median(both: Both) -> float:
    """The standard deviation of a median of so many samples, in interquartile ranges, of a normal distribution."""
    now, before = (sum(each.samples for each in side) for side in (both.fresh, both.before))
    return 0.93 * math.sqrt(1 / max(1, now) + 1 / max(1, before))


def flags(both: Both, gate: Gate) -> Iterator[Check]:
    """How many samples have each, and how many lack a number: of these, too, what differs among shards is usual."""
    now, before = added(both.fresh), added(both.before)
    for flag in sorted(now.flags):
        value, was, missing = now.share(flag), before.share(flag), flag.endswith(f": {MISSING}")
        apart = both.usual(functools.partial(share_apart, flag)) if missing else 0.0
        limit = was + max(gate.flags, USUAL * apart) + spread_of(was, now.samples)
        yield Check(
            "flags", flag, value <= limit,
            f"{value:.1%} of the samples that were labelled now have it, {was:.1%} in the last release; at most "
            f"{limit:.1%} may.", value, limit, judged=not (missing and both.declared),
        )  # fmt: skip


def share_apart(flag: str, one: Profile, other: Profile) -> float:
    return abs(one.share(flag) - other.share(flag))


def wins(candidate: Release, parent: Release, gate: Gate) -> Iterator[Check]:
    """How often the new of two scores is above the old one, in the whole release."""
    now, before = candidate.summary, parent.summary
    for names, contest in sorted(now.contests.items()) if now else ():
        old = before.contests.get(names) if before else None
        if old is None or not contest.rows or not old.rows:
            continue
        value, was = contest.larger / contest.rows, old.larger / old.rows
        limit = was - gate.wins - spread_of(was, contest.rows)
        yield Check(
            "wins", " > ".join(names), value >= limit,
            f"{value:.1%} of the samples, {was:.1%} in the last release; at least {limit:.1%} must.", value, limit,
        )  # fmt: skip
