"""Gate checks: one statement about a release each, with its value, its limit and examples; and those of counts."""

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from relabel.digests import Json
from relabel.releases.letters import dead_reasons, read_letters
from relabel.releases.release import Release
from relabel.releases.segments import Entry

from .gate_policy import Gate

NUM_EXAMPLES = 3
CHANCE = 0.01
"""What is beyond a limit by less than what comes by chance once in a hundred times is not refused."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    """reconciliation | replay | singly | meaning | removed_shards | labelled | dead_letters | filtered | flags |
    classes | scores | lengths | wins | agreement | gold | orientation."""
    of: str
    """Label, column, reason or slice; "" the whole release."""
    ok: bool
    text: str
    """What was found and what was expected, for people."""
    value: float | int | None = None
    limit: float | int | None = None
    examples: Sequence[Json] = ()
    judged: bool = True
    """False: told, never refused."""

    @property
    def refuses(self) -> bool:
        return self.judged and not self.ok

    @property
    def named(self) -> str:
        """What was looked at, of what."""
        return f"{self.name} {self.of}".strip()

    def to_json(self) -> dict[str, Json]:
        fields = dataclasses.asdict(self)
        rounded = {name: round(fields[name], 6) for name in ("value", "limit") if fields[name] is not None}
        return {**fields, **rounded, "examples": list(self.examples)}

    def __str__(self) -> str:
        state = "ok" if self.ok else "REFUSED" if self.judged else "note"
        return f"{state:8}{self.named}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Tally:
    """The counts of some entries."""

    shards: int
    dead_shards: Counter[str]
    ok: int
    filtered: int
    dead: Counter[str]

    @property
    def judged(self) -> int:
        """Samples that were not filtered."""
        return self.ok + self.dead.total()

    @property
    def labelled(self) -> float:
        return self.ok / self.judged if self.judged else 0.0

    @property
    def rows(self) -> int:
        return self.judged + self.filtered


def tally(entries: Iterable[Entry]) -> Tally:
    dead_shards, dead = Counter[str](), Counter[str]()
    shards = ok = filtered = 0
    for entry in entries:
        shards += 1
        if entry.status == "dead":
            dead_shards[entry.reason] += 1
        else:
            ok, filtered = ok + entry.ok, filtered + entry.filtered
            dead += dead_reasons(entry)
    return Tally(shards, dead_shards, ok, filtered, dead)


def of_counts(candidate: Release, parent: Release | None, gate: Gate) -> Iterator[Check]:
    """What the counts of shards and samples say."""
    entries = candidate.entries
    now = tally(entries.values())
    before = tally(parent.entries.values()) if parent else None
    yield reconciliation(candidate)
    if parent is not None and not candidate.version.partial:
        yield removed(entries, parent, gate)
    if gate.labelled is not None:
        yield labelled("", now, gate.labelled)
    for name, each in sorted(gate.slices.items()):
        held = tally(entry for shard, entry in entries.items() if fnmatch.fnmatchcase(shard, each.shards))
        yield labelled(name, held, each.labelled)
    yield from dead(candidate, now, before, gate)
    if before is not None and before.rows and now.rows:
        was, value = before.filtered / before.rows, now.filtered / now.rows
        slack = spread_of(was, now.rows)
        yield Check(
            "filtered", "", abs(value - was) <= gate.filtered + slack,
            f"{value:.1%} of the samples were filtered, {was:.1%} in the last release; it may differ by "
            f"{gate.filtered:.0%}. `where` or a field that it reads has changed?",
            abs(value - was), gate.filtered + slack,
        )  # fmt: skip


def reconciliation(candidate: Release) -> Check:
    """Per shard, rows = ok + dead + filtered; and so in the sums that the release states."""
    entries = candidate.entries
    odd = [
        name
        for name, entry in entries.items()
        if entry.rows != entry.ok + entry.dead + entry.filtered
        or sum(entry.reasons.values()) != entry.dead + entry.filtered
        or (entry.status == "dead") != (entry.data is None)
    ]
    counts = candidate.version.counts
    sums = [sum(getattr(entry, name) for entry in entries.values()) for name in ("rows", "ok", "dead", "filtered")]
    stated = [counts.samples, counts.ok, counts.dead, counts.filtered]
    if not odd and sums == stated:
        return Check("reconciliation", "", True, "rows = labelled + dead + filtered in every shard", 0, 0)
    return Check(
        "reconciliation", "", False, f"the counts of {len(odd)} shards do not add up (rows {sums[0]}, labelled, dead, "
        f"filtered {sums[1:]}; the release states {stated}). That is a fault of relabel: report it.", len(odd), 0,
        odd[:NUM_EXAMPLES],
    )  # fmt: skip


def removed(entries: Mapping[str, Entry], parent: Release, gate: Gate) -> Check:
    gone = [name for name in parent.entries if name not in entries]
    limit = max(1, math.floor(gate.removed_shards * len(parent.entries)))
    return Check(
        "removed_shards", "", len(gone) <= limit,
        f"{len(gone)} of the {len(parent.entries)} shards of the last release are gone from the source; {limit} may "
        "be. A listing that was cut short, a prefix that moved?", len(gone), limit, gone[:NUM_EXAMPLES],
    )  # fmt: skip


def labelled(of: str, now: Tally, least: float) -> Check:
    empty = "" if now.shards else " No shard has a name of this slice."
    slack = spread_of(least, now.judged)
    return Check(
        "labelled", of, now.labelled >= least - slack and now.shards > 0,
        f"{now.ok} of {now.judged} samples have a label ({now.labelled:.1%}); at least {least:.0%} must.{empty}",
        now.labelled, least,
    )  # fmt: skip


def dead(candidate: Release, now: Tally, before: Tally | None, gate: Gate) -> Iterator[Check]:
    """Reason by reason, samples and shards; the last release's share is what is usual, and without one only told."""
    kinds = (
        ("samples", now.dead, now.judged, before.dead if before else Counter[str](), before.judged if before else 0),
        ("shards", now.dead_shards, now.shards, before.dead_shards if before else Counter[str](),
         before.shards if before else 0),
    )  # fmt: skip
    for what, found, total, usual, usual_total in kinds:
        for reason in sorted(found):
            was = usual[reason] / usual_total if usual_total else 0.0
            most = most_by_chance((was + gate.dead_letters) * total)
            ok = found[reason] <= most
            letters = [] if ok else first_letters(candidate, reason)
            yield Check(
                "dead_letters", reason, ok,
                f"{found[reason]} of {total} {what} are dead ({found[reason] / total:.2%}), "
                f"{f'{was:.2%} in the last release' if before else 'and there is no release before'}; at most {most} "
                "may be.", found[reason], most, letters, judged=before is not None,
            )  # fmt: skip


def first_letters(candidate: Release, reason: str) -> list[Json]:
    letters: list[Json] = []
    for letter in read_letters(candidate.objects, candidate.entries.values(), reason):
        letters.append(letter)
        if len(letters) == NUM_EXAMPLES:
            break
    return letters


def spread_of(share: float, count: int) -> float:
    """Three standard deviations of a share of so many samples."""
    return 3 * math.sqrt(share * (1 - share) / count) if count else 0.0


def most_by_chance(expected: float) -> int:
    """The number that a Poisson variable of this mean exceeds once in a hundred times; a normal's for large ones."""
    if expected > 100:
        return math.ceil(expected + 0.75 + 2.326 * math.sqrt(expected))
    term = total = math.exp(-expected)
    number = 0
    while total < 1 - CHANCE:
        number += 1
        term *= expected / number
        total += term
    return number
