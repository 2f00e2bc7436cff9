"""Erase: labels of withdrawn samples leave the files.

Every label shard of every release and receipt that holds withdrawn rows is written anew without them, receipts of the
next generation name the new files, a release of them is published, and a redaction says what stands for what. Only
then, and only where it is asked for, the old files are deleted. Any step may be interrupted; repeating it goes on.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import pyarrow.compute as pc

from ..digests import sha256
from ..errors import Refused
from ..labels.shard_file import contracts_of, decode_label_shard, encode_label_shard
from ..reasons import Reason
from ..storage.objects import ObjectStore
from .commit import Draft, commit
from .reachable import every_receipt, receipt_names
from .recalls import find_recall
from .receipts import Receipt, Receipts
from .redactions import Redaction, Redactions, read_redactions, write_redaction
from .revert import numerics_of
from .segments import SHARED, Entry, merge, read_segment, read_segments, recounted
from .stored import Stored, absences, get_checked, in_threads, stored
from .summaries import shard_summary
from .versions import Version, read_history
from .withdrawals import Withdrawn, read_withdrawals

FOLDER = "data/erased"
"""Files written anew are named by shard and content: an erasure that is repeated finds those of the first try."""


@dataclasses.dataclass(frozen=True)
class Erased:
    """What an erasure did."""

    release: Version | None
    """The newest release: it holds no withdrawn label any more. None in a store without releases."""
    rewritten: int
    """Files written anew by this call."""
    lying: tuple[str, ...]
    """Old files that still lie in the store, to be deleted with `apply`."""
    deleted: int
    """Old files that this call deleted."""
    redacted: tuple[int, ...]
    """Releases that name an old file."""


class Eraser:
    """One erasure: each file is rewritten once, whoever names it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.withdrawn: Withdrawn = read_withdrawals(store)
        self.redactions: Redactions = read_redactions(store)
        self.made: dict[str, Redaction] = {}
        """Path of an old file -> what stands for it."""
        self._entries: dict[tuple[str, str], Entry | None] = {}
        """Token of a shard and path of its label shard -> an entry with what stands for it; None where nothing has to
        be erased."""

    def replaced(self, path: str) -> bool:
        """Whether something stands for a file, by now or since an earlier erasure."""
        return path in self.made or path in self.redactions.by_path

    def rewrite(self, entry: Entry) -> Entry | None:
        """The entry that stands for this one without withdrawn rows; None where its files hold none."""
        if entry.data is None or not self.withdrawn.concerns(entry, self.redactions.blanked(entry.data)):
            return None
        known = entry.token, entry.data.path
        if known not in self._entries:
            lying = self.redactions.current(entry.data)
            self._entries[known] = None if lying is None else self._without(entry, lying)
        made = self._entries[known]
        if made is None:
            return None
        fields = ("data", "dead_letters", "ok", "dead", "filtered", "reasons", "summary")
        return dataclasses.replace(entry, **{name: getattr(made, name) for name in fields})

    def _without(self, entry: Entry, lying: Stored) -> Entry | None:
        if not self.store.exists(lying.path):
            return None
        table = decode_label_shard(get_checked(self.store, lying))
        blank = pc.equal(table["reason"], str(Reason.WITHDRAWN)).fill_null(False).to_numpy()
        if not (self.withdrawn.rows(entry.shard, table["key"]) & ~blank).any():
            return None
        table = self.withdrawn.blank(entry.shard, table)
        contracts = contracts_of(table.schema).values()
        after = dataclasses.replace(recounted(entry, table), summary=shard_summary(contracts, table))
        data = self._put(entry, encode_label_shard(table), ".parquet")
        self.made[lying.path] = Redaction(lying.path, data, after.reasons[Reason.WITHDRAWN])
        held = None if entry.dead_letters is None else self.redactions.current(entry.dead_letters)
        letters = held if held is None else self._letters_without(entry, held)
        return dataclasses.replace(after, data=data, dead_letters=letters)

    def _put(self, entry: Entry, data: bytes, suffix: str) -> Stored:
        wanted = stored(f"{FOLDER}/{entry.token[:32]}-{sha256(data)}{suffix}", data)
        if absences(self.store, [wanted]):
            self.store.put(wanted.path, data)
        return wanted

    def _letters_without(self, entry: Entry, held: Stored) -> Stored | None:
        """The dead letters of samples that are not withdrawn; as they lie where none is."""
        lines = get_checked(self.store, held).splitlines(keepends=True)
        kept = [line for line in lines if not self.withdrawn.holds(entry.shard, json.loads(line)["key"])]
        if len(kept) == len(lines):
            return held
        letters = self._put(entry, b"".join(kept), ".dead.jsonl") if kept else None
        self.made[held.path] = Redaction(held.path, letters, 0)
        return letters


