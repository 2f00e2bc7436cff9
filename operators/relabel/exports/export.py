"""Export: a release written out shard by shard, so that it needs no relabel to be read; goes on where it was killed.

A shard is held in memory a row group at a time and written to disk or, by way of disk, to an object store. A finished
shard is never written again, unless samples of it were withdrawn since.
"""

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..digests import sha256
from ..errors import Refused, UsageError
from ..releases.readme import readme
from ..releases.release import Release
from ..releases.stored import Stored, in_threads, stored
from ..releases.versions import read_marker
from ..shards.stream import open_stream
from ..storage.objects import ObjectStore
from . import delta, json_lines, tables, tar_file
from .join import Chunk, Tally, labels_alone, with_media
from .layout import Layout, file_names
from .manifest import (
    JOURNAL,
    MANIFEST,
    Begun,
    Manifest,
    Plan,
    Record,
    all_files,
    begin,
    finish,
    named_labels,
    read_manifest,
    write_record,
)
from .media import Media
from .rows import LabelRows, state_of

NUM_READERS = 4
"""Files that `check` reads at a time."""
Done = Callable[[int, int], None]
"""Told after each shard: how many are finished, of how many."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export holds, and how much of it this call wrote."""

    manifest: Manifest
    written: int
    """Shards that were written by this call."""
    dead_shards: int
    """Shards that could not be labelled, and so are in no file."""

    @property
    def samples(self) -> int:
        return sum(record.samples for record in self.manifest.shards)

    @property
    def left_out(self) -> dict[str, int]:
        """Why -> rows that are not exported."""
        found: dict[str, int] = {}
        for record in self.manifest.shards:
            for why, rows in record.left_out.items():
                found[why] = found.get(why, 0) + rows
        return dict(sorted(found.items()))

    @property
    def extra(self) -> int:
        """Samples of the source of which the release knows nothing."""
        return sum(record.extra for record in self.manifest.shards)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files)


def export(
    release: Release, out: ObjectStore, layout: Layout, source: str | None = None, done: Done | None = None
) -> Exported:
    """Write a release to `out`, or go on with that. `source`: where the media lie, if not where they lay.

    Raises UsageError where something else lies at `out`, or the store around it; Refused where another export does,
    where media are missing or are not what was labelled, and where nothing would be exported.
    """
    if f"{out.url}/".startswith(f"{release.objects.url}/"):
        raise UsageError(f"{out.url} lies in the store itself; give a folder outside, where nothing is collected.")
    media = Media(release, source) if layout.media else None
    entries = release.entries
    shards = [name for name, entry in entries.items() if entry.data is not None]
    if media is not None and layout.on_missing == "error":
        refuse_missing(shards, media)
    plan = Plan(
        store=str(read_marker(release.objects)["uuid"]),
        release=release.number,
        content_digest=release.content_digest,
        layout=layout,
    )
    begun = begin(out, plan)
    out.sweep()
    paths = file_names(shards, layout)
    records, written = [], 0
    for number, shard in enumerate(shards, start=1):
        record = begun.records.get(shard)
        if record is None or record.state != state_of(release, shard):
            record = write_shard(release, out, layout, media, shard, paths[shard])
            write_record(out, record)
            written += 1
        records.append(record)
        if done is not None:
            done(number, len(shards))
    if not any(record.samples for record in records):
        raise Refused(f"release {release.number} has no labelled sample to export; nothing was written but {out.url}.")
    manifest = close(release, out, plan, records, begun)
    return Exported(manifest, written, len(entries) - len(shards))


def refuse_missing(shards: list[str], media: Media) -> None:
    missing = [shard for shard in shards if shard not in media.shards]
    if missing:
        raise Refused(
            f"{len(missing)} of the {len(shards)} shards of the release are not in the source {media.source.root} "
            f"(first: {missing[0]}). Give the media that were labelled with --source, or leave their samples out: "
            "--on-missing skip. Nothing was written."
        )


def write_shard(
    release: Release, out: ObjectStore, layout: Layout, media: Media | None, shard: str, path: str
) -> Record:
    """One shard's file; none where no row of it is exported."""
    state = state_of(release, shard)
    rows, tally = LabelRows(release, shard, layout.labels), Tally()
    for reason, count in rows.reasons.items():
        tally.leave_out(reason, count)
    chunks = labels_alone(rows, tally) if media is None else with_media(rows, media, layout.on_missing, tally)
    first = next(chunks, None)
    files: tuple[Stored, ...] = ()
    if first is None:
        out.delete(path)  # there may be one from before its samples were withdrawn
    else:
        with out.writing(path) as file:
            counted = Hashed(file)
            write(counted, itertools.chain([first], chunks), layout, shard, media)
        files = (Stored(path, counted.size, counted.sha256),)
    return Record(
        shard=shard, state=state, files=files, samples=tally.samples, left_out=dict(sorted(tally.left_out.items())),
        extra=tally.extra,
    )  # fmt: skip


