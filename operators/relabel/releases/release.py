"""Release: reading labels back, by shard or by sample, from a store on disk or in a bucket."""

import dataclasses
import difflib
import functools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..digests import Json
from ..errors import BadSample, BadShard, ObjectMissing, Recalled, RecallWarning, Refused, StoreCorrupt, UnknownName
from ..labels import caption, label_map, mask
from ..labels.contract import Column, LabelContract
from ..labels.shard_file import decode_label_shard
from ..labels.summary import Summary, from_json
from ..reasons import Status
from ..storage.objects import ObjectStore
from ..storage.opening import open_store
from .diff import Difference
from .diff import diff as diff_releases
from .erase import Erased, erase
from .letters import read_letters
from .recalls import find_recall, read_recalls, write_recall
from .redactions import Redactions, read_redactions
from .revert import revert
from .segments import Entry, EntryColumns, read_segments, recounted
from .stored import Stored
from .summaries import add_texts, shard_summary
from .tags import read_tag, read_tags, tag_names, write_tag
from .versions import (
    Counts,
    Version,
    count,
    read_history,
    read_marker,
    read_version,
    sequence_numbers,
    version_numbers,
)
from .withdrawals import Samples, Withdrawn, read_withdrawals, write_withdrawals

ROW_COLUMNS = ("key", "sample_digest", "status", "reason")
DECODERS: Mapping[str, Callable[[LabelContract, Mapping[str, Any]], Any]] = {
    "caption": caption.decode_row,
    "label_map": label_map.decode_row,
    "mask": mask.decode_row,
}


RecallPolicy = Literal["warn", "error", "ignore"]


