"""Gate: the checks that can refuse to publish a release, and the verdict that is recorded in it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from relabel.digests import Json
from relabel.errors import StoreCorrupt
from relabel.releases.diff import diff
from relabel.releases.release import Release
from relabel.releases.versions import LabelIdentity, Version

from .gate_checks import NUM_EXAMPLES, Check, of_counts, spread_of
from .gate_drift import of_drift
from .gate_gold import of_gold
from .gate_policy import Gate, declared_now
from .plan import differences

MIN_COMPARED = 10


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a gate found."""

    checks: Sequence[Check]
    baseline: int | None
    """The release that the candidate was compared with; None: there was none."""
    gold: bool
    """Whether there was gold."""
    expect_change: str | None = None
    """Why labels were meant to mean something else; None where they do not."""
    forced: str | None = None
    """Why it is published although it was refused."""

    @property
    def refused(self) -> list[Check]:
        return [check for check in self.checks if check.refuses]

    def to_json(self) -> dict[str, Json]:
        return {
            "verdict": "passed" if not self.refused else "refused" if self.forced is None else "forced",
            "baseline": self.baseline,
            "gold": self.gold,
            "expect_change": self.expect_change,
            "forced": self.forced,
            "checks": [check.to_json() for check in self.checks],
        }

    def __str__(self) -> str:
        against = f"against release {self.baseline}" if self.baseline else "the first release: there is no baseline"
        head = f"gate: {len(self.checks) - len(self.refused)} of {len(self.checks)} checks passed, {against}"
        return "\n".join([head + ("" if self.gold else ", no gold"), *map(str, self.checks)])


def judge(candidate: Release, parent: Release | None, gate: Gate, twice: Sequence[Check] = ()) -> Verdict:
    """Everything is looked at, also after the first refusal: one message names all that is wrong.

    `twice`: what the run found of samples that it labelled twice.
    """
    checks = [*of_counts(candidate, parent, gate), *twice]
    if parent is not None:
        checks += [*meaning(candidate.version.labels, parent.version, gate), *of_drift(candidate, parent, gate)]
        checks += [*of_changes(candidate, parent, gate)]
    checks += [*of_gold(candidate, parent, gate)]
    meant = any(check.name == "meaning" or (check.name == "replay" and not check.judged) for check in checks)
    declared = gate.expect_change if meant else None
    return Verdict(checks, parent.number if parent else None, gate.gold is not None, declared)


def meaning(now: Mapping[str, LabelIdentity], parent: Version, gate: Gate) -> Iterator[Check]:
    """Labels that mean something else than the last release's are refused unless the recipe says that they shall."""
    before, declared = parent.labels, declared_now(gate, parent.gate)
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            continue
        if name not in now:
            found = ["the label is no longer written"]
        elif before[name].fingerprint == now[name].fingerprint:
            continue
        else:
            sides = [side[name].model_dump(mode="json") for side in (before, now)]
            found = differences(sides[0], sides[1])
        yield Check(
            "meaning", name, declared is not None,
            f"not the same label as in release {parent.number}: {'; '.join(found[:5])}. "
            + (f"Declared: {declared}" if declared else
               "If that is meant, say why: `gate: {expect_change: ...}`, or --set gate.expect_change=..."
               + (f" {gate.expect_change!r} is what release {parent.number} was declared to be."
                  if gate.expect_change else "")),
            len(found), 0, found[:NUM_EXAMPLES],
        )  # fmt: skip


def of_changes(candidate: Release, parent: Release, gate: Gate) -> Iterator[Check]:
    """How many of the same samples keep their class under a teacher that was changed on purpose."""
    changed = [
        name
        for name, label in candidate.version.labels.items()
        if name in parent.version.labels and parent.version.labels[name].fingerprint != label.fingerprint
    ]
    if not changed:
        return
    try:
        found = diff(parent, candidate, gate.sample_shards)
    except StoreCorrupt as error:
        yield Check(
            "agreement", "", False, f"the same samples cannot be compared with release {parent.number}: {error}"
        )
        return
    for name in changed:
        each = found.labels[name]
        if each.compared < MIN_COMPARED or found.how[name].kind not in ("cells", "pixels", "classes"):
            continue
        share = 1 - each.changed / each.compared
        limit = gate.agreement - spread_of(gate.agreement, each.compared)
        moves = [f"{old} -> {new}: {count}" for (old, new), count in each.transitions.most_common(NUM_EXAMPLES)]
        yield Check(
            "agreement", name, share >= limit,
            f"{share:.1%} of {each.compared} samples keep their class; at least {gate.agreement:.0%} must. Most "
            f"frequent: {'; '.join(moves) or 'none'}.", share, limit, [*each.examples],
        )  # fmt: skip
