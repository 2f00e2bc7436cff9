"""Delta: the transaction log that makes Parquet files a Delta table, beside copies of labels or in the store itself.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md. Paths are relative: the protocol allows absolute ones, but
neither deltalake's Arrow reader nor Polars follows them.
"""

import dataclasses
import datetime as dt
import json
import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote

import pyarrow as pa

from ..digests import Json
from ..errors import Refused
from ..labels.shard_file import label_schema
from ..releases.release import Release
from ..releases.stored import in_threads
from ..storage.objects import ObjectStore, settle

LOG = "_delta_log"
TYPES = {
    pa.string(): "string", pa.binary(): "binary", pa.large_binary(): "binary", pa.bool_(): "boolean",
    pa.uint8(): "short", pa.int16(): "short", pa.uint16(): "integer", pa.int32(): "integer", pa.int64(): "long",
    pa.float16(): "float", pa.float32(): "float", pa.float64(): "double",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Added:
    """One file of the table."""

    path: str
    """Relative to the table's root."""
    size_bytes: int
    rows: int


def log_path(number: int) -> str:
    return f"{LOG}/{number:020d}.json"


def actions(release: Release, schema: pa.Schema, files: Sequence[Added]) -> list[Json]:
    """Of the first entry of a log."""
    moment = milliseconds(release)
    return [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": metadata(release, schema)},
        *(add(file, moment) for file in files),
        commit_info(release),
    ]


def metadata(release: Release, schema: pa.Schema) -> Json:
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, release.content_digest)),
        "name": str((release.recipe or {}).get("name", "labels")),
        "description": f"Release {release.number} of a label store, content {release.content_digest}",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": [field(each) for each in schema]}),
        "partitionColumns": [],
        "configuration": {},
        "createdTime": milliseconds(release),
    }


def add(file: Added, moment: int) -> Json:
    stats = json.dumps({"numRecords": file.rows})
    return {"add": {"path": quote(file.path), "partitionValues": {}, "size": file.size_bytes,
                    "modificationTime": moment, "dataChange": True, "stats": stats}}  # fmt: skip


def commit_info(release: Release) -> Json:
    told = {"relabelRelease": release.number, "relabelContentDigest": release.content_digest}
    return {"commitInfo": {"timestamp": milliseconds(release), "operation": "WRITE", "operationParameters": {}, **told}}


def milliseconds(release: Release) -> int:
    """When the release was published, since the epoch: the log of a release is the same whenever it is written."""
    return int(dt.datetime.fromisoformat(release.version.created).timestamp() * 1000)


def field(arrow: pa.Field) -> Json:
    return {"name": arrow.name, "type": delta_type(arrow.type), "nullable": True, "metadata": {}}


def delta_type(kind: pa.DataType) -> Json:
    """Unsigned integers become the next larger signed ones, halves floats: readers cast what they find."""
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": delta_type(kind.value_type), "containsNull": True}
    return TYPES[pa.binary() if pa.types.is_fixed_size_binary(kind) else kind]


def encode(lines: Sequence[Json]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def log_in_store(release: Release) -> tuple[int, bool]:
    """Make the store's folder a Delta table that holds this release: its label shards as they lie, without a copy.

    Returns the table's version, and whether this call wrote it; versions of it that hold other releases stay. All rows
    are in it, with `status` and `reason`; arrays lie as label shards have them. Raises Refused where files hold
    withdrawn rows.
    """
    store = release.objects
    release.files()  # raises where withdrawn rows lie in them
    lying = {entry.shard: (entry, release.redactions.current(entry.data) or entry.data)
             for entry in release.entries.values() if entry.data is not None}  # fmt: skip
    wanted = {now.path: Added(now.path, now.size_bytes, entry.rows) for entry, now in lying.values()}
    schema = label_schema(list(release.labels.values()), release.version.fingerprints)
    while True:
        active, number, held = read_log(store)
        if number >= 0 and held == release.number and active.keys() == wanted.keys():
            return number, False
        data = encode(next_entry(release, schema, wanted, active, number))
        if settle(store, log_path(number + 1), data) == data:
            return number + 1, True


def next_entry(
    release: Release, schema: pa.Schema, wanted: Mapping[str, Added], active: Mapping[str, int], number: int
) -> list[Json]:
    """What turns the table from what it holds to this release."""
    fresh = [file for path, file in sorted(wanted.items()) if path not in active]
    if number < 0:
        return actions(release, schema, fresh)
    moment = milliseconds(release)
    gone = [{"remove": {"path": quote(path), "deletionTimestamp": moment, "dataChange": True, "size": size}}
            for path, size in sorted(active.items()) if path not in wanted]  # fmt: skip
    return [
        {"metaData": metadata(release, schema)},
        *gone,
        *(add(file, moment) for file in fresh),
        commit_info(release),
    ]


def read_log(store: ObjectStore) -> tuple[dict[str, int], int, int]:
    """Active path -> size, the newest version (-1 where there is none), and which release that is."""
    names = [path for path in store.names(LOG) if path.endswith(".json")]
    others = [path for path in store.names(LOG) if not path.endswith(".json")]
    if names != [log_path(number) for number in range(len(names))] or others:
        raise Refused(
            f"{store.full_url(LOG)} holds a log that relabel did not write alone ({(others or names)[0]}). Export the "
            "table to another folder."
        )
    active: dict[str, int] = {}
    release = 0
    for data in in_threads(store.get, names):
        for line in data.splitlines():
            action = json.loads(line)
            if "add" in action:
                active[unquote(action["add"]["path"])] = action["add"]["size"]
            elif "remove" in action:
                active.pop(unquote(action["remove"]["path"]), None)
            elif "commitInfo" in action:
                release = int(action["commitInfo"].get("relabelRelease", 0))
    return active, len(names) - 1, release
