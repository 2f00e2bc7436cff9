"""Contents: whether a label shard holds what its release says, from its footer or down to the last value."""

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import Refused, StoreCorrupt
from ..labels import caption, label_map, mask, pseudo
from ..labels.contract import LabelContract
from ..labels.shard_file import contracts_of, decode_label_shard, header
from ..reasons import Reason, Status
from ..storage.objects import ObjectStore
from .receipts import keys_digest
from .segments import Entry
from .stored import Stored, get_checked
from .summaries import shard_summary
from .versions import Version

VALUE_CHECKS: dict[str, Callable[[LabelContract, pa.Table], list[str]]] = {
    "caption": caption.check_column,
    "classes": pseudo.check_column,
    "label_map": label_map.check_column,
    "mask": mask.check_column,
}


def check_label_shard(store: ObjectStore, version: Version, entry: Entry, full: bool) -> list[str]:
    """What is wrong with a label shard: its bytes and its footer; with `full`, also every value."""
    assert entry.data is not None
    try:
        data = get_checked(store, entry.data)
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            found = check_footer(file.schema_arrow, file.metadata.num_rows, version, entry)
        if found or not full:
            return found
        return check_table(decode_label_shard(data), version, entry)
    except (StoreCorrupt, Refused) as error:
        return [str(error)]
    except (pa.ArrowException, OSError) as error:
        return [f"does not read as Parquet: {error}"]


def check_footer(schema: pa.Schema, num_rows: int, version: Version, entry: Entry) -> list[str]:
    found = []
    if num_rows != entry.rows:
        found.append(f"holds {num_rows} rows; {entry.rows} were written")
    if header(schema)["fingerprints"] != version.fingerprints:
        found.append("its fingerprints are not the release's")
    if contracts_of(schema) != {name: label.contract for name, label in version.labels.items()}:
        found.append("its label contracts are not the release's")
    return found


def check_table(table: pa.Table, version: Version, entry: Entry) -> list[str]:
    """Keys, states and values of all rows."""
    found = check_rows(table, entry)
    for label in version.labels.values():
        check = VALUE_CHECKS.get(label.contract.kind)
        found += check(label.contract, table) if check else []
    contracts = [label.contract for label in version.labels.values()]
    if entry.summary and shard_summary(contracts, table) != entry.summary:
        found.append("its summary is not that of its rows")
    return found


def check_rows(table: pa.Table, entry: Entry) -> list[str]:
    found = []
    keys = table["key"].to_pylist()
    if keys_digest(keys) != entry.keys_sha256:
        found.append("its keys are not those that were written")
    if len(set(keys)) != len(keys):
        found.append("a key occurs twice")
    counts = {each["values"]: each["counts"] for each in pc.value_counts(table["status"]).to_pylist()}
    written = {"ok": entry.ok, "dead": entry.dead, "filtered": entry.filtered}
    if counts != {status: rows for status, rows in written.items() if rows}:
        found.append(f"its rows have status {counts}; {written} were written")
    return found + check_reasons(table, entry)


def check_reasons(table: pa.Table, entry: Entry) -> list[str]:
    """A reason where a row is not ok and only there, from the known codes, as often as the entry says."""
    found = []
    labelled, unexplained = pc.equal(table["status"], str(Status.OK)), pc.is_null(table["reason"])
    if not pc.all(pc.equal(labelled, unexplained), min_count=0).as_py():
        found.append("a reason must stand exactly where the status is not ok")
    codes = {each["values"]: each["counts"] for each in pc.value_counts(table["reason"].drop_null()).to_pylist()}
    if codes != dict(entry.reasons):
        found.append(f"its rows have reasons {codes}; {dict(entry.reasons)} were written")
    unknown = sorted(set(codes) - set(Reason))
    return found + ([f"holds unknown reasons: {', '.join(unknown)}"] if unknown else [])


def check_dead_letters(store: ObjectStore, letters: Stored) -> list[str]:
    """What is wrong with a dead-letter file: its bytes, and that each line is one row's JSON."""
    try:
        lines = get_checked(store, letters).splitlines()
        if not all(isinstance(json.loads(line), dict) for line in lines):
            return ["holds a line that is not a JSON object"]
    except (StoreCorrupt, ValueError) as error:
        return [str(error)]
    return []
