"""Diff: what changed from one release to another: shards, samples, and what their labels say.

Only shards whose label shards differ in their sha256 are read, a few at a time, so memory does not grow with the
releases. Samples are matched by key.
"""

import concurrent.futures
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from ..digests import Json
from ..labels.summary import Summary
from ..reasons import Status
from .changes import Comparison, LabelChanges, compare, comparison
from .segments import Entry
from .versions import Version

NUM_READERS = 2
"""Pairs of label shards in memory at a time."""
NUM_EXAMPLES = 5
FATES = ("added", "removed", "changed", "unchanged", "died", "revived")


@runtime_checkable
class Side(Protocol):
    """A release, as far as a diff asks it."""

    @property
    def version(self) -> Version: ...

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    @property
    def summary(self) -> Summary | None: ...

    def table(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table: ...


@dataclasses.dataclass
class SampleChanges:
    """What became of samples; sums over the shards that were read."""

    added: int = 0
    removed: int = 0
    status: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """("ok", "dead corrupt_image") -> samples, of those whose status or reason changed."""
    examples: list[dict[str, Json]] = dataclasses.field(default_factory=list)
    """shard, key, before, after."""

    def add(self, other: "SampleChanges") -> None:
        self.added, self.removed = self.added + other.added, self.removed + other.removed
        self.status.update(other.status)
        self.examples = [*self.examples, *other.examples][:NUM_EXAMPLES]


@dataclasses.dataclass
class Difference:
    """From release `a` to release `b`."""

    a: int
    b: int
    same_content: bool
    shards: dict[str, list[str]]
    """Names by what became of them: added | removed | changed | unchanged | died | revived."""
    to_read: int
    """Shards whose label shards differ."""
    read: int
    """Of these, how many were read: counts of samples and labels are of them."""
    samples: SampleChanges
    how: dict[str, Comparison]
    labels: dict[str, LabelChanges]
    summaries: tuple[Summary | None, Summary | None] = (None, None)
    """Of `a` and `b`, over all their shards."""

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "same_content": self.same_content,
            "shards": {fate: len(names) for fate, names in self.shards.items()},
            "shard_examples": {
                fate: names[:NUM_EXAMPLES] for fate, names in self.shards.items() if fate != "unchanged"
            },
            "shards_that_differ": self.to_read,
            "shards_read": self.read,
            "samples": {
                "added": self.samples.added,
                "removed": self.samples.removed,
                "status": told(self.samples.status),
                "examples": self.samples.examples,
            },
            "labels": {name: self._label(name) for name in self.how},
            "summary": {
                side: None if each is None else each.to_json()
                for side, each in zip(("before", "after"), self.summaries, strict=True)
            },
        }

    def _label(self, name: str) -> Json:
        found, how = self.labels[name], self.how[name]
        return {
            "notes": list(how.notes),
            "compared_by": how.kind,
            "compared": found.compared,
            "changed": found.changed,
            "cells": found.cells,
            "cells_changed": found.cells_changed,
            "transitions": told(found.transitions),
            "examples": found.examples,
        }


def told(transitions: Counter[tuple[str, str]]) -> list[Json]:
    """Most frequent first."""
    ordered = sorted(transitions.items(), key=lambda each: (-each[1], each[0]))
    return [{"before": before, "after": after, "count": number} for (before, after), number in ordered]


def diff(a: Side, b: Side, shards: int | None = None) -> Difference:
    """Everything that differs; `shards`: read at most so many of the shards that differ, spread over all of them.

    What is withdrawn is blank on both sides and so no difference.
    """
    fates = shard_fates(a.entries, b.entries)
    differ = [shard for shard in (*fates["changed"],) if a.entries[shard].data and b.entries[shard].data]
    chosen = differ if shards is None or shards >= len(differ) else spread(differ, shards)
    labels = sorted(a.version.labels.keys() | b.version.labels.keys())
    how = {name: comparison(a.version.labels.get(name), b.version.labels.get(name)) for name in labels}
    found = Difference(
        a.version.version,
        b.version.version,
        a.version.content_digest == b.version.content_digest,
        fates,
        len(differ),
        len(chosen),
        whole_shards(a.entries, b.entries, fates),
        how,
        {name: LabelChanges() for name in how},
        (a.summary, b.summary),
    )
    with concurrent.futures.ThreadPoolExecutor(NUM_READERS) as pool:
        for samples, changes in pool.map(lambda shard: compare_shard(a, b, shard, how), chosen):
            found.samples.add(samples)
            for name, each in changes.items():
                found.labels[name].add(each, NUM_EXAMPLES)
    return found


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of them at equal distances: the same ones every time."""
    return [names[index * len(names) // count] for index in range(count)]


def shard_fates(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Names by what became of them, from what the releases say."""
    fates: dict[str, list[str]] = {fate: [] for fate in FATES}
    for shard in sorted(before.keys() | after.keys()):
        fates[fate_of(before.get(shard), after.get(shard))].append(shard)
    return fates


def fate_of(before: Entry | None, after: Entry | None) -> str:
    if before is None or after is None:
        return "added" if before is None else "removed"
    if before.outcome == after.outcome:
        return "unchanged"
    if (before.data is None) == (after.data is None):
        return "changed"
    return "died" if after.data is None else "revived"


def whole_shards(
    before: Mapping[str, Entry], after: Mapping[str, Entry], fates: Mapping[str, Sequence[str]]
) -> SampleChanges:
    """The samples of shards that came, went, died or revived: counted without a look at them."""
    added = sum(after[shard].rows for fate in ("added", "revived") for shard in fates[fate])
    removed = sum(before[shard].rows for fate in ("removed", "died") for shard in fates[fate])
    return SampleChanges(added, removed)


def compare_shard(
    a: Side, b: Side, shard: str, how: Mapping[str, Comparison]
) -> tuple[SampleChanges, dict[str, LabelChanges]]:
    """One shard of both releases, which both hold."""
    before, after = a.table(shard), b.table(shard)
    rows_before, rows_after = common_rows(before["key"].to_pylist(), after["key"].to_pylist())
    common = len(rows_before)
    samples = SampleChanges(after.num_rows - common, before.num_rows - common)
    before, after = before.take(rows_before), after.take(rows_after)
    states = [states_of(table) for table in (before, after)]
    for row, (one, other) in enumerate(zip(*states, strict=True)):
        if one != other:
            samples.status[one, other] += 1
            if len(samples.examples) < NUM_EXAMPLES:
                example = {"shard": shard, "key": before["key"][row].as_py(), "before": one, "after": other}
                samples.examples.append(example)
    ok = np.array([one == other == Status.OK for one, other in zip(*states, strict=True)], np.bool_)
    before, after = (table.filter(pa.array(ok)).combine_chunks() for table in (before, after))
    return samples, {name: compare(each, shard, before, after, NUM_EXAMPLES) for name, each in how.items()}


def common_rows(
    before: Sequence[str], after: Sequence[str]
) -> tuple[Int64[np.ndarray, " common"], Int64[np.ndarray, " common"]]:
    """Where the keys that are in both stand, in the order of the first."""
    if before == after:
        return np.arange(len(before)), np.arange(len(after))
    places = {key: row for row, key in enumerate(after)}
    pairs = [(row, places[key]) for row, key in enumerate(before) if key in places]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def states_of(table: pa.Table) -> Iterable[str]:
    """`ok`, `dead corrupt_image`, `filtered where`."""
    pairs = zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return [status if reason is None else f"{status} {reason}" for status, reason in pairs]
