"""Withdrawals: samples and whole shards that must not be used any more, in any release, old or new.

`withdrawals/<id>.json` is created once and named by its content. Readers blank the rows (they keep their place, with
status `filtered`, reason `withdrawn` and no label), runs label them no more. What was labelled stays in its files until
`erase`; no fingerprint changes, and nothing is computed again.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from ..digests import Json, digest
from ..errors import UsageError
from ..labels.shard_file import ROW_FIELDS
from ..reasons import Reason, Status
from ..storage.objects import ObjectStore
from . import notices
from .segments import Entry

FOLDER = "withdrawals"
KEYS_PER_OBJECT = 100_000
ROW_NAMES = tuple(field.name for field in ROW_FIELDS)

Samples = Mapping[str, Sequence[str] | None]
"""Shard -> keys, or None for the whole shard."""


@dataclasses.dataclass(frozen=True)
class Withdrawn:
    """All that is withdrawn in a store, as it was when it was read."""

    shards: frozenset[str] = frozenset()
    """Withdrawn whole."""
    keys: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    """Shard -> withdrawn keys."""

    def __bool__(self) -> bool:
        return bool(self.shards or self.keys)

    def keys_of(self, shard: str) -> frozenset[str]:
        return self.keys.get(shard, frozenset())

    def holds(self, shard: str, key: str) -> bool:
        return shard in self.shards or key in self.keys_of(shard)

    def concerns(self, entry: Entry, blanked: int | None = None) -> bool:
        """Whether the label shard of an entry may hold withdrawn rows that are not blank in the file.

        `blanked`: how many are; None where the entry's own count tells.
        """
        known = entry.reasons.get(Reason.WITHDRAWN, 0) if blanked is None else blanked
        wanted = entry.rows if entry.shard in self.shards else len(self.keys_of(entry.shard))
        return entry.data is not None and known < wanted

    def rows(self, shard: str, keys: pa.ChunkedArray) -> Bool[np.ndarray, " rows"]:
        """Which rows of a shard are withdrawn."""
        if shard in self.shards:
            return np.ones(len(keys), np.bool_)
        wanted = pa.array(sorted(self.keys_of(shard)), pa.string())
        return np.asarray(pc.is_in(keys, value_set=wanted).to_numpy(), np.bool_)

    def blank(self, shard: str, table: pa.Table) -> pa.Table:
        """The table of a label shard (`key` among its columns) without what is withdrawn: every row keeps its place."""
        rows = self.rows(shard, table["key"])
        if not rows.any():
            return table
        gone = pa.array(rows)
        blanks: dict[str, str | None] = {"status": str(Status.FILTERED), "reason": str(Reason.WITHDRAWN)}
        for index, field in enumerate(table.schema):
            if field.name != "key":
                value = pa.scalar(blanks.get(field.name), field.type)
                table = table.set_column(index, field, replaced(table[field.name], gone, value))
        return table


def replaced(column: pa.ChunkedArray, gone: pa.Array, value: pa.Scalar) -> pa.ChunkedArray:
    """The column with `value` where `gone`; takes rows by index, for `if_else` knows not every type."""
    whole = column.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    if value.is_valid:
        return pa.chunked_array([pc.if_else(gone, value, whole)], column.type)
    places = pc.if_else(gone, pa.scalar(None, pa.int64()), pa.array(np.arange(len(whole)), pa.int64()))
    return pa.chunked_array([whole.take(places)], column.type)


def write_withdrawals(store: ObjectStore, samples: Samples, reason: str) -> list[str]:
    """Withdraw shards or samples; returns the ids. Withdrawing the same again for the same reason changes nothing."""
    if not reason.strip():
        raise UsageError("a withdrawal needs a reason: it is what will be read when somebody asks for the sample.")
    if not samples or any(keys is not None and not keys for keys in samples.values()):
        raise UsageError("nothing is named to withdraw: expected a shard, or keys of one.")
    ids = []
    for part in parts_of(samples):
        fields: dict[str, Json] = {"samples": part, "reason": reason.strip()}
        ids.append(digest(fields)[:32])
        notices.post(store, f"{FOLDER}/{ids[-1]}.json", fields)
    return ids


def parts_of(samples: Samples) -> Iterator[dict[str, list[str] | None]]:
    """In the order of names, at most KEYS_PER_OBJECT keys each."""
    part: dict[str, list[str] | None] = {}
    room = KEYS_PER_OBJECT
    for shard, keys in sorted(samples.items()):
        wanted = None if keys is None else sorted(set(keys))
        starts = range(0, len(wanted or [""]), KEYS_PER_OBJECT)
        for start in starts:
            chunk = None if wanted is None else wanted[start : start + KEYS_PER_OBJECT]
            if part and (room < len(chunk or [""]) or shard in part):
                yield part
                part, room = {}, KEYS_PER_OBJECT
            part[shard] = chunk
            room -= len(chunk or [""])
    yield part


def read_withdrawals(store: ObjectStore) -> Withdrawn:
    """Raises StoreCorrupt where one is damaged: what it names must not come back unseen."""
    return merge(fields["samples"] for fields in notices.read_all(store, FOLDER).values())


def merge(parts: Iterable[Samples]) -> Withdrawn:
    shards: set[str] = set()
    keys: dict[str, set[str]] = {}
    for part in parts:
        for shard, wanted in part.items():
            if wanted is None:
                shards.add(shard)
            else:
                keys.setdefault(shard, set()).update(wanted)
    return Withdrawn(frozenset(shards), {shard: frozenset(wanted) for shard, wanted in keys.items()})
