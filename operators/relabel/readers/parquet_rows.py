"""Parquet rows: some rows of a Parquet shard, read by row group; of a remote one only the bytes of these groups."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..digests import sample_digest
from ..shards.parquet import BATCH_ROWS, BUFFER_BYTES, ParquetSource, check_counts, check_magic, sound, to_rows
from ..shards.pinned import Pinned
from ..shards.shard import Sample, Shard
from .fetching import Opener, Rows, other_key
from .label_rows import JoinedRows
from .media import Media


class File(io.RawIOBase):
    """A shard as a file that can be read anywhere."""

    def __init__(self, pinned: Pinned) -> None:
        super().__init__()
        self._pinned, self._at = pinned, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Where reading goes on."""
        self._at = offset + (0, self._at, self._pinned.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all where it is negative."""
        end = self._pinned.size if size is None or size < 0 else min(self._at + size, self._pinned.size)
        data = self._pinned.at(self._at, end) if end > self._at else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there are and fit."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def parquet_rows(
    media: Media, shard: Shard, rows: JoinedRows, wanted: Rows, opener: Opener
) -> Iterator[tuple[int, Sample]]:
    """By position, every key compared with the label's; all columns whose values are scalars or media."""
    source = media.source
    assert isinstance(source, ParquetSource)
    pinned = opener(shard)
    try:
        raw: Any = File(pinned)
        check_magic(raw, shard.url)
        with sound(shard.url):
            file = pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True)
        check_counts(file.metadata, shard.url)
        columns = source.select(file.schema_arrow)
        starts = np.cumsum([0, *(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))])
        groups = sorted(set((np.searchsorted(starts, wanted, side="right") - 1).tolist()))
        inside = set(wanted.tolist())
        for index in groups:
            row = int(starts[index])
            with sound(shard.url):
                batches = file.iter_batches(BATCH_ROWS, row_groups=[index], columns=columns, use_threads=False)
            while True:
                with sound(shard.url):
                    batch = next(batches, None)
                if batch is None:
                    break
                if inside.isdisjoint(range(row, row + len(batch))):
                    row += len(batch)
                    continue
                for fields in to_rows(batch):
                    if row in inside:
                        yield row, named(source, rows, row, fields)
                    row += 1
    finally:
        pinned.close()


def named(source: ParquetSource, rows: JoinedRows, row: int, fields: dict[str, Any]) -> Sample:
    """The sample of a row under the label's key; raises Refused where it is another row's."""
    expected = rows.keys[row] if row < len(rows.keys) else ""
    if source.key is None:
        key = sample_digest(source.media(fields)).hex()
        same = expected.rpartition("-")[0] == key
    else:
        value = fields[source.key]
        key = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
        same = key == expected
    if not same:
        raise other_key(rows, row, key)
    return Sample(expected, row, fields)
