"""Writing: labelled parts into the store, and a shard whose parts are all there into one label shard and its receipt.

A shard that is one part is written at once. A longer one leaves content-addressed parts, which `merge_shard` joins;
row groups are cut by row index, so the label shard's bytes do not depend on how the parts were cut. Parts are plain
Arrow, for they live for minutes: compressed ones cost more than half of what writing costs.
"""

import contextlib
import dataclasses
import json
import re
import uuid
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from relabel.digests import Json, canonical_json, sha256
from relabel.errors import ObjectMissing, StorageError, StoreCorrupt
from relabel.labels.shard_file import (
    column_values,
    encode_label_shard,
    label_schema,
    label_table,
)
from relabel.reasons import Status
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.records import from_json, to_json
from relabel.releases.stored import Stored, stored
from relabel.releases.summaries import shard_summary
from relabel.storage.objects import ObjectStore

from .again import compare_again
from .job import Job, Part
from .kept_rows import letter_lines, with_attempts, with_kept_rows
from .parts import Header, contents, from_ipc, rows_digest, to_ipc
from .stages import WORK, Report, Stages, plus

NUMERICS_KEY = b"relabel_numerics"
ROW_COLUMNS = ("key", "sample_digest", "status", "reason")


@dataclasses.dataclass(slots=True)
class Event:
    """What a writer tells the driver of one part; labels stay in the store."""

    header: Header
    part: Part | None = None
    """Written, and waiting for the shard's other parts."""
    receipt: Receipt | None = None
    """The shard is finished: its receipt."""
    dead: int = 0
    """Dead rows of the part."""

    def to_json(self) -> str:
        part = None if self.part is None else to_json(self.part)
        receipt = None if self.receipt is None else to_json(self.receipt)
        return json.dumps({"header": self.header.to_json(), "receipt": receipt, "part": part, "dead": self.dead})

    @classmethod
    def from_json(cls, text: str) -> "Event":
        fields = json.loads(text)
        part = None if fields["part"] is None else Part(**fields["part"])
        receipt = None if fields["receipt"] is None else from_json(Receipt, fields["receipt"], "event")
        return cls(Header.from_json(fields["header"]), part, receipt, fields["dead"])


def write_parts(parts: pa.Table, job: Job, stages: Stages) -> pa.Table:
    """A block of labelled parts in, one event per part out; `stages` are the thread's."""
    store = job.open_store()
    events = [write_part(job, store, parts.slice(row, 1), stages).to_json() for row in range(len(parts))]
    return pa.table({"event": pa.array(events, pa.string())})


def write_part(job: Job, store: ObjectStore, part: pa.Table, stages: Stages | None = None) -> Event:
    stages = stages or Stages("writer", "idle")
    with stages.in_("encode"):
        event = written(job, store, part, stages)
    event.header.usage.append(stages.take())
    return event


def written(job: Job, store: ObjectStore, part: pa.Table, stages: Stages) -> Event:
    header = Header.from_json(part["header"][0].as_py())
    event = Event(header)
    if header.again is not None:
        compare_again(job, store, header, part_labels(job, part))
    elif header.problem is not None and header.previous is not None:
        event.receipt = from_json(Receipt, header.previous, "event")  # a replay takes no labels away
    elif header.problem is not None:
        event.receipt = finish_dead(job, store, header)
    elif header.whole or header.rows:
        labels = part_labels(job, part)
        event.dead = pc.sum(pc.equal(labels["status"], str(Status.DEAD))).as_py() or 0
        if header.whole:
            event.receipt = finish_shard(job, store, header, labels, [header.numerics], stages)
        else:
            event.part = put_part(job, store, header, labels, stages)
    return event


def part_labels(job: Job, part: pa.Table) -> pa.Table:
    """The part's rows with their label columns (null where a row is not ok) and `detail`."""
    rows = from_ipc(contents(part["rows"]))
    prepared = rows.filter(rows["prepared"])
    alive = pc.equal(prepared["status"], str(Status.OK))
    labels = {}
    for labeler in job.labelers:
        columns = from_ipc(contents(part[f"labels_{labeler.label}"])).filter(alive)
        labels.update({column.name: column_values(columns, column) for column in labeler.writes().columns})
    keys, digests, statuses, reasons = (rows[name].to_pylist() for name in ROW_COLUMNS)
    table = label_table(job_schema(job), keys, digests, statuses, reasons, labels)
    return table.append_column("detail", rows["detail"])


def job_schema(job: Job) -> pa.Schema:
    return label_schema([labeler.writes() for labeler in job.labelers], job.label_fingerprints)


def put_part(job: Job, store: ObjectStore, header: Header, table: pa.Table, stages: Stages | None = None) -> Part:
    metadata = {**(table.schema.metadata or {}), NUMERICS_KEY: canonical_json(header.numerics)}
    data = to_ipc(table.replace_schema_metadata(metadata).combine_chunks()).to_pybytes()
    folder = job.part_folder(header.token, header.generation, header.replay)
    path = f"{folder}/{header.start:010d}-{header.rows}-{sha256(data)[:32]}.arrow"
    with stages.in_("write") if stages else contextlib.nullcontext():
        store.put(path, data)
    return Part(header.start, header.rows, path)


def merge_and_tell(job: Job, end: Header, parts: Sequence[Part]) -> tuple[Receipt, list[Report]]:
    """As `merge_shard`, and where the time of the task went."""
    stages = Stages("writer", "encode")
    told = len(end.usage)
    receipt = merge_shard(job, end, parts, stages)
    return receipt, [*end.usage[told:], stages.take()]


