"""Parts: what travels through the graph: a run of consecutive rows of one shard, judged and prepared, as one table row.

What Ray does to blocks cannot mix a part with another.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from relabel.digests import Json, sample_digest, sha256
from relabel.errors import BadSample
from relabel.labelers.engines.spending import Spent
from relabel.labelers.labeler import KEY, Prepared
from relabel.labelers.packing import check_prepared, pack
from relabel.labels.contract import LabelContract
from relabel.reasons import Reason, Status
from relabel.shards.shard import Sample
from relabel.shards.source import has, pick

from .dead_letters import attempt
from .job import Job, own_module
from .stages import Report

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


KEPT = "kept"
"""Internal reason of a row that a replay does not label: its label is taken from the former label shard."""

Picked = Mapping[str, bytes | str]
"""One sample's fields by the names that labelers need."""


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
    replay: str = ""
    """`Replay.name`; empty where every row is labelled."""
    previous: Json = None
    """Of a replay: the receipt that names the rows which stay, as JSON."""
    problem: tuple[str, str] | None = None
    """(reason, detail) of a shard that cannot be read to its end."""
    usage: list[Report] = dataclasses.field(default_factory=list)
    """Where the time of the slots that worked on the part went since the part that each worked on before."""
    numerics: Json = dataclasses.field(default_factory=dict)
    """Per label what decided the last bits."""
    spent: dict[str, Spent] = dataclasses.field(default_factory=dict)
    """Per label what its engine used since the part that it labelled before: summed over parts, what it used in all."""

    again: Json = None
    """The receipt that names the labels with which these are compared, as JSON; nothing of the part is written."""
    check: int = 0
    """So many samples of the part are labelled once more, each alone."""
    found: dict[str, list[tuple[str, float]]] = dataclasses.field(default_factory=dict)
    """Per label of samples that were labelled twice: key, and how far both labels agree, in [0, 1]."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Header":
        fields = json.loads(text)
        if fields["problem"] is not None:
            fields["problem"] = tuple(fields["problem"])
        fields["found"] = {label: [(key, value) for key, value in each] for label, each in fields["found"].items()}
        fields["usage"] = [Report(*report) for report in fields["usage"]]
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
    labels: pa.Table | None = None
    """One row: its labels, where the source is a release."""


def row_identity(key: str, digest: bytes | None) -> bytes:
    return f"{key}\n{(digest or b'').hex()}\n".encode()


def rows_digest(keys: Sequence[str], digests: Sequence[bytes | None]) -> str:
    """sha256 over keys and sample digests in order: equal where two passes over a shard saw the same samples."""
    return sha256(b"".join(map(row_identity, keys, digests)))


def judge(job: Job, sample: Sample, shard: str = "") -> tuple[Row, Picked]:
    """One sample judged by `where` and digested, nothing decoded; and, where ok, the fields that labelers read.

    Of a withdrawn sample nothing but its key is kept.
    """
    if job.withdrawn.holds(shard, sample.key):
        return Row(sample.key, None, Status.FILTERED, Reason.WITHDRAWN, None), {}
    if sample.unlabelled is not None:
        return Row(sample.key, sample.digest, Status.FILTERED, sample.unlabelled, None), {}
    if "__bad_key__" in sample.fields:
        return Row(sample.key, None, Status.DEAD, Reason.BAD_KEY, "the key is not printable UTF-8"), {}
    admitted = attempt(lambda: job.source.where_admits(sample))
    if isinstance(admitted, BadSample):
        return dead(sample.key, None, admitted), {}
    if not admitted:
        return Row(sample.key, None, Status.FILTERED, Reason.WHERE, None), {}
    picked = attempt(lambda: pick_all(job, sample))
    if isinstance(picked, BadSample):
        return dead(sample.key, None, picked), {}
    media = sample.digest
    if media is None:
        media = sample_digest(b"".join(as_bytes(value) for value in picked.values()))
    return Row(sample.key, media, Status.OK, None, None, labels=sample.labels), {**picked, KEY: sample.key}


def as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


def pick_all(job: Job, sample: Sample) -> Picked:
    """The fields that labelers need, and those that they want and the sample has; raises BadSample."""
    needed = {need: pick(job.source, sample, need) for need in job.needs if need != KEY}
    wanted = {want: has(job.source, sample, want) for want in job.wants}
    return {**needed, **{want: value for want, value in wanted.items() if value}}


def prepare_row(job: Job, sample: Sample) -> Row:
    """One sample judged and, where it is ok, prepared for every labeler."""
    return prepare_judged(job, *judge(job, sample))


def prepare_judged(job: Job, row: Row, picked: Picked) -> Row:
    """What `judge` found, prepared for every labeler where it is ok."""
    if row.status is not Status.OK:
        return row
    prepared: list[Prepared] = []
    for labeler in job.labelers:
        fields = {name: picked[name] for name in (*labeler.needs, *labeler.wants) if name in picked}
        one = attempt(functools.partial(labeler.prepare, fields), own_module(labeler))
        if isinstance(one, BadSample):
            return dead(row.key, row.sample_digest, one)
        check_prepared(one)
        prepared.append(one)
    return Row(row.key, row.sample_digest, row.status, None, None, tuple(prepared), row.labels)


def kept(row: Row) -> Row:
    """A row that a replay leaves as it is."""
    return Row(row.key, row.sample_digest, Status.FILTERED, KEPT, None)


def dead(key: str, digest: bytes | None, error: BadSample) -> Row:
    return Row(key, digest, Status.DEAD, error.reason, error.detail)


def part_table(job: Job, header: Header, rows: list[Row]) -> pa.Table:
    """The part as one row: header, the rows' table as Arrow IPC, one packed buffer per label."""
    columns = {
        "header": pa.array([header.to_json()], pa.string()),
        "rows": cell(to_ipc(rows_table(rows))),
    }
    for index, labeler in enumerate(job.labelers):
        columns[f"prepared_{labeler.label}"] = cell(pack([row.prepared[index] for row in rows if row.prepared]))
    for name, contract in job.source_labels.items():
        columns[f"labels_{name}"] = cell(to_ipc(labels_table(contract, [row for row in rows if row.prepared])))
    return pa.table(columns)


def labels_table(contract: LabelContract, rows: Sequence[Row]) -> pa.Table:
    """The columns of one label that the rows brought along."""
    names = [column.name for column in contract.columns]
    found = [row.labels.select(names) for row in rows if row.labels is not None]
    table = pa.concat_tables(found).combine_chunks() if found else empty_columns(contract)
    return table.replace_schema_metadata(None)


def empty_columns(contract: LabelContract) -> pa.Table:
    """The columns of a label, without rows."""
    return pa.table({column.name: pa.array([], column.arrow_type()) for column in contract.columns})


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
