"""Release: reading labels back, by shard or by sample, from a store on disk or in a bucket."""

import dataclasses
import difflib
import functools
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..digests import Json
from ..errors import (
    BadSample,
    BadShard,
    ObjectMissing,
    Recalled,
    RecallWarning,
    Refused,
    StoreCorrupt,
    UnknownName,
    UsageError,
)
from ..labels import caption, label_map, mask
from ..labels.contract import Column, LabelContract
from ..labels.shard_file import decode_label_shard
from ..labels.summary import Summary, from_json
from ..reasons import Status
from ..storage.objects import ObjectStore
from ..storage.opening import open_store
from .candidates import read_candidate
from .channels import Move, channel_names, promote, read_channels
from .commit import moment
from .diff import Difference
from .diff import diff as diff_releases
from .erase import Erased, erase
from .letters import read_letters
from .lookup import find_version
from .recalls import find_recall, read_recalls, write_recall
from .redactions import Redactions, read_redactions
from .retirements import find_retirement, refuse_retired
from .revert import revert
from .segments import Entry, EntryColumns, read_segments, recounted
from .stored import Stored
from .summaries import add_texts, shard_summary
from .tags import read_tags, write_tag
from .versions import (
    Counts,
    Version,
    count,
    partial_only,
    read_history,
    read_marker,
    read_version,
)
from .withdrawals import Samples, Withdrawn, read_withdrawals, write_withdrawals

CANDIDATE = "candidate:"
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

    def __init__(
        self,
        objects: ObjectStore,
        version: Version,
        recalled: RecallPolicy = "warn",
        entries: Mapping[str, Entry] | None = None,
    ) -> None:
        """`entries` by shard, where they are known already."""
        self.objects, self.version = objects, version
        self._known = entries
        self.policy: RecallPolicy = recalled
        self._last: tuple[str, pa.Table] | None = None

    def check_recall(self) -> None:
        """Look again whether this release was recalled or retired, and what was withdrawn; a training job asks once an
        epoch.

        Warns with RecallWarning or raises Recalled (Refused where it was retired), as `recalled` said when the release
        was opened. What is retired is still there for the grace of the store's nightly job.
        """
        self._forget()
        if self.policy == "ignore":
            return
        if (reason := find_recall(self.objects, self.number)) is not None:
            error: Refused = Recalled(
                f"release {self.number} of {self.objects.url} was recalled: {reason} Use another one: `latest` passes "
                "over recalled releases."
            )
        elif (retired := find_retirement(self.objects, self.number)) is not None:
            error = Refused(retired)
        else:
            return
        if self.policy == "error":
            raise error
        warnings.warn(str(error), RecallWarning, stacklevel=2)

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
        return (
            self._columns.entries()
            if self._known is None
            else {name: self._known[name] for name in sorted(self._known)}
        )

    @functools.cached_property
    def _columns(self) -> EntryColumns:
        return EntryColumns(self.objects, self.version.segments)

    @property
    def shards(self) -> list[str]:
        """Names of all source shards in the release, dead ones among them, sorted."""
        return list(self._columns.tokens() if self._known is None else self.entries)

    def entry(self, shard: str) -> Entry:
        """What the release says of a shard; raises UnknownName."""
        entry = self._columns.find(shard) if self._known is None else self._known.get(shard)
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
            refuse_retired(self.objects, self.number)
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

    def dead_letters(
        self, reason: str | None = None, shards: Collection[str] | None = None
    ) -> Iterator[dict[str, Json]]:
        """Dead shards and samples with shard, reason, detail and attempts; those of samples also with key and row.

        What is withdrawn is left out. `shards`: only of these.
        """
        self._forget()
        current = self.redactions.current
        records = [
            dataclasses.replace(entry, dead_letters=entry.dead_letters and current(entry.dead_letters))
            for entry in self.entries.values()
            if entry.shard not in self.withdrawn.shards and (shards is None or entry.shard in shards)
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

    release_type: type[Release] = Release
    """Of what `release` gives."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.uuid = str(read_marker(objects)["uuid"])

    @property
    def url(self) -> str:
        return self.objects.url

    def release(
        self, selector: int | str = "latest", accept_partial: bool = False, recalled: RecallPolicy = "warn"
    ) -> Release:
        """`latest`, a number (7, "7" or "v7"), a tag, a channel, or `candidate:RUN`; raises UnknownName with what there
        is.

        `latest` is the newest complete release that is not recalled. A partial one (a milestone of a run that goes on)
        is given only to who accepts partial ones: `latest` is then the newest of all. Raises Refused otherwise. A
        candidate is no release: it was refused, or waits for approval, and is there to be looked at. One
        that is asked for by number, tag or channel although it is recalled warns (RecallWarning), raises Recalled or
        opens silently, as `recalled` says. One that was retired raises Refused; with `recalled="ignore"` it opens, and
        its rows may be gone.
        """
        if str(selector).startswith(CANDIDATE):
            version = read_candidate(self.objects, str(selector).removeprefix(CANDIDATE)).version
        else:
            version = read_version(self.objects, find_version(self.objects, selector, accept_partial))
        if version.partial and not accept_partial:
            raise Refused(partial_only(self.objects, version))
        release = self.release_type(self.objects, version, recalled)
        if selector != "latest":
            if recalled != "ignore":
                refuse_retired(self.objects, version.version)
            release.check_recall()
        return release

    def history(self) -> list[Version]:
        """Every version, oldest first."""
        return read_history(self.objects)

    def tag(self, name: str, number: int) -> None:
        """Give a release a name that never moves."""
        if name in channel_names(self.objects):
            raise UsageError(f"{name!r} is a channel of {self.url}, which moves: give the tag another name.")
        found = find_version(self.objects, number)
        refuse_retired(self.objects, found)
        write_tag(self.objects, name, found)

    def tags(self) -> dict[str, int]:
        """Name -> number of the release that it names."""
        return read_tags(self.objects)

    def promote(self, number: int | str, channel: str, by: str, reason: str = "") -> Move:
        """Move a channel (`prod`) to a release; every move is kept."""
        found = find_version(self.objects, number)
        refuse_retired(self.objects, found)
        return promote(self.objects, found, channel, by, reason, moment())

    def channels(self) -> dict[str, int]:
        """Channel -> number of the release that it means now."""
        return read_channels(self.objects)

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


def decode(contract: LabelContract, fields: Mapping[str, Any]) -> Any:
    """One row's label: by its kind, else column name -> numpy array or scalar."""
    if contract.kind in DECODERS:
        return DECODERS[contract.kind](contract, fields)
    return {column.name: decode_cell(column, fields[column.name]) for column in contract.columns}


def decode_cell(column: Column, cell: Any) -> Any:
    return np.frombuffer(cell, column.dtype).reshape(column.shape) if column.shape else cell
