"""Rows: the labels of one shard, a row group at a time, without those that are withdrawn, dead or filtered."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from ..digests import digest, sha256
from ..errors import BadShard, ObjectMissing, StoreCorrupt
from ..labels.contract import LabelContract
from ..labels.layout import restored
from ..labels.shard_file import decode_label_shard, header
from ..reasons import Reason, Status
from ..releases.release import Release

IDENTITY = ("key", "sample_digest")
GROUPS_HELD = 2


class LabelRows:
    """The rows of one label shard that carry labels; holds the file's bytes and a few decoded row groups."""

    def __init__(self, release: Release, shard: str, labels: Sequence[LabelContract]) -> None:
        self.shard, data = shard, label_bytes(release, shard)
        rows = decode_label_shard(data, ["key", "sample_digest", "status", "reason"])
        rows = release.withdrawn.blank(shard, rows)
        self.keys: list[str] = rows["key"].to_pylist()
        self.ok: Bool[np.ndarray, " rows"] = np.asarray(pc.equal(rows["status"], str(Status.OK)).to_numpy(), np.bool_)
        self.digests: list[bytes | None] = rows["sample_digest"].to_pylist()
        reasons = rows["reason"].to_pylist()
        self.reasons = {reason: reasons.count(reason) for reason in sorted({each for each in reasons if each})}
        """Reason code -> rows that are left out for it."""
        self._columns = [*IDENTITY, *(column.name for contract in labels for column in contract.columns)]
        self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        header(self._file.schema_arrow)
        metadata = self._file.metadata
        counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self.starts: Int64[np.ndarray, " groups"] = np.cumsum([0, *counts[:-1]], dtype=np.int64)
        self._counts = counts
        self._group = functools.lru_cache(GROUPS_HELD)(self._read_group)

    def group_of(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def take(self, group: int, rows: Sequence[int]) -> pa.Table:
        """Rows of one group, by their numbers in the shard."""
        start = int(self.starts[group])
        return self._group(group).take(pa.array([row - start for row in rows], pa.int64()))

    def tables(self) -> Iterator[pa.Table]:
        """All that carry labels, in order, a table per row group."""
        for group, (start, count) in enumerate(zip(self.starts.tolist(), self._counts, strict=True)):
            ok = self.ok[start : start + count]
            if ok.any():
                yield self._read_group(group).filter(pa.array(ok))

    def _read_group(self, group: int) -> pa.Table:
        try:
            return restored(self._file.read_row_group(group, columns=self._columns, use_threads=False))
        except (pa.ArrowException, OSError) as error:
            raise StoreCorrupt(f"the label shard of {self.shard!r} does not read as it was written: {error}") from error


def label_bytes(release: Release, shard: str) -> bytes:
    """The label shard as it lies in the store now, proven to be what was written; withdrawn rows may be in it.

    Raises BadShard for a dead shard, StoreCorrupt where the file is gone or damaged.
    """
    entry = release.entry(shard)
    if entry.data is None:
        raise BadShard(entry.reason, f"shard {shard!r} carries no labels: {entry.detail}")
    for look_again in (True, False):
        lying = release.redactions.current(entry.data) or entry.data
        url = release.objects.full_url(lying.path)
        try:
            data = release.objects.get(lying.path)
        except ObjectMissing as error:
            if look_again:
                release.check_recall()  # an erasure may have deleted the file since it was read what stands for what
                continue
            raise StoreCorrupt(f"{url} is gone.") from error
        if sha256(data) != lying.sha256:
            raise StoreCorrupt(f"{url} does not have the sha256 that was written: damaged.")
        return data
    raise AssertionError


def state_of(release: Release, shard: str) -> str:
    """A digest that changes when samples of the shard are withdrawn: what was exported of it before is out of date."""
    withdrawn = release.withdrawn
    return digest([release.entry(shard).outcome, shard in withdrawn.shards, sorted(withdrawn.keys_of(shard))])


def withdrawn_rows(reasons: dict[str, int]) -> int:
    return reasons.get(Reason.WITHDRAWN, 0)
