"""Release source: the label shards of a release as the shards of a source, so that labels can be read and refined.

A shard keeps its name and a sample its key and digest, so that what is made of them joins to the same media.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from ..digests import Json, canonical_json, digest
from ..errors import BadShard, ObjectMissing, StoreCorrupt
from ..reasons import Reason, Status
from ..shards.shard import Sample, Shard, ShardReading, Source, Value
from ..storage.opening import open_store
from .release import ROW_COLUMNS, Release, Store
from .segments import Entry


class ReleaseSource(Source):
    """One release, by its number; picklable."""

    def __init__(self, url: str, options: Mapping[str, Json], number: int) -> None:
        self._url, self._options, self._number = url, dict(options), number

    @property
    def release(self) -> Release:
        """Opened once in every process."""
        return opened(self._url, canonical_json(self._options).decode(), self._number)

    @property
    def root(self) -> str:
        return self.release.objects.url

    def shards(self) -> list[Shard]:
        """Dead ones among them: they stay dead. One of which rows were withdrawn is another shard from then on."""
        release = self.release
        release.check_recall()  # this process may have opened it long ago
        return [shard_of(release, entry) for _, entry in sorted(release.entries.items())]

    def read(self, shard: Shard) -> ShardReading:
        return LabelReading(self.release, shard)


def shard_of(release: Release, entry: Entry) -> Shard:
    """What it is called as a source; its ETag says which rows are withdrawn that its file still holds."""
    if entry.data is None:
        return Shard(entry.shard, "", entry.size, f"dead:{entry.token}")
    etag, withdrawn = entry.data.sha256, release.withdrawn
    if withdrawn.concerns(entry):
        etag = digest([etag, entry.shard in withdrawn.shards, sorted(withdrawn.keys_of(entry.shard))])
    return Shard(entry.shard, release.objects.full_url(entry.data.path), entry.data.size_bytes, etag)


class LabelReading(ShardReading):
    """The rows of one label shard."""

    def __init__(self, release: Release, shard: Shard) -> None:
        self._release, self._shard = release, shard

    def __iter__(self) -> Iterator[Sample]:
        table = self._table()
        labels = table.drop_columns(list(ROW_COLUMNS))
        plain = {
            field.name: labels[field.name].to_pylist() for field in labels.schema if is_plain(field.type)
        }  # what `fields` and `where` can name
        rows = zip(*(table[name].to_pylist() for name in ROW_COLUMNS), strict=True)
        for row, (key, media, status, reason) in enumerate(rows):
            if status != Status.OK:
                why = Reason.WITHDRAWN if reason == Reason.WITHDRAWN else Reason.NO_LABEL
                yield Sample(key, row, {}, digest=media, unlabelled=why)
                continue
            fields: dict[str, Value] = {name: values[row] for name, values in plain.items()}
            yield Sample(key, row, fields, labels.slice(row, 1), media)

    def _table(self) -> pa.Table:
        """Raises BadShard where it is dead, damaged or gone: the others can still be read."""
        release, name = self._release, self._shard.name
        if shard_of(release, release.entry(name)).etag != self._shard.etag:
            release.check_recall()  # withdrawn since this process opened the release
        try:
            return release.table(name)
        except (StoreCorrupt, ObjectMissing) as error:
            raise BadShard(Reason.CORRUPT_SHARD, str(error)) from error

    @property
    def content_sha256(self) -> str:
        return self._shard.etag


@functools.lru_cache(maxsize=4)
def opened(url: str, options: str, number: int) -> Release:
    """Raises Recalled where the release was recalled."""
    known: dict[str, Any] = json.loads(options)
    return Store(open_store(url, known)).release(number, accept_partial=True, recalled="error")


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column's values are text, numbers or truth values."""
    return bool(pa.types.is_string(kind) or pa.types.is_primitive(kind))