class Release:
    """One immutable release; shards and samples are found by name.

    What was withdrawn since it was published is not given out: its rows keep their place, without a label.
    """

    def __init__(self, objects: ObjectStore, version: Version, recalled: RecallPolicy = "warn") -> None:
        self.objects, self.version = objects, version
        self._policy = recalled
        self._last: tuple[str, pa.Table] | None = None

    def check_recall(self) -> None:
        """Look again whether this release was recalled and what was withdrawn; a training job asks once an epoch.

        Warns with RecallWarning or raises Recalled, as `recalled` said when the release was opened.
        """
        self._forget()
        reason = None if self._policy == "ignore" else find_recall(self.objects, self.number)
        if reason is not None:
            what = (
                f"release {self.number} of {self.objects.url} was recalled: {reason} Use another one: `latest` passes "
                "over recalled releases."
            )
            if self._policy == "error":
                raise Recalled(what)
            warnings.warn(what, RecallWarning, stacklevel=2)

    def _forget(self) -> None:
        """What may have changed since it was read."""
        for name in ("withdrawn", "redactions", "counts", "_summary"):
            self.__dict__.pop(name, None)
        self._last = None

    @functools.cached_property
    def withdrawn(self) -> Withdrawn:
        """What is withdrawn, as of the first use or the last `check_recall`."""
        return read_withdrawals(self.objects)

    @functools.cached_property
    def redactions(self) -> Redactions:
        """What stands for files of this release that were rewritten without withdrawn rows."""
        return read_redactions(self.objects)

    @property
    def number(self) -> int:
        return self.version.version

    @property
    def labels(self) -> dict[str, LabelContract]:
        """Label name -> its contract."""
        return {name: label.contract for name, label in self.version.labels.items()}

    @functools.cached_property
    def counts(self) -> Counts:
        """Less what was withdrawn since the release was published (`version.counts` says what was published).

        Reads the label shards that hold such samples, or held them before an erasure, once.
        """
        if not self.withdrawn:
            return self.version.counts
        concerns = self.withdrawn.concerns  # by the entry's own count: an erasure leaves that as it was published
        return count(self._recounted(entry) if concerns(entry) else entry for entry in self.entries.values())

    @property
    def summary(self) -> Summary | None:
        """How its scores are spread, which flags its captions have, how often new captions beat old ones (see
        `labels.summary`), less what was withdrawn since; None where it holds nothing of that kind.

        Reads, where samples were withdrawn, all segments, and the label shards that hold such samples, once.
        """
        return self._summary

    @functools.cached_property
    def _summary(self) -> Summary | None:
        published = self.version.summary
        if published is None:
            return None
        entries = self.entries.items() if self.withdrawn else ()
        concerned = {shard for shard, entry in entries if self.withdrawn.concerns(entry)}
        if not concerned:
            return from_json(published)
        held = read_segments(self.objects, self.version.segments)
        contracts = list(self.labels.values())
        return add_texts(
            shard_summary(contracts, self.table(shard)) if entry.summary and shard in concerned else entry.summary
            for shard, entry in held.items()
        )

    @property
    def coverage(self) -> float:
        """Shards in the release over shards in the source, in [0, 1]; below 1 the release is partial."""
        return self.version.coverage

    @property
    def content_digest(self) -> str:
        """Equal for the same labels of the same shards, wherever and whenever they were made."""
        return self.version.content_digest

    @property
    def recipe(self) -> Json:
        """The whole recipe, resolved."""
        return self.version.recipe

    @property
    def entries(self) -> dict[str, Entry]:
        """Shard name -> its entry, by name; dead shards among them."""
        return self._entries

    @functools.cached_property
    def _entries(self) -> dict[str, Entry]:
        return self._columns.entries()

    @functools.cached_property
    def _columns(self) -> EntryColumns:
        return EntryColumns(self.objects, self.version.segments)

    @property
    def shards(self) -> list[str]:
        """Names of all source shards in the release, dead ones among them, sorted."""
        return list(self._columns.tokens())

    def entry(self, shard: str) -> Entry:
        """What the release says of a shard; raises UnknownName."""
        entry = self._columns.find(shard)
        if entry is None:
            raise unknown("shard", shard, self.shards)
        return entry

    def table(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The label shard: one row per source sample, in order, or some of its columns.

        A withdrawn row has status `filtered`, reason `withdrawn` and nulls. Page checksums and the row count are
        verified. Raises BadShard for a dead shard, StoreCorrupt where the file is gone or damaged.
        """
        entry = self.entry(shard)
        if entry.data is None:
            raise BadShard(entry.reason, f"shard {shard!r} carries no labels: {entry.detail}")
        names = None if columns is None else list(columns)
        try:
            return self._rows(entry, names)
        except ObjectMissing:
            self._forget()  # an erasure may have deleted the file since
        try:
            return self._rows(entry, names)
        except ObjectMissing as error:
            raise StoreCorrupt(f"{self.objects.full_url(self._lying(entry.data).path)} is gone.") from error

    def _lying(self, named: Stored) -> Stored:
        """What is read where the release names this label shard."""
        return self.redactions.current(named) or named

    def _rows(self, entry: Entry, names: list[str] | None) -> pa.Table:
        """Raises ObjectMissing where the file is gone, and nothing that is known stands for it."""
        shard = entry.shard
        if names is None or not self._concerned(entry):
            table = self._file(entry, names)
            return self.withdrawn.blank(shard, table) if self._concerned(entry) else table
        return self.withdrawn.blank(shard, self._file(entry, [*dict.fromkeys(["key", *names])])).select(names)

    def _file(self, entry: Entry, columns: Sequence[str] | None) -> pa.Table:
        """The label shard as it lies there, or what stands for it now; raises ObjectMissing where it is gone."""
        assert entry.data is not None
        lying = self._lying(entry.data)
        url = self.objects.full_url(lying.path)
        try:
            data = self.objects.get(lying.path)
            table = decode_label_shard(data, columns)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{url}: {error}") from error
        if table.num_rows != entry.rows:
            raise StoreCorrupt(f"{url} holds {table.num_rows} rows; {entry.rows} were written.")
        return table

    def get(self, shard: str, key: str) -> dict[str, Any]:
        """One sample's labels, decoded: label name -> LabelMap, Mask or Caption by its kind, else its
        columns by name.

        Raises UnknownName for a key that the shard does not hold, BadSample with status and reason for a row that was
        filtered or could not be labelled.
        """
        table = self._table_for_samples(shard)
        row = pc.index(table["key"], key).as_py()
        if row < 0:
            raise unknown("sample", key, table["key"].to_pylist())
        fields = table.slice(row, 1).to_pylist()[0]
        if fields["status"] != Status.OK:
            raise BadSample(
                fields["reason"], f"sample {key!r} of shard {shard!r} has status {fields['status']}, no label."
            )
        return {name: decode(contract, fields) for name, contract in self.labels.items()}

    def files(self, withdrawn: bool = False) -> list[str]:
        """URLs of all label shards, by shard name: what DuckDB, Polars or Spark are given. Never use a glob instead:
        the folder also holds files of other releases and of attempts that lost.

        Raises Refused where they still hold withdrawn rows, unless `withdrawn` says that the caller leaves these out.
        """
        entries = [entry for entry in self.entries.values() if entry.data is not None]
        concerned = [entry.shard for entry in entries if self._concerned(entry)]
        if concerned and not withdrawn:
            raise Refused(
                f"files of release {self.number} still hold withdrawn rows: those of {len(concerned)} shards (first: "
                f"{concerned[0]!r}). `relabel erase` publishes a release without them; files(withdrawn=True) gives "
                "them as they are, for who leaves out what `release.withdrawn` holds."
            )
        lying = [self._lying(entry.data) for entry in entries if entry.data is not None]
        return [self.objects.full_url(each.path) for each in lying]

    def dead_letters(self, reason: str | None = None) -> Iterator[dict[str, Json]]:
        """Dead shards and samples with shard, reason, detail and attempts; those of samples also with key and row.

        What is withdrawn is left out.
        """
        self._forget()
        current = self.redactions.current
        records = [
            dataclasses.replace(entry, dead_letters=entry.dead_letters and current(entry.dead_letters))
            for entry in self.entries.values()
            if entry.shard not in self.withdrawn.shards
        ]
        for letter in read_letters(self.objects, records, reason):
            if "key" not in letter or not self.withdrawn.holds(letter["shard"], letter["key"]):
                yield letter

    def _concerned(self, entry: Entry) -> bool:
        """Whether the file of a shard holds withdrawn rows that are not blank there."""
        if not self.withdrawn or entry.data is None:
            return False
        return self.withdrawn.concerns(entry, self.redactions.blanked(entry.data))

    def _recounted(self, entry: Entry) -> Entry:
        return recounted(entry, self.table(entry.shard, ["status", "reason"]))

    def _table_for_samples(self, shard: str) -> pa.Table:
        """The last shard asked for stays in memory: samples are usually read shard by shard."""
        last = self._last
        if last is None or last[0] != shard:
            self._last = last = (shard, self.table(shard))
        return last[1]


class Store:
    """A store whose format this package reads."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.uuid = str(read_marker(objects)["uuid"])

    @property
    def url(self) -> str:
        return self.objects.url

    def release(
        self, selector: int | str = "latest", accept_partial: bool = False, recalled: RecallPolicy = "warn"
    ) -> Release:
        """`latest`, a number (7, "7" or "v7") or a tag; raises UnknownName with what exists.

        `latest` is the newest complete release that is not recalled. A partial one (a milestone of a run that goes on)
        is given only to who accepts partial ones: `latest` is then the newest of all. Raises Refused otherwise. One
        that is asked for by number or tag although it is recalled warns (RecallWarning), raises Recalled or opens
        silently, as `recalled` says.
        """
        version = read_version(self.objects, find_version(self.objects, selector, accept_partial))
        if version.partial and not accept_partial:
            raise Refused(partial_only(self.objects, version))
        release = Release(self.objects, version, recalled)
        if selector != "latest":
            release.check_recall()
        return release

    def history(self) -> list[Version]:
        """Every version, oldest first."""
        return read_history(self.objects)

    def tag(self, name: str, number: int) -> None:
        """Give a release a name that never moves."""
        write_tag(self.objects, name, find_version(self.objects, number))

    def tags(self) -> dict[str, int]:
        """Name -> number of the release that it names."""
        return read_tags(self.objects)

    def diff(self, a: int | str, b: int | str, shards: int | None = None) -> Difference:
        """What changed from release `a` to release `b`; `shards`: read only so many of the shards that differ."""
        before, after = (self.release(selector, accept_partial=True, recalled="ignore") for selector in (a, b))
        return diff_releases(before, after, shards)

    def revert(self, number: int) -> Version:
        """Publish the labels of an older release again, as the newest one (see `releases.revert`)."""
        return revert(self.objects, find_version(self.objects, number))

    def recall(self, number: int, reason: str) -> str:
        """Say that a release must not be used, for ever; returns the reason that stands (the first one)."""
        return write_recall(self.objects, find_version(self.objects, number), reason)

    def recalls(self) -> dict[int, str]:
        """Every recalled release and why."""
        return read_recalls(self.objects)

    def withdraw(self, samples: Samples, reason: str, ahead: bool = False) -> list[str]:
        """Take samples ({shard: [key, ...]}) or whole shards ({shard: None}) out of use in every release, for ever.

        Raises UnknownName for what the latest release does not hold, unless they are withdrawn `ahead` of labelling.
        Returns the ids of the records.
        """
        if not ahead:
            require_known(self.release(accept_partial=True), samples)
        return write_withdrawals(self.objects, samples, reason)

    def withdrawn(self) -> Withdrawn:
        """All that is withdrawn."""
        return read_withdrawals(self.objects)

    def erase(self, apply: bool = False) -> Erased:
        """Publish a release without the labels of withdrawn samples; `apply` deletes the old files."""
        return erase(self.objects, apply)


def open_label_store(url: str | os.PathLike[str], **options: Json) -> Store:
    """The store at a path or URL; `options` are fsspec's (see `storage.filesystems.resolve`).

    Raises UsageError where there is no store, Refused where its format is newer than this package.
    """
    return Store(open_store(os.fspath(url), options))


def find_version(objects: ObjectStore, selector: int | str, accept_partial: bool = False) -> int:
    """The number that a selector means, of a version that exists; see `Store.release` for `latest`."""
    numbers = version_numbers(objects)
    wanted = as_number(selector)
    if selector == "latest" and numbers:
        return newest_usable(objects, numbers, accept_partial)
    if wanted is None and selector != "latest":
        return read_tag(objects, str(selector))
    if wanted not in numbers:
        if wanted in sequence_numbers(objects):
            read_version(objects, wanted)  # a fence: raises, and says so
        known = [*map(str, numbers[-10:]), *tag_names(objects), *(["latest"] if numbers else [])]
        hint = "" if numbers else "Nothing has been published here yet."
        raise UnknownName("release", str(selector), known, hint)
    return wanted


def newest_usable(objects: ObjectStore, numbers: Sequence[int], accept_partial: bool) -> int:
    """The newest that is not recalled, and complete where one is and partial ones are not accepted.

    Raises Recalled where all are.
    """
    recalls = read_recalls(objects)
    usable = [number for number in numbers if number not in recalls]
    if not usable:
        raise Recalled(f"every release of {objects.url} is recalled; the newest, {numbers[-1]}: {recalls[numbers[-1]]}")
    return usable[-1] if accept_partial else newest_complete(objects, usable)


def newest_complete(objects: ObjectStore, numbers: Sequence[int]) -> int:
    """Usually the last; a long run puts some milestones behind it. The last where none is complete."""
    complete = (number for number in reversed(numbers) if not read_version(objects, number).partial)
    return next(complete, numbers[-1])


def partial_only(objects: ObjectStore, version: Version) -> str:
    """Why a partial release is not given."""
    return (
        f"release {version.version} of {objects.url} is partial: it covers {version.coverage:.1%} of the source's "
        "shards, and its run goes on. Accept it with release(..., accept_partial=True) or --accept-partial, or wait "
        "until the run has published a complete one."
    )


def require_known(release: Release, samples: Samples) -> None:
    """Raises UnknownName for a shard or a key that the release does not hold."""
    for shard, keys in samples.items():
        if keys is None or release.entry(shard).data is None:
            release.entry(shard)
            continue
        held = set(release.table(shard, ["key"])["key"].to_pylist())
        for key in keys:
            if key not in held:
                raise unknown("sample", key, sorted(held))


def unknown(kind: str, name: str, names: Sequence[str]) -> UnknownName:
    """An error that shows the nearest of very many names, or a few of them."""
    near = difflib.get_close_matches(name, names, n=1) or names[:5]
    return UnknownName(kind, name, near, f"There are {len(names)} in all.")


def as_number(selector: int | str) -> int | None:
    found = re.fullmatch(r"v?(-?[0-9]{1,18})", str(selector))
    return int(found[1]) if found else None


def decode(contract: LabelContract, fields: Mapping[str, Any]) -> Any:
    """One row's label: by its kind, else column name -> numpy array or scalar."""
    if contract.kind in DECODERS:
        return DECODERS[contract.kind](contract, fields)
    return {column.name: decode_cell(column, fields[column.name]) for column in contract.columns}


def decode_cell(column: Column, cell: Any) -> Any:
    return np.frombuffer(cell, column.dtype).reshape(column.shape) if column.shape else cell