def merge_shard(job: Job, end: Header, parts: Sequence[Part], stages: Stages | None = None) -> Receipt:
    """Joins a shard's parts, in row order, into its label shard; returns the receipt that counts.

    Parts are deleted only after a receipt: where one is gone, another run (or a killed run's last task) was faster.
    """
    store, stages = job.open_store(), stages or Stages("writer", "encode")
    try:
        tables = [read_part(store, part) for part in parts]
    except ObjectMissing:
        receipt = Receipts(store, job.fingerprint).find(end.token, end.generation)
        if receipt is None:
            raise
        return receipt
    whole = pa.concat_tables(tables)
    if rows_digest(whole["key"].to_pylist(), whole["sample_digest"].to_pylist()) != end.rows_sha256:
        for part in parts:
            store.delete(part.path)
        raise StorageError(
            f"the parts of {end.shard} hold labels of other bytes (the shard changed behind an unchanged size and "
            "time). They were removed; run again."
        )
    numerics = [json.loads(table.schema.metadata[NUMERICS_KEY]) for table in tables]
    receipt = finish_shard(job, store, end, whole, numerics, stages)
    with stages.in_("write"):
        for part in parts:
            store.delete(part.path)
    return receipt


def read_part(store: ObjectStore, part: Part) -> pa.Table:
    data = store.get(part.path)
    if sha256(data)[:32] != part.path.rsplit("-", 1)[1].removesuffix(".arrow"):
        store.delete(part.path)
        raise StoreCorrupt(f"{store.full_url(part.path)} was damaged. It was removed; run again.")
    return from_ipc(pa.py_buffer(data))


def finish_shard(
    job: Job, store: ObjectStore, end: Header, table: pa.Table, numerics: Sequence[Json], stages: Stages
) -> Receipt:
    """Writes the label shard and its dead letters under names of their own, then the receipt, first wins."""
    table = with_attempts(table)
    if end.previous is not None:
        previous = from_json(Receipt, end.previous, "header")
        table = with_kept_rows(store, previous, end, table)
        numerics = [*numerics, previous.numerics]
    attempt = uuid.uuid4().hex
    name = f"data/{job.run_id}/{slug(end.shard)}-{attempt[:12]}"
    labels = table.drop_columns(["detail", "attempts"])
    data = encode_label_shard(labels.replace_schema_metadata(job_schema(job).metadata))
    dead = letter_lines(table)
    statuses = Counter(table["status"].to_pylist())
    with stages.in_("write"):
        stored_data = put(store, f"{name}.parquet", data)
        stored_letters = put(store, f"{name}.dead.jsonl", dead) if dead else None
    summary = shard_summary([labeler.writes() for labeler in job.labelers], labels)
    receipt = Receipt(
        **shard_fields(job, end, attempt),
        content_sha256=end.content_sha256,
        status="ok",
        reason="",
        detail="",
        rows=len(table),
        ok=statuses[Status.OK],
        dead=statuses[Status.DEAD],
        filtered=statuses[Status.FILTERED],
        reasons=dict(sorted(Counter(reason for reason in table["reason"].to_pylist() if reason).items())),
        keys_sha256=keys_digest(table["key"].to_pylist()),
        data=stored_data,
        dead_letters=stored_letters,
        numerics=mix(numerics),
        summary=summary,
        usage=usage_text(end, stages),
    )
    with stages.in_("commit"):
        return Receipts(store, job.fingerprint).finish(receipt)


def usage_text(end: Header, stages: Stages) -> str:
    """What work on a shard took so far, its waiting aside, for its receipt."""
    end.usage.append(stages.take())
    work: dict[str, tuple[float, float]] = {}
    for report in end.usage:
        work = plus(work, {stage: each for stage, each in report.seconds.items() if stage in WORK})
    return canonical_json({stage: [round(each, 3) for each in pair] for stage, pair in work.items()}).decode()


def finish_dead(job: Job, store: ObjectStore, end: Header) -> Receipt:
    """The receipt of a shard that cannot be read: no label shard, but a reason; tried again when its bytes change."""
    assert end.problem is not None
    reason, detail = end.problem
    receipt = Receipt(
        **shard_fields(job, end, uuid.uuid4().hex),
        content_sha256="",
        status="dead",
        reason=reason,
        detail=detail,
        rows=0,
        ok=0,
        dead=0,
        filtered=0,
        reasons={},
        keys_sha256="",
        data=None,
        dead_letters=None,
        numerics={},
        usage=usage_text(end, Stages("writer", "commit")),
    )
    return Receipts(store, job.fingerprint).finish(receipt)


def shard_fields(job: Job, end: Header, attempt: str) -> dict[str, Json]:
    return {
        "shard": end.shard,
        "size": end.size,
        "etag": end.etag,
        "token": end.token,
        "generation": end.generation,
        "fingerprint": job.fingerprint,
        "run_id": job.run_id,
        "attempt": attempt,
    }


def put(store: ObjectStore, path: str, data: bytes) -> Stored:
    store.put(path, data)
    return stored(path, data)


def mix(numerics: Sequence[Json]) -> Json:
    """The numerics of a shard: one set, or a list where rows were computed differently (a resumed run, a replay)."""
    single = [each for one in numerics for each in one.get("mixed", [one])]
    distinct = {canonical_json(one): one for one in single if one}
    ordered = [distinct[key] for key in sorted(distinct)]
    return ordered[0] if len(ordered) == 1 else {"mixed": ordered} if ordered else {}


def slug(name: str) -> str:
    """A file name that reminds of a shard's name; never decides anything."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:].lstrip("._") or "shard"
