"""Release: reading labels back, by shard or by sample, from a store on disk or in a bucket."""

import difflib
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..digests import Json
from ..errors import BadSample, BadShard, ObjectMissing, StoreCorrupt, UnknownName
from ..labels import label_map, mask
from ..labels.contract import Column, LabelContract
from ..labels.shard_file import decode_label_shard
from ..reasons import Status
from ..storage.objects import ObjectStore
from ..storage.opening import open_store
from .segments import Entry, EntryColumns
from .stored import get_checked
from .tags import read_tag, tag_names, write_tag
from .versions import Counts, Version, read_history, read_marker, read_version, version_numbers

ROW_COLUMNS = ("key", "sample_digest", "status", "reason")
DECODERS: Mapping[str, Callable[[LabelContract, Mapping[str, Any]], Any]] = {
    "label_map": label_map.decode_row,
    "mask": mask.decode_row,
}


class Release:
    """One immutable release; shards and samples are found by name."""

    def __init__(self, objects: ObjectStore, version: Version) -> None:
        self.objects, self.version = objects, version
        self._last: tuple[str, pa.Table] | None = None

    @property
    def number(self) -> int:
        return self.version.version

    @property
    def labels(self) -> dict[str, LabelContract]:
        """Label name -> its contract."""
        return {name: label.contract for name, label in self.version.labels.items()}

    @property
    def counts(self) -> Counts:
        return self.version.counts

    @property
    def coverage(self) -> float:
        """Shards in the release over shards in the source, in [0, 1]."""
        return self.version.coverage

    @property
    def content_digest(self) -> str:
        """Equal for the same labels of the same shards, wherever and whenever they were made."""
        return self.version.content_digest

    @property
    def recipe(self) -> Json:
        """The whole recipe, resolved."""
        return self.version.recipe

    @functools.cached_property
    def entries(self) -> dict[str, Entry]:
        """Shard name -> its entry, by name; dead shards among them."""
        return self._columns.entries()

    @functools.cached_property
    def _columns(self) -> EntryColumns:
        return EntryColumns(self.objects, self.version.segments)

    @property
    def shards(self) -> list[str]:
        """Names of all source shards in the release, dead ones among them, sorted."""
        return list(self._columns.tokens())

    def entry(self, shard: str) -> Entry:
        """What the release says of a shard; raises UnknownName."""
        entry = self._columns.find(shard)
        if entry is None:
            raise unknown("shard", shard, self.shards)
        return entry

    def table(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The label shard: one row per source sample, in order, or some of its columns.

        Page checksums and the row count are verified. Raises BadShard for a dead shard, StoreCorrupt where the file
        is gone or damaged.
        """
        entry = self.entry(shard)
        if entry.data is None:
            raise BadShard(entry.reason, f"shard {shard!r} carries no labels: {entry.detail}")
        url = self.objects.full_url(entry.data.path)
        try:
            data = self.objects.get(entry.data.path)
            table = decode_label_shard(data, columns)
        except ObjectMissing as error:
            raise StoreCorrupt(f"{url} is gone.") from error
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{url}: {error}") from error
        if table.num_rows != entry.rows:
            raise StoreCorrupt(f"{url} holds {table.num_rows} rows; {entry.rows} were written.")
        return table

    def get(self, shard: str, key: str) -> dict[str, Any]:
        """One sample's labels, decoded: label name -> LabelMap or Mask by its kind, else its columns by name.

        Raises UnknownName for a key that the shard does not hold, BadSample with status and reason for a row that was
        filtered or could not be labelled.
        """
        table = self._table_for_samples(shard)
        row = pc.index(table["key"], key).as_py()
        if row < 0:
            raise unknown("sample", key, table["key"].to_pylist())
        fields = table.slice(row, 1).to_pylist()[0]
        if fields["status"] != Status.OK:
            raise BadSample(
                fields["reason"], f"sample {key!r} of shard {shard!r} has status {fields['status']}, no label."
            )
        return {name: decode(contract, fields) for name, contract in self.labels.items()}

    def files(self) -> list[str]:
        """URLs of all label shards, by shard name: what DuckDB, Polars or Spark are given. Never use a glob instead:
        the folder also holds files of other releases and of attempts that lost.
        """
        return [self.objects.full_url(entry.data.path) for entry in self.entries.values() if entry.data is not None]

    def dead_letters(self) -> Iterator[dict[str, Json]]:
        """Dead shards and samples with shard, status, reason, detail; those of samples also with key and the like."""
        for entry in self.entries.values():
            if entry.data is None:
                yield {"shard": entry.shard, "status": entry.status, "reason": entry.reason, "detail": entry.detail}
            if entry.dead_letters is not None:
                for line in get_checked(self.objects, entry.dead_letters).splitlines():
                    yield {"shard": entry.shard, "status": str(Status.DEAD), **json.loads(line)}

    def _table_for_samples(self, shard: str) -> pa.Table:
        """The last shard asked for stays in memory: samples are usually read shard by shard."""
        last = self._last
        if last is None or last[0] != shard:
            self._last = last = (shard, self.table(shard))
        return last[1]


class Store:
    """A store whose format this package reads."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.uuid = str(read_marker(objects)["uuid"])

    @property
    def url(self) -> str:
        return self.objects.url

    def release(self, selector: int | str = "latest") -> Release:
        """`latest`, a number (7, "7" or "v7") or a tag; raises UnknownName with what exists."""
        return Release(self.objects, read_version(self.objects, find_version(self.objects, selector)))

    def history(self) -> list[Version]:
        """Every version, oldest first."""
        return read_history(self.objects)

    def tag(self, name: str, number: int) -> None:
        """Give a release a name that never moves."""
        write_tag(self.objects, name, find_version(self.objects, number))


def open_label_store(url: str | os.PathLike[str], **options: Json) -> Store:
    """The store at a path or URL; `options` are fsspec's (see `storage.filesystems.resolve`).

    Raises UsageError where there is no store, Refused where its format is newer than this package.
    """
    return Store(open_store(os.fspath(url), options))


def find_version(objects: ObjectStore, selector: int | str) -> int:
    """The number that a selector means, of a version that exists."""
    numbers = version_numbers(objects)
    wanted = as_number(selector)
    if selector == "latest" and numbers:
        return numbers[-1]
    if wanted is None and selector != "latest":
        return read_tag(objects, str(selector))
    if wanted not in numbers:
        known = [*map(str, numbers[-10:]), *tag_names(objects), *(["latest"] if numbers else [])]
        hint = "" if numbers else "Nothing has been published here yet."
        raise UnknownName("release", str(selector), known, hint)
    return wanted


def unknown(kind: str, name: str, names: Sequence[str]) -> UnknownName:
    """An error that shows the nearest of very many names, or a few of them."""
    near = difflib.get_close_matches(name, names, n=1) or names[:5]
    return UnknownName(kind, name, near, f"There are {len(names)} in all.")


def as_number(selector: int | str) -> int | None:
    found = re.fullmatch(r"v?(-?[0-9]{1,18})", str(selector))
    return int(found[1]) if found else None


def decode(contract: LabelContract, fields: Mapping[str, Any]) -> Any:
    """One row's label: by its kind, else column name -> numpy array or scalar."""
    if contract.kind in DECODERS:
        return DECODERS[contract.kind](contract, fields)
    return {column.name: decode_cell(column, fields[column.name]) for column in contract.columns}


def decode_cell(column: Column, cell: Any) -> Any:
    return np.frombuffer(cell, column.dtype).reshape(column.shape) if column.shape else cell