class Hashed(io.RawIOBase):
    """A file that is written in order, and what it holds so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self._hash.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def write(file: io.RawIOBase, chunks: Iterator[Chunk], layout: Layout, shard: str, media: Media | None) -> None:
    if layout.format == "webdataset":
        tar_keys = media is None or media.config.kind == "webdataset"
        tar_file.write(file, chunks, layout, shard, tar_keys)
    elif layout.format == "jsonl":
        json_lines.write(file, chunks, layout, shard, media)
    else:
        tables.write(file, chunks, layout, shard, media)


def close(release: Release, out: ObjectStore, plan: Plan, records: list[Record], begun: Begun) -> Manifest:
    """What belongs to no shard, then the manifest; what an earlier export had and this one has not is deleted."""
    others = whole_files(release, plan.layout, records)
    manifest = Manifest(
        plan=plan,
        labels=named_labels(release, plan.layout),
        members=tar_file.describe(plan.layout) if plan.layout.format == "webdataset" else {},
        shards=tuple(records),
        others=tuple(stored(path, data) for path, data in others.items()),
    )
    if manifest == begun.manifest and not any(True for _ in out.names(JOURNAL)):
        missing = [file.path for file in manifest.others if not out.exists(file.path)]
        if not missing:
            return manifest
    for path, data in others.items():
        out.put(path, data)
    finish(out, manifest)
    kept = {file.path for file in manifest.files}
    for file in all_files(begun.manifest.shards if begun.manifest else ()):
        if file.path not in kept:
            out.delete(file.path)
    return manifest


def whole_files(release: Release, layout: Layout, records: list[Record]) -> dict[str, bytes]:
    """Path -> bytes."""
    if layout.format == "hf":
        config = [
            {"config_name": "labels", "data_files": [{"split": "train", "path": "data/**/*.parquet"}], "default": True}
        ]
        return {"README.md": readme(release.version, config, reading(layout)).encode()}
    if layout.format == "delta":
        files = [delta.Added(file.path, file.size_bytes, each.samples) for each in records for file in each.files]
        return {delta.log_path(0): delta.encode(delta.actions(release, tables.schema_of(layout), files))}
    return {}


def reading(layout: Layout) -> str:
    """How the columns of the export are read."""
    if layout.arrays == "lists":
        return "## Reading\n\nArrays are nested lists. `key` and `shard` say which sample of the source a row is of.\n"
    return (
        "## Reading\n\n`key` and `shard` say which sample of the source a row is of. A column with axes is bytes in C "
        "order, little endian: `np.frombuffer(row[column], dtype).reshape(shape)`; dtype and shape stand above and in "
        "the Parquet field metadata (`relabel`). Masks have the shape `[<label>_height, <label>_width]`.\n"
    )


@dataclasses.dataclass(frozen=True)
class Fault:
    """One file of an export that is not as it was written."""

    path: str
    what: str


def check(out: ObjectStore) -> tuple[Manifest, list[Fault]]:
    """Read every byte of a finished export; names each file that changed, is missing, or is none of it.

    Raises UsageError where no finished export lies there, StoreCorrupt where its manifest is damaged.
    """
    manifest = read_manifest(out)
    if manifest is None:
        raise UsageError(
            f"{out.url} holds no finished export: it has no {MANIFEST}. Run the same export again to go on with it."
        )
    found = {info.path: info for info in out.list("") if not info.path.startswith(f"{JOURNAL}/")}
    named = {file.path: file for file in manifest.files}
    strangers = [Fault(path, "is not part of the export") for path in found if path not in {*named, MANIFEST}]

    def look(file: Stored) -> str:
        info = found.get(file.path)
        if info is None:
            return "is gone"
        if info.size != file.size_bytes:
            return f"holds {info.size} bytes; {file.size_bytes} were written"
        return (
            "" if digest_of(out, file.path, info.size, info.etag) == file.sha256 else "does not have the bytes written"
        )

    told = in_threads(look, list(named.values()), NUM_READERS)
    faults = [Fault(path, what) for path, what in zip(named, told, strict=True) if what]
    return manifest, sorted([*faults, *strangers], key=lambda fault: fault.path)


def digest_of(out: ObjectStore, path: str, size: int, etag: str) -> str:
    """sha256 of an object of any size, which is not held in memory."""
    if size == 0:
        return sha256(b"")
    stream = open_stream(out.full_url(path), size, etag, getattr(out, "options", {}))
    for _ in stream:
        pass
    return stream.sha256