def as_entry(receipt: Receipt) -> Entry:
    return Entry(**{name: getattr(receipt, name) for name in SHARED})


def erase(store: ObjectStore, apply: bool = False) -> Erased:
    """Publish a release without the labels of withdrawn samples; `apply` deletes the files that held them.

    Raises Refused where the newest release is recalled: what is published must be built on a good one.
    """
    eraser = Eraser(store)
    history = read_history(store)
    newest = history[-1] if history else None
    if newest is not None and find_recall(store, newest.version) is not None:
        raise Refused(
            f"release {newest.version} is the newest and is recalled; an erasure would publish its labels again. "
            "`relabel revert` to a good release first."
        )
    run_id = f"erase-on-v{newest.version if newest else 0}"
    receipts = rewrite_receipts(eraser, run_id)
    release = publish(eraser, newest, receipts, run_id) if newest is not None else None
    releases = redacted(eraser, history)
    if eraser.made:
        write_redaction(store, list(eraser.made.values()), release.version if release else 0)
    old = [path for path in {**eraser.redactions.by_path, **eraser.made} if store.exists(path)]
    for path in old if apply else ():
        store.delete(path)
    return Erased(release, len(eraser.made), () if apply else tuple(sorted(old)), len(old) if apply else 0, releases)


def rewrite_receipts(eraser: Eraser, run_id: str) -> dict[str, Receipt]:
    """The newest receipts of all fingerprints name files without withdrawn rows afterwards.

    Files of older receipts are rewritten, too: some were never published. Returns those that name rewritten files by
    the path of their label shard.
    """
    erased: dict[str, Receipt] = {}
    for folder, names in receipt_names(eraser.store).items():
        receipts = Receipts(eraser.store, folder)
        for receipt in every_receipt(receipts, names, receipts.find):
            eraser.rewrite(as_entry(receipt))
        finished = receipts.load()
        for token, receipt in finished.receipts.items():
            counts = receipt
            if (entry := eraser.rewrite(as_entry(receipt))) is not None:
                fields = {name: getattr(entry, name) for name in SHARED if name != "generation"}
                generation = finished.next_generation(token)
                later = dataclasses.replace(receipt, **fields, generation=generation, run_id=run_id, attempt="")
                counts = Receipts(eraser.store, receipt.fingerprint).finish(later)
            if counts.data is not None and counts.data.path.startswith(FOLDER):
                erased[counts.data.path] = counts
    return erased


def publish(eraser: Eraser, newest: Version, recorded: Mapping[str, Receipt], run_id: str) -> Version:
    """The newest release with the rewritten files; it itself where it holds no withdrawn label."""
    entries = read_segments(eraser.store, newest.segments)
    removed = sorted(eraser.withdrawn.shards & entries.keys())
    changed = []
    for shard, entry in entries.items():
        if shard not in removed and (after := eraser.rewrite(entry)) is not None:
            assert after.data is not None
            fields = {name: getattr(after, name) for name in SHARED}
            made = Receipt(
                **fields, fingerprint="", numerics=numerics_of(newest, entry), run_id=run_id, attempt=""
            )  # not recorded: the release stands on an older receipt than the newest
            changed.append(recorded.get(after.data.path, made))
    if not changed and not removed:
        return newest
    if len(removed) == len(entries):
        raise Refused(
            f"every shard of release {newest.version} is withdrawn, and a release without shards cannot be published. "
            f"Recall it: `relabel recall {eraser.store.url} {newest.version} --reason ...`."
        )
    draft = Draft(
        run_id=run_id,
        parent=newest.version,
        labels=newest.labels,
        receipts=changed,
        num_source_shards=len(entries) - len(removed),
        coverage=newest.coverage,  # the size of the source is not known; a milestone stays one
        removed=removed,
        selection=newest.selection,
        source=newest.source,
        recipe=newest.recipe,
    )
    return commit(eraser.store, draft)


def redacted(eraser: Eraser, history: Sequence[Version]) -> tuple[int, ...]:
    """Releases that name an old file; rewrites what only an older release holds.

    Releases share segments: each is read once, and kept as long as the next release has it, too.
    """
    numbers = []
    held: dict[str, list[Entry]] = {}
    for version in history:
        fresh = [ref for ref in version.segments if ref.path not in held]
        read = in_threads(lambda ref: read_segment(eraser.store, ref), fresh)
        held |= dict(zip([ref.path for ref in fresh], read, strict=True))
        held = {ref.path: held[ref.path] for ref in version.segments}
        entries = merge(held.values()).values()
        for entry in entries:
            eraser.rewrite(entry)
        if any(eraser.replaced(each.path) for entry in entries for each in entry.objects()):
            numbers.append(version.version)
    return tuple(numbers)
