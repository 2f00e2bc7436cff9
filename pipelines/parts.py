"""Parts: one shard's samples read, checked and prepared on a CPU, cut into runs of consecutive rows.

A part's boundaries are row numbers (0, part_rows, 2 part_rows, ...), never bytes or time, so that a resumed run finds
the parts of a former one. Each part travels through the graph as one row of one table; what Ray does to blocks cannot
mix it with another.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from relabel.digests import Json, sample_digest, sha256
from relabel.errors import BadSample, BadShard, RelabelError
from relabel.labelers.labeler import Prepared
from relabel.labelers.packing import pack
from relabel.reasons import Reason, Status
from relabel.shards.shard import Sample, ShardReading
from relabel.shards.source import open_source, pick

from .dead_letters import DETAIL_CHARACTERS, attempt
from .job import Job, ShardTask

ROWS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("sample_digest", pa.binary(16)),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("prepared", pa.bool_()),
    ]
)
"""One row per sample of a part. `detail` goes to the dead-letter file; the rows that are `prepared` are, in order, the
rows of the packed buffers and of the label cells, whatever became of them later."""


@dataclasses.dataclass(slots=True)
class Header:
    """What a part says of itself; JSON in the part's `header` cell."""

    shard: str
    size: int
    etag: str
    token: str
    generation: int
    start: int = 0
    rows: int = 0
    last: bool = False
    """True on exactly one part of a shard: `total_rows` and the digests are then known."""
    total_rows: int = 0
    content_sha256: str = ""
    rows_sha256: str = ""
    """Of the keys and sample digests of all rows, also of those whose parts were there already (see `rows_digest`)."""
    problem: tuple[str, str] | None = None
    """(reason, detail) of a shard that cannot be read to its end."""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """CPU-side time spent on the part by stage: read, prepare, infer, write."""
    numerics: Json = dataclasses.field(default_factory=dict)
    """Per label what decided the last bits."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Header":
        fields = json.loads(text)
        if fields["problem"] is not None:
            fields["problem"] = tuple(fields["problem"])
        return cls(**fields)

    @property
    def whole(self) -> bool:
        """The part is the entire shard."""
        return self.last and self.start == 0 and self.rows == self.total_rows


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One sample of a part: ready for the models, or with the reason why not."""

    key: str
    sample_digest: bytes | None
    status: Status
    reason: str | None
    detail: str | None
    prepared: tuple[Prepared, ...] = ()
    """Per labeler; empty where the status is not ok."""


def read_parts(job: Job, task: ShardTask) -> Iterator[pa.Table]:
    """Every part of a shard that is still to be labelled, each a table of one row; the last one says so.

    A shard that cannot be read to its end yields one last part that carries the problem.
    """
    shard = task.shard
    part_rows = job.recipe.resources.part_rows
    reading = open_source(job.source).read(shard)
    rows: list[Row] = []
    count = 0
    identity = hashlib.sha256()
    clock = Clock()
    header = Header(shard.name, shard.size, shard.etag, shard.token, task.generation)

    def cut() -> pa.Table:
        """The rows so far as a part."""
        header.rows, header.seconds = len(rows), clock.take()
        return part_table(job, header, rows)

    try:
        for sample in well_formed(reading):
            clock.lap("read")
            if count and count % part_rows == 0:
                if header.start not in task.finished_parts:
                    yield cut()
                    clock.restart()  # the time since then was the consumer's
                rows, header.start = [], count
            if header.start in task.finished_parts:
                row = judge(job, sample)[0]
            else:
                row = prepare_row(job, sample)
                rows.append(row)
            identity.update(row_identity(row.key, row.sample_digest))
            count += 1
            clock.lap("prepare")
        clock.lap("read")
        header.total_rows, header.content_sha256 = count, reading.content_sha256
        header.rows_sha256 = identity.hexdigest()
    except BadShard as error:
        rows = []
        header.problem = (error.reason, error.detail)
    header.last = True
    yield cut()


