"""Budget: how many dead letters a run may have, in total and per reason, at its end and while it is going.

Counted by finished shards. A run stops early only where the limit cannot be kept even if the samples still to come lie
twice as dense as those seen and none of them dies, so a burst at the start of a long run does not stop it.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from relabel.errors import Refused, TooManyDeadLetters
from relabel.reasons import Reason
from relabel.releases.letters import Record, dead_reasons, read_letters
from relabel.storage.objects import ObjectStore

from .recipe import DeadLetters, Limit

EVIDENCE_SHARDS = 3
"""Finished ones, before anything is said of those to come."""
DENSITY_MARGIN = 2.0
NUM_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Overrun:
    """A limit that is not kept."""

    what: str
    """samples | shards."""
    reason: str
    """A reason code; "" for the total."""
    lost: int
    seen: int
    expected: float
    """How many there are at most, those to come included."""
    limit: Limit

    @property
    def field(self) -> str:
        """Of the recipe: what to raise."""
        return f"dead_letters.per_reason.{self.reason}" if self.reason else "dead_letters"


class Budget:
    """What is lost so far, against what the recipe allows."""

    def __init__(self, limits: DeadLetters, num_shards: int, num_bytes: int) -> None:
        self.limits, self.num_shards, self.num_bytes = limits, num_shards, num_bytes
        self.shards = self.bytes = self.samples = self.ok = 0
        self.dead_samples: Counter[str] = Counter()
        self.dead_shards: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """A shard is finished."""
        self.shards, self.bytes = self.shards + 1, self.bytes + record.size
        if record.status == "dead":
            self.dead_shards[record.reason] += 1
            return
        self.samples, self.ok = self.samples + record.rows, self.ok + record.ok
        if record.dead:
            self.dead_samples += dead_reasons(record)

    def expected_samples(self) -> float:
        """How many the source may hold at most; unbounded before there is evidence."""
        if self.shards >= self.num_shards:
            return float(self.samples)
        if self.shards < EVIDENCE_SHARDS or not self.bytes:
            return float("inf")
        density = DENSITY_MARGIN * self.samples / self.bytes
        return self.samples + density * max(0, self.num_bytes - self.bytes)

    def overrun(self) -> Overrun | None:
        """The first limit that can no longer be kept."""
        return next(self._overruns(self.expected_samples(), self.num_shards), None)

    def overrun_so_far(self) -> Overrun | None:
        """The first limit that is not kept by what is finished, as if that were all."""
        return next(self._overruns(float(self.samples), self.shards), None)

    def _overruns(self, samples: float, shards: int) -> Iterator[Overrun]:
        limits = self.limits
        of_samples = Limit(max_fraction=limits.max_fraction, allow=limits.allow)
        of_shards = Limit(max_fraction=limits.max_fraction)
        for what, lost, seen, expected, total in (
            ("samples", self.dead_samples, self.samples, samples, of_samples),
            ("shards", self.dead_shards, self.shards, shards, of_shards),
        ):
            for reason, limit in (*limits.per_reason.items(), ("", total)):
                number = lost[reason] if reason else lost.total()
                if number > max(limit.allow, limit.max_fraction * expected):
                    yield Overrun(what, reason, number, seen, float(expected), limit)


def budget_of(limits: DeadLetters, sizes: Iterable[int], records: Iterable[Record]) -> Budget:
    """The budget of a source whose shards have these sizes and of which these are finished."""
    sizes = list(sizes)
    budget = Budget(limits, len(sizes), sum(sizes))
    for record in records:
        budget.add(record)
    return budget


def check_budget(store: ObjectStore, budget: Budget, records: Sequence[Record]) -> None:
    """Raises TooManyDeadLetters where the limits cannot be kept; `records` are what is finished.

    Raises Refused where every sample is withdrawn.
    """
    done = budget.shards >= budget.num_shards
    if done and budget.samples and not budget.ok:
        if not budget.dead_samples and all(record.reasons.keys() == {Reason.WITHDRAWN} for record in records):
            raise Refused(
                f"every sample of the source ({budget.samples}) is withdrawn, and a release without labels is not "
                "published. Add other shards to the source."
            )
        found = ", ".join(f"{number} {reason}" for reason, number in sorted(all_reasons(records).items()))
        raise TooManyDeadLetters(
            f"none of {budget.samples} samples got a label ({found}). Nothing was published. Check source.fields and "
            "source.where; `relabel try` says what is wrong with single samples."
        )
    overrun = budget.overrun()
    if overrun is not None:
        these = [record for record in records if (record.status == "dead") == (overrun.what == "shards")]
        examples = list(islice(read_letters(store, these, overrun.reason or None), NUM_EXAMPLES))
        raise TooManyDeadLetters(describe(overrun, budget, examples))


def all_reasons(records: Iterable[Record]) -> Counter[str]:
    return sum((Counter(record.reasons) for record in records), Counter[str]())


def describe(overrun: Overrun, budget: Budget, examples: Sequence[dict[str, object]]) -> str:
    """Which limit, how many of how many, examples, and what to do."""
    early = budget.shards < budget.num_shards
    lost, limit = budget.dead_samples if overrun.what == "samples" else budget.dead_shards, overrun.limit
    found = ", ".join(f"{number} {reason}" for reason, number in lost.most_common())
    what = f"are dead letters ({found})" if overrun.what == "samples" else f"cannot be read ({found})"
    if overrun.reason:
        what = f"are dead letters of reason {overrun.reason}"
    so_far = f" so far, of about {overrun.expected:.0f} at most" if early and overrun.what == "samples" else ""
    of = overrun.seen if overrun.what == "samples" else budget.num_shards
    allowed = f"{limit.max_fraction:.1%}" + (f" or {limit.allow}" if limit.allow else "")
    shown = "; ".join(describe_letter(letter) for letter in examples)
    return (
        f"{overrun.lost} of {of} {overrun.what}{so_far} {what}; {overrun.field} allows {allowed}. "
        + (f"Stopped early with {budget.shards} of {budget.num_shards} shards finished. " if early else "")
        + f"First: {shown}. Nothing was published now and nothing is lost: `relabel dead STORE --open` lists them. "
        "Mend the cause and `relabel replay RECIPE --open` labels just these again, or raise "
        f"{overrun.field}.max_fraction; then run again. Withdrawn samples count until `relabel erase STORE`."
    )


def describe_letter(letter: dict[str, object]) -> str:
    place = f"{letter['shard']}/{letter['key']}" if "key" in letter else str(letter["shard"])
    return f"{place}: {letter['reason']}, {letter['detail']}"
