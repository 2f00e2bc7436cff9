"""Report samples: a bounded part of a release, chosen by hashes, and what the release before says of the same samples.

Whatever a release holds, at most MOST_SHARDS of its label shards are read, and of these MOST_ROWS rows are looked at.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from relabel.errors import StoreCorrupt
from relabel.reasons import Status
from relabel.releases.changes import Comparison, LabelChanges, compare, comparison
from relabel.releases.profile import Profile, added, chosen, profile
from relabel.releases.release import Release

from .gate_drift import fresh_shards

MOST_SHARDS = 8
MOST_ROWS = 512
"""Of a shard."""
MOST_MASKS = 32
"""Of a shard whose labels hold a number per pixel."""
NUM_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Rows:
    """Labelled rows of one shard, those with the smallest sample digests."""

    shard: str
    now: pa.Table
    before: pa.Table | None
    """The same samples in the release before, by `before["key"]`, where it has labels of them."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What is looked at of a release."""

    release: Release
    before: Release | None
    fresh: int | None
    """Shards that were labelled since the release before; None where there is none before."""
    rows: Sequence[Rows]
    """Of shards that were labelled since, or of any where none was."""
    earlier: Sequence[pa.Table]
    """Of shards of the release before, chosen in the same way."""
    notes: Sequence[str]
    """What could not be read."""

    @property
    def num_rows(self) -> int:
        return sum(each.now.num_rows for each in self.rows)

    def comparison(self, label: str) -> Comparison | None:
        """How a label of both releases is compared; None where there is none before."""
        if self.before is None:
            return None
        labels = self.before.version.labels, self.release.version.labels
        return comparison(*(each.get(label) for each in labels))

    def changes(self, label: str) -> LabelChanges | None:
        """Of the samples that both have labelled."""
        how = self.comparison(label)
        if how is None:
            return None
        found = LabelChanges()
        for each in self.rows:
            if each.before is not None:
                now = each.now.take(pc.index_in(each.before["key"], each.now["key"].combine_chunks())).combine_chunks()
                found.add(compare(how, each.shard, each.before, now, NUM_EXAMPLES), NUM_EXAMPLES)
        return found

    def profiles(self, label: str) -> tuple[Profile, Profile | None]:
        """Now and, where the label is of the same kind there, before."""
        contract = self.release.labels[label]
        now = added([profile(contract, each.now) for each in self.rows])
        before = self.before.labels.get(label) if self.before else None
        if before is None or before.kind != contract.kind:
            return now, None
        return now, added([profile(before, each) for each in self.earlier])


def take_part(release: Release, before: Release | None) -> Part:
    """Reads at most MOST_SHARDS label shards of the release and twice as many of the one before."""
    alive = [name for name, entry in release.entries.items() if entry.data is not None]
    fresh = None if before is None else fresh_shards(release, before)
    names = chosen(fresh or alive, MOST_SHARDS)
    old = {name for name, entry in before.entries.items() if entry.data is not None} if before else set()
    basis = set(chosen(old, MOST_SHARDS))
    notes: list[str] = []
    read = functools.partial(read_table, notes)
    rows, earlier = [], []
    for name in names:
        table = read(release, name)
        if table is None:
            continue
        now = some_rows(release, table)
        then = read(before, name) if before is not None and name in old else None
        rows.append(Rows(name, now, None if then is None else same_samples(then, now)))
        if before is not None and then is not None and name in basis:
            earlier.append(some_rows(before, then))
            basis.remove(name)
    if before is not None:
        tables = (read(before, name) for name in sorted(basis))
        earlier += [some_rows(before, table) for table in tables if table is not None]
    return Part(release, before, None if fresh is None else len(fresh), rows, earlier, notes)


def read_table(notes: list[str], release: Release, shard: str) -> pa.Table | None:
    """A report is wanted most where something is broken: what cannot be read is said on the page."""
    try:
        return release.table(shard)
    except StoreCorrupt as error:
        notes.append(f"Release {release.number}, shard {shard}: {error}")
        return None


def some_rows(release: Release, table: pa.Table) -> pa.Table:
    table = labelled(table)
    most = MOST_MASKS if any(contract.kind == "mask" for contract in release.labels.values()) else MOST_ROWS
    digests = table["sample_digest"].to_pylist()
    order = sorted(range(len(digests)), key=digests.__getitem__)[:most]
    return table.take(pa.array(order, pa.int64())).combine_chunks()


def same_samples(table: pa.Table, like: pa.Table) -> pa.Table:
    """The labelled rows whose keys are in `like`."""
    table = labelled(table)
    return table.filter(pc.is_in(table["key"], value_set=like["key"].combine_chunks())).combine_chunks()


def labelled(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], Status.OK.value))


def pairs(rows: Rows, most: int) -> Iterator[tuple[Mapping[str, object], Mapping[str, object] | None]]:
    """The first rows, one at a time, and the same samples before."""
    places = {} if rows.before is None else {key: place for place, key in enumerate(rows.before["key"].to_pylist())}
    for place in range(min(most, rows.now.num_rows)):
        [now] = rows.now.slice(place, 1).to_pylist()
        row = places.get(now["key"])
        yield now, None if row is None or rows.before is None else rows.before.slice(row, 1).to_pylist()[0]
