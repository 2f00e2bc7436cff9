"""Segments: content-addressed lists of the label shards that a release is made of.

A release names some segments in order; a later segment's entry for a shard replaces an earlier one, and an entry that
says `removed` takes the shard out.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..digests import digest
from ..labels.contract import Declaration
from ..reasons import Status
from ..storage.objects import ObjectStore
from .receipts import Receipt
from .records import decode_table, encode_records, records_of
from .stored import Stored, create_named, get_checked, in_threads

MAX_ENTRIES = 200_000
"""About 20 MB: well within what one conditional PUT may hold."""
INDEX_AFTER = 8
"""Shards looked for one by one before all are indexed: who reads a few never pays for the index."""


class SegmentRef(Declaration):
    """A segment, as a version names it."""

    path: str
    sha256: str
    size_bytes: int
    entries: int

    def stored(self) -> Stored:
        return Stored(self.path, self.size_bytes, self.sha256)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One source shard in a release; the fields that it shares with `Receipt` mean the same."""

    shard: str
    size: int = 0
    etag: str = ""
    token: str = ""
    content_sha256: str = ""
    generation: int = 0
    status: str = ""
    reason: str = ""
    detail: str = ""
    rows: int = 0
    ok: int = 0
    dead: int = 0
    filtered: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    keys_sha256: str = ""
    data: Stored | None = None
    dead_letters: Stored | None = None
    numerics: str = ""
    """Digest; the version holds what it stands for."""
    removed: bool = False
    """The shard is no longer part of the source."""
    summary: str = ""

    def objects(self) -> list[Stored]:
        return [each for each in (self.data, self.dead_letters) if each is not None]

    @property
    def outcome(self) -> str:
        """What the content digest says of this shard."""
        return self.data.sha256 if self.data is not None else f"dead:{self.reason}"


SHARED = [field.name for field in dataclasses.fields(Entry) if field.name not in ("numerics", "removed")]


def entry_of(receipt: Receipt) -> Entry:
    """The entry that publishes a receipt; run and attempt stay behind."""
    return entries_of([receipt])[0]


def entries_of(receipts: Sequence[Receipt]) -> list[Entry]:
    """`entry_of` of each; numerics that receipts share are digested once."""
    numerics = {id(receipt.numerics): receipt.numerics for receipt in receipts}
    digests = {name: digest(value) for name, value in numerics.items()}
    return [
        Entry(**{name: getattr(receipt, name) for name in SHARED}, numerics=digests[id(receipt.numerics)])
        for receipt in receipts
    ]


def recounted(entry: Entry, rows: pa.Table) -> Entry:
    """The same with the counts of these rows (`status` and `reason`); its summary is not made anew."""
    statuses, reasons = (Counter(rows[name].drop_null().to_pylist()) for name in ("status", "reason"))
    ok, dead, filtered = (statuses[status] for status in (Status.OK, Status.DEAD, Status.FILTERED))
    return dataclasses.replace(entry, ok=ok, dead=dead, filtered=filtered, reasons=dict(sorted(reasons.items())))


def write_segments(store: ObjectStore, entries: Iterable[Entry]) -> tuple[SegmentRef, ...]:
    """By shard name, in segments of at most MAX_ENTRIES."""
    ordered = sorted(entries, key=lambda entry: entry.shard)
    starts = range(0, max(1, len(ordered)), MAX_ENTRIES)
    return tuple(write_segment(store, ordered[start : start + MAX_ENTRIES]) for start in starts)


def write_segment(store: ObjectStore, ordered: Sequence[Entry]) -> SegmentRef:
    """Equal entries give the same object, whoever writes it and however often."""
    named = create_named(store, "segments", encode_records(Entry, ordered), ".parquet")
    return SegmentRef(path=named.path, sha256=named.sha256, size_bytes=named.size_bytes, entries=len(ordered))


def read_segment(store: ObjectStore, ref: SegmentRef) -> list[Entry]:
    """Raises StoreCorrupt, naming the segment, where it is gone or damaged."""
    return records_of(Entry, read_columns(store, ref), store.full_url(ref.path))


def read_columns(store: ObjectStore, ref: SegmentRef, summaries: bool = True) -> pa.Table:
    """A segment's entries as columns; raises StoreCorrupt as `read_segment` does."""
    return decode_table(Entry, get_checked(store, ref.stored()), store.full_url(ref.path), later=summaries)


def read_segments(store: ObjectStore, refs: Sequence[SegmentRef]) -> dict[str, Entry]:
    """Shard name -> its entry, by name; tombstones are applied."""
    return merge(in_threads(lambda ref: read_segment(store, ref), refs))


class EntryColumns:
    """A release's entries as columns: one is found by name without making a hundred thousand others.

    The first few are looked for; who asks for more than INDEX_AFTER is likely to want all, and has them indexed. The
    entries come without summaries.
    """

    def __init__(self, store: ObjectStore, refs: Sequence[SegmentRef]) -> None:
        self._tables = in_threads(lambda ref: read_columns(store, ref, summaries=False), refs)
        self._urls = [store.full_url(ref.path) for ref in refs]
        self._finds = 0

    def find(self, shard: str) -> Entry | None:
        """The entry of a shard that the release holds."""
        self._finds += 1
        place = self._look_for(shard) if self._finds <= INDEX_AFTER else self._index.get(shard)
        if place is None:
            return None
        number, row = place
        [entry] = records_of(Entry, self._tables[number].slice(row, 1), self._urls[number])
        return None if entry.removed else entry

    def _look_for(self, shard: str) -> tuple[int, int] | None:
        """Which table and row speak for a shard."""
        for number in reversed(range(len(self._tables))):
            row = pc.index(self._tables[number]["shard"], shard).as_py()
            if row >= 0:
                return number, row
        return None

    @functools.cached_property
    def _index(self) -> dict[str, tuple[int, int]]:
        """Shard -> which table and row speak for it: the last that names it."""
        return {
            shard: (number, row)
            for number, table in enumerate(self._tables)
            for row, shard in enumerate(table["shard"].to_pylist())
        }

    def tokens(self) -> dict[str, str]:
        """Shard name -> token of every shard that the release holds, by name."""
        held: dict[str, str | None] = {}
        for table in self._tables:
            names, tokens, removed = (table[name].to_pylist() for name in ("shard", "token", "removed"))
            held.update(
                zip(names, (None if gone else token for token, gone in zip(tokens, removed, strict=True)), strict=True)
            )
        return {shard: token for shard in sorted(held) if (token := held[shard]) is not None}

    def entries(self) -> dict[str, Entry]:
        """All of them, by name."""
        return merge(records_of(Entry, table, url) for table, url in zip(self._tables, self._urls, strict=True))


def merge(lists: Iterable[Iterable[Entry]]) -> dict[str, Entry]:
    held = {entry.shard: entry for entries in lists for entry in entries}
    return {shard: held[shard] for shard in sorted(held) if not held[shard].removed}
