"""Plan: which rows of which shards an epoch gives out, counted from the release without reading media.

Counts come from the entries; label shards are read only where that does not tell: where samples of a shard were
withdrawn, and where several releases each have rows without a label. A plan is made once, when the dataset is; what is
withdrawn later leaves a hole in it, so that all workers and ranks go on meaning the same by a position.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from ..digests import digest
from ..errors import Refused
from ..reasons import Reason
from ..releases.segments import Entry
from ..releases.stored import in_threads
from ..releases.withdrawals import Withdrawn
from ..statistics.hashes import key_hashes
from .label_rows import JoinedRows
from .wanted import Pinned, Wanted

OnMissing = Literal["skip", "error", "none"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Shards that give something out, by name, and how many rows each."""

    shards: tuple[str, ...]
    counts: Int64[np.ndarray, " shards"]
    on_missing: OnMissing
    withdrawn: tuple[Withdrawn, ...]
    """Of every release of every line, as it was."""
    unlabelled: int
    """Rows left out because they have no label."""
    taken_out: int
    """Rows left out because they were withdrawn."""

    def __len__(self) -> int:
        return int(self.counts.sum())

    @functools.cached_property
    def digest(self) -> str:
        """Equal where a position means the same sample."""
        return digest([list(self.shards), self.counts.tolist(), self.on_missing])

    def order(self, seed: int, epoch: int, shuffled: bool) -> Int64[np.ndarray, " shards"]:
        """The shards of an epoch in order, as indices into `shards`."""
        if not shuffled:
            return np.arange(len(self.shards))
        return np.argsort(key_hashes(self.shards, f"epoch {epoch}", seed), kind="stable").astype(np.int64)

    def rows(self, rows: JoinedRows, shard: int) -> tuple[Int64[np.ndarray, " given"], Bool[np.ndarray, " given"]]:
        """The rows that a shard gives out, and which of them were withdrawn since.

        Raises Refused where the labels are not those that were planned for.
        """
        now = deliverable(rows, self.on_missing)
        since = np.zeros_like(now)
        if int(now.sum()) != self.counts[shard]:
            before = [each.keys_of(rows.shard) for each in self.withdrawn]
            whole = any(rows.shard in each.shards for each in self.withdrawn)
            known = np.array([whole or any(key in each for each in before) for key in rows.keys], np.bool_)
            since = rows.withdrawn & ~known
            now = now | since
        given = np.flatnonzero(now)
        if len(given) != self.counts[shard]:
            raise Refused(
                f"shard {rows.shard!r} gives out {len(given)} rows where {self.counts[shard]} were counted: labels "
                "were withdrawn or erased since the dataset was made. Make it anew."
            )
        return given, since[given]


def deliverable(rows: JoinedRows, on_missing: OnMissing) -> Bool[np.ndarray, " rows"]:
    return ~rows.withdrawn if on_missing == "none" else rows.ok


def make_plan(wanted: Wanted, shards: Sequence[str], on_missing: OnMissing) -> Plan:
    """Of those of the main release's shards that are there and have labels."""
    withdrawn = tuple(release.withdrawn for pinned in wanted.pinned for release in pinned.line)
    bare = Wanted(tuple(dataclasses.replace(pinned, labels={}) for pinned in wanted.pinned))

    def count(shard: str) -> tuple[int, int, int]:
        known = counted(bare, shard, on_missing)
        return known if known is not None else read_counts(JoinedRows(bare, shard), on_missing)

    names = sorted(shards)
    found = np.array(in_threads(count, names), np.int64).reshape(-1, 3)
    given = found[:, 0] > 0
    return Plan(
        shards=tuple(name for name, some in zip(names, given.tolist(), strict=True) if some),
        counts=found[given, 0],
        on_missing=on_missing,
        withdrawn=withdrawn,
        unlabelled=int(found[:, 1].sum()),
        taken_out=int(found[:, 2].sum()),
    )


def read_counts(rows: JoinedRows, on_missing: OnMissing) -> tuple[int, int, int]:
    """Rows given out, rows left out for want of a label, rows that were withdrawn."""
    given, gone = int(deliverable(rows, on_missing).sum()), int(rows.withdrawn.sum())
    return given, len(rows.keys) - given - gone, gone


def counted(wanted: Wanted, shard: str, on_missing: OnMissing) -> tuple[int, int, int] | None:
    """The same from the entries, or None where these do not tell."""
    main = entry_of(wanted.main, shard)
    assert main is not None
    others = [entry_of(pinned, shard) for pinned in wanted.pinned[1:]]
    if any(concerned(pinned, shard) for pinned in wanted.pinned):
        return None
    entries = [main, *(entry for entry in others if entry is not None)]
    if on_missing == "none":
        gone = [entry.reasons.get(Reason.WITHDRAWN, 0) for entry in entries]
        return (main.rows - gone[0], 0, gone[0]) if not any(gone[1:]) else None
    if len(entries) <= len(others):
        return 0, main.rows, 0
    if any(entry.keys_sha256 != main.keys_sha256 for entry in entries):
        return None
    partial = [entry for entry in entries if entry.ok < entry.rows]
    if len(partial) > 1:
        return None
    fewest = partial[0] if partial else main
    gone_here = fewest.reasons.get(Reason.WITHDRAWN, 0)
    return fewest.ok, fewest.rows - fewest.ok - gone_here, gone_here


def entry_of(pinned: Pinned, shard: str) -> Entry | None:
    """Where it has labels."""
    entry = pinned.release.entries.get(shard)
    return None if entry is None or entry.data is None else entry


def concerned(pinned: Pinned, shard: str) -> bool:
    """Whether any of its samples was withdrawn."""
    return any(shard in each.withdrawn.shards or bool(each.withdrawn.keys_of(shard)) for each in pinned.line)


@dataclasses.dataclass(frozen=True)
class Segment:
    """Rows of one shard that a stream reads one after the other."""

    shard: int
    items: Int64[np.ndarray, " rows"]
    """What the stream calls them."""
    places: Int64[np.ndarray, " rows"]
    """Which of the rows that the shard gives out, ascending."""


def segments(
    reading: Iterator[tuple[int, int, int]], order: Int64[np.ndarray, " shards"], counts: Int64[np.ndarray, " shards"]
) -> Iterator[Segment]:
    """A stream's reading (see `dealing`), cut into shards; what it reads of one in one go is one segment."""
    ends = np.cumsum(counts[order])
    parts: dict[str, list[np.ndarray]] = {"items": [], "places": []}
    current = -1

    def finished() -> Segment:
        return Segment(int(order[current]), *(np.concatenate(parts[name]) for name in ("items", "places")))

    for item, position, count in reading:
        while count:
            place = int(np.searchsorted(ends, position, side="right"))
            begin = int(ends[place] - counts[order[place]])
            size = min(count, int(ends[place]) - position)
            if place != current or position - begin <= parts["places"][-1][-1]:
                if current >= 0:
                    yield finished()
                current, parts = place, {"items": [], "places": []}
            parts["items"].append(np.arange(item, item + size))
            parts["places"].append(np.arange(position - begin, position - begin + size))
            item, position, count = item + size, position + size, count - size
    if current >= 0:
        yield finished()
