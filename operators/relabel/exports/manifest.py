"""Manifest: what an export holds, file by file with its sha256, and which shards of one that goes on are finished.

`export.json` is written last: an export without it is not finished. Until then `.export/` says what was begun and holds
a record per finished shard. All are sealed and bear no time, so that two exports of one release are equal bytes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..digests import Json, digest, seal, unseal
from ..errors import ObjectMissing, Refused, StoreCorrupt, UsageError
from ..labels.contract import Declaration
from ..releases.release import Release
from ..releases.stored import Stored, found_sizes, in_threads
from ..storage.objects import ObjectStore, settle
from .layout import Layout

FORMAT = 1
MANIFEST = "export.json"
JOURNAL = ".export"
PLAN = f"{JOURNAL}/plan.json"


class Plan(Declaration):
    """What an export is of; one that goes on must have an equal one."""

    version: int = FORMAT
    """Of the manifest's own format."""
    store: str
    """The store's uuid."""
    release: int
    content_digest: str
    layout: Layout

    def difference(self, other: "Plan") -> str:
        """What sets another plan apart; "" where it is equal."""
        mine, its = ({**fields, **fields.pop("layout")} for fields in (self.model_dump(), other.model_dump()))
        apart = (name for name in mine if mine[name] != its[name])
        return next((f"{name} is {shown(mine[name])}, not {shown(its[name])}" for name in apart), "")


class Record(Declaration):
    """One shard's part of an export."""

    shard: str
    state: str
    """See `rows.state_of`: where it differs, samples were withdrawn since."""
    files: tuple[Stored, ...]
    samples: int
    left_out: dict[str, int]
    extra: int


class Manifest(Declaration):
    """A finished export."""

    plan: Plan
    labels: dict[str, Any]
    """Name -> fingerprint and class names of every label in it."""
    members: dict[str, Any]
    """WebDataset: member -> dtype, axes and shape of the arrays."""
    shards: tuple[Record, ...]
    others: tuple[Stored, ...]
    """Files that belong to no shard: the readme, the log of a table."""

    @property
    def files(self) -> list[Stored]:
        return [*(file for record in self.shards for file in record.files), *self.others]


@dataclasses.dataclass(frozen=True)
class Begun:
    """What lies in a folder already."""

    records: Mapping[str, Record]
    """Shard -> its record, where its files are there at the size that was written."""
    manifest: Manifest | None


def shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return (
            ", ".join(str(each.get("name", each)) if isinstance(each, dict) else str(each) for each in value) or "none"
        )
    return str(value)


def begin(out: ObjectStore, plan: Plan) -> Begun:
    """Claim a folder for an export, or find out how far it is.

    Raises UsageError where something else lies there, Refused where another export does.
    """
    found = read_manifest(out)
    if found is None and read_plan(out) is None:
        if (stranger := next(out.names(""), None)) is not None:
            raise UsageError(
                f"{out.url} is not empty ({stranger}) and holds no export that could go on; give a folder of its own."
            )
        settle(out, PLAN, seal(plan.model_dump(mode="json")))
    held = found.plan if found is not None else read_plan(out)
    assert held is not None
    if what := held.difference(plan):
        raise Refused(f"{out.url} holds another export: its {what}. Give another folder, or the same options to go on.")
    records = {record.shard: record for record in [*(found.shards if found else ()), *read_records(out)]}
    sizes = found_sizes(out, {file.path: file.size_bytes for record in records.values() for file in record.files})
    whole = {
        shard: record
        for shard, record in records.items()
        if all(sizes.get(file.path) == file.size_bytes for file in record.files)
    }
    return Begun(whole, found)


def read_manifest(out: ObjectStore) -> Manifest | None:
    """None where there is none; raises StoreCorrupt where it is damaged, Refused where it is of a newer relabel."""
    fields = fields_of(out, MANIFEST)
    return None if fields is None else parse(Manifest, fields, out.full_url(MANIFEST), fields.get("plan", {}))


def read_plan(out: ObjectStore) -> Plan | None:
    fields = fields_of(out, PLAN)
    return None if fields is None else parse(Plan, fields, out.full_url(PLAN), fields)


def fields_of(out: ObjectStore, path: str) -> dict[str, Json] | None:
    try:
        return unseal(out.get(path), out.full_url(path))
    except ObjectMissing:
        return None


def parse(kind: Any, fields: Mapping[str, Json], url: str, stated: Mapping[str, Json]) -> Any:
    if stated.get("version", FORMAT) > FORMAT:
        raise Refused(f"{url} is of format {stated['version']}, known up to {FORMAT}. Upgrade relabel.")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise StoreCorrupt(f"{url} is sealed but is no {kind.__name__.lower()} of an export: {error}") from error


def record_path(shard: str) -> str:
    return f"{JOURNAL}/shards/{digest(shard)[:32]}.json"


def read_records(out: ObjectStore) -> list[Record]:
    paths = list(out.names(f"{JOURNAL}/shards"))
    found = in_threads(lambda path: fields_of(out, path), paths)
    pairs = zip(paths, found, strict=True)
    return [parse(Record, fields, out.full_url(path), {}) for path, fields in pairs if fields is not None]


def write_record(out: ObjectStore, record: Record) -> None:
    out.put(record_path(record.shard), seal(record.model_dump(mode="json")))


def finish(out: ObjectStore, manifest: Manifest) -> None:
    """Publish the manifest; the journal has done its work."""
    out.put(MANIFEST, seal(manifest.model_dump(mode="json")))
    for path in list(out.names(JOURNAL)):
        out.delete(path)


def named_labels(release: Release, layout: Layout) -> dict[str, Json]:
    held = {contract.name: release.version.labels[contract.name] for contract in layout.labels}
    return {
        name: {"fingerprint": label.fingerprint, "class_names": list(label.class_names)} for name, label in held.items()
    }


def all_files(records: Sequence[Record]) -> list[Stored]:
    return [file for record in records for file in record.files]
