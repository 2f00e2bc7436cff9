"""Kept rows: what a replay leaves as it is, taken from the former label shard; and the dead letters of both.

The label shard of a replay is, byte for byte, the one that labelling all of its rows gives under equal numerics.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relabel.digests import canonical_json
from relabel.errors import Refused
from relabel.labels.shard_file import decode_label_shard
from relabel.reasons import Reason, Status
from relabel.releases.receipts import Receipt
from relabel.releases.stored import get_checked
from relabel.storage.objects import ObjectStore

from .ledger import DEATHS_ALONE
from .parts import KEPT, Header, rows_digest

ENDED_PROCESSES = (Reason.PROCESS_DIED, Reason.TIMED_OUT, Reason.DEVICE_FAILED)


def attempts_of(reason: str) -> int:
    """How often a sample was tried before it got this reason; in how many processes, where it ended them."""
    return DEATHS_ALONE if reason in ENDED_PROCESSES else 1


def with_attempts(table: pa.Table) -> pa.Table:
    """Rows with `attempts`, null where they are not dead."""
    pairs = zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
    attempts = [attempts_of(reason) if status == Status.DEAD else None for status, reason in pairs]
    return table.append_column("attempts", pa.array(attempts, pa.int64()))


def letter_lines(table: pa.Table) -> bytes:
    """JSON lines: one per dead row, with row, key, reason, detail and attempts."""
    dead = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    dead = dead.filter(pc.equal(dead["status"], str(Status.DEAD)))
    lines = dead.select(["row", "key", "reason", "detail", "attempts"]).to_pylist()
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def with_kept_rows(store: ObjectStore, previous: Receipt, end: Header, table: pa.Table) -> pa.Table:
    """A replay's rows, those that it did not label taken from the former label shard; attempts add up.

    Raises Refused where the source shard's samples are no longer those that were labelled.
    """
    former = former_rows(store, previous, table.schema)
    if rows_digest(former["key"].to_pylist(), former["sample_digest"].to_pylist()) != end.rows_sha256:
        raise Refused(
            f"{end.shard} holds other samples than those that were labelled, behind an unchanged size and time; "
            "nothing of it was replayed. `relabel run RECIPE --check-content` labels it anew."
        )
    before = pc.fill_null(former["attempts"], 0)
    place = table.schema.get_field_index("attempts")
    table = table.set_column(place, "attempts", pc.add(table["attempts"], before))
    stays = pc.fill_null(pc.equal(table["reason"], KEPT), False).to_numpy()
    rows = np.arange(len(table)) + np.where(stays, len(table), 0)
    return pa.concat_tables([table, former]).take(pa.array(rows))


def former_rows(store: ObjectStore, previous: Receipt, schema: pa.Schema) -> pa.Table:
    """The former label shard with the detail and attempts of its dead rows, in the columns of `schema`."""
    assert previous.data is not None
    labels = decode_label_shard(get_checked(store, previous.data))
    letters = [] if previous.dead_letters is None else get_checked(store, previous.dead_letters).splitlines()
    by_row = {letter["row"]: letter for letter in map(json.loads, letters)}
    rows = [by_row.get(row, {}) for row in range(len(labels))]
    more = {
        "detail": pa.array([row.get("detail") for row in rows], pa.string()),
        # Written before attempts were counted: it was tried once at least.
        "attempts": pa.array([row.get("attempts", 1) if row else None for row in rows], pa.int64()),
    }
    columns = [more[name] if name in more else labels[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)