def well_formed(reading: ShardReading) -> Iterator[Sample]:
    """The samples; whatever a parser stumbles over beyond what it foresees is the shard's fault, never the run's."""
    try:
        yield from reading
    except RelabelError:
        raise
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise BadShard(Reason.CORRUPT_SHARD, f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]) from error


def row_identity(key: str, digest: bytes | None) -> bytes:
    return f"{key}\n{(digest or b'').hex()}\n".encode()


def rows_digest(keys: Sequence[str], digests: Sequence[bytes | None]) -> str:
    """sha256 over keys and sample digests in order: equal where two passes over a shard saw the same samples."""
    return sha256(b"".join(map(row_identity, keys, digests)))


def judge(job: Job, sample: Sample) -> tuple[Row, Mapping[str, bytes | str]]:
    """One sample judged by `where` and digested, nothing decoded; and, where ok, the fields that labelers read."""
    if "__bad_key__" in sample.fields:
        return Row(sample.key, None, Status.DEAD, Reason.BAD_KEY, "the key is not printable UTF-8"), {}
    admitted = attempt(lambda: job.source.where_admits(sample))
    if isinstance(admitted, BadSample):
        return _dead(sample.key, None, admitted), {}
    if not admitted:
        return Row(sample.key, None, Status.FILTERED, Reason.WHERE, None), {}
    picked = attempt(lambda: {need: pick(job.source, sample, need) for need in job.needs})
    if isinstance(picked, BadSample):
        return _dead(sample.key, None, picked), {}
    media = b"".join(value.encode() if isinstance(value, str) else value for value in picked.values())
    return Row(sample.key, sample_digest(media), Status.OK, None, None), picked


def prepare_row(job: Job, sample: Sample) -> Row:
    """One sample judged and, where it is ok, prepared for every labeler."""
    row, picked = judge(job, sample)
    if row.status is not Status.OK:
        return row
    prepared: list[Prepared] = []
    for labeler in job.labelers:
        fields = {need: picked[need] for need in labeler.needs}
        one = attempt(functools.partial(labeler.prepare, fields))
        if isinstance(one, BadSample):
            return _dead(row.key, row.sample_digest, one)
        prepared.append(one)
    return dataclasses.replace(row, prepared=tuple(prepared))


def _dead(key: str, digest: bytes | None, error: BadSample) -> Row:
    return Row(key, digest, Status.DEAD, error.reason, error.detail)


def part_table(job: Job, header: Header, rows: list[Row]) -> pa.Table:
    """The part as one row: header, the rows' table as Arrow IPC, one packed buffer per label."""
    columns = {
        "header": pa.array([header.to_json()], pa.string()),
        "rows": cell(to_ipc(rows_table(rows))),
    }
    for index, labeler in enumerate(job.labelers):
        columns[f"prepared_{labeler.label}"] = cell(pack([row.prepared[index] for row in rows if row.prepared]))
    return pa.table(columns)


def rows_table(rows: list[Row]) -> pa.Table:
    cells = [
        {
            "key": row.key,
            "sample_digest": row.sample_digest,
            "status": str(row.status),
            "reason": row.reason,
            "detail": row.detail,
            "prepared": row.status is Status.OK,
        }
        for row in rows
    ]
    return pa.Table.from_pylist(cells, ROWS_SCHEMA)


def cell(data: pa.Buffer) -> pa.Array:
    """One binary cell around a buffer, without a copy."""
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def contents(cells: pa.ChunkedArray) -> pa.Buffer:
    """What `cell` was made around, without a copy: a column of one row, wherever it lies in its block."""
    [array] = [chunk for chunk in cells.chunks if len(chunk)]
    _, offsets, data = array.buffers()
    start, stop = np.frombuffer(offsets, np.int64)[array.offset : array.offset + 2]
    return data.slice(start, stop - start)


def to_ipc(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_ipc(data: pa.Buffer) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


class Clock:
    """Seconds by stage since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def restart(self) -> None:
        self._last = time.perf_counter()

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return {stage: round(seconds, 6) for stage, seconds in taken.items()}
