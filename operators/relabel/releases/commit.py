"""Commit: how a run's finished shards become the next version.

The only step that publishes is one create-once of a version file. Losing it means rebasing on the winner; nothing is
ever deleted, whatever came back. One run id commits at most once.
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence

from ..digests import Json, digest
from ..errors import Refused, StoreConflict, UsageError
from ..storage.objects import ObjectStore, settle
from .cards import announce, with_cards
from .collect import planned
from .fences import Fence
from .leases import is_newest
from .recalls import find_recall
from .receipts import Receipt
from .redactions import read_redactions
from .segments import Entry, SegmentRef, entries_of, read_segments, write_segments
from .stored import absences
from .summaries import release_summary
from .taken_back import refuse_taken_back, taken_back
from .versions import (
    FORMAT,
    LabelIdentity,
    Version,
    content_digest,
    count,
    digest_before,
    ensure_store,
    fences_after,
    mix,
    parse_entry,
    read_sequence_around,
    tool,
    version_path,
)

MAX_SEGMENTS = 32
"""A version with more is written with one segment that holds all."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a run wants to publish."""

    run_id: str
    parent: int
    """The version that the run was planned against, 0 where there was none."""
    labels: Mapping[str, LabelIdentity]
    receipts: Sequence[Receipt]
    """Of every shard of the source that is finished under these labels, by this run or an earlier one."""
    num_source_shards: int
    coverage: float | None = None
    """Stated as it is (a milestone, a replay); None: counted from the release's shards."""
    removed: Sequence[str] = ()
    """Shards that the parent holds and the source does not."""
    selection: Json = None
    source: Json = None
    recipe: Json = None
    lease: int | None = None
    """Under which the run labelled: it is not published after the fence of a newer one. None: fences mean nothing."""
    reverts: int = 0
    """The release whose labels this one publishes again."""
    bring_back: bool = False
    """Publish also labels that a revert or a recall before the run was planned took out of use."""
    gate: "Judge | None" = None
    """Judges the candidate, which has all it needs in the store but is not published: returns it with the verdict, or
    raises Refused."""
    meta: Json = None
    usage: Json = None

    @property
    def fingerprints(self) -> dict[str, str]:
        return {name: label.fingerprint for name, label in self.labels.items()}

    def numerics(self) -> dict[str, Json]:
        """Digest -> numerics."""
        distinct = {id(receipt.numerics): receipt.numerics for receipt in self.receipts}
        return {digest(numerics): dict(numerics) for numerics in distinct.values()}


@dataclasses.dataclass(frozen=True)
class Change:
    """What a run does to the shards of the version it was planned against."""

    before: Mapping[str, Entry]
    """The planned parent's entries; none where its labels mean something else."""
    written: Mapping[str, Entry]
    removed: frozenset[str]
    reverts: tuple[tuple[int, int], ...] = ()
    """As the planned parent has them."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What would be the next version, and what is known of those before it."""

    version: Version
    entries: Mapping[str, Entry]
    """Shard -> entry, of the version."""
    history: Sequence[Version]
    """Oldest first; the last is what the version follows."""
    held: Mapping[str, Entry]
    """The entries of that last one; none where its labels mean something else."""


Judge = Callable[[Proposal], Version]


def commit(store: ObjectStore, draft: Draft) -> Version:
    """Publish; returns the version that holds the draft: a new one, or the one that already did.

    That is the version this run id committed before, or the newest where the draft changes nothing in it. Raises
    Refused where data that it would publish is gone, StoreConflict where another run published other results for the
    same shards since this one was planned, or took over its lease; Refused where a revert or a recall took labels out
    of use that the draft would publish, unless it is to bring them back.
    """
    ensure_store(store, uuid.uuid4().hex)
    sequence = read_sequence_around(store, draft.parent)
    newest = sequence[-1] if sequence else None
    history = [entry for entry in sequence if isinstance(entry, Version)]
    for version in history:
        if version.run_id == draft.run_id:
            return version
    for entry in sequence:
        refuse_fenced(draft, entry)
    refuse_lost_fences(store, draft, sequence)
    change = plan_change(store, draft, history)
    plans = planned(store)  # before the data is looked at: what they name may be deleted from now on
    refuse_absent_data(store, draft.receipts)
    while True:
        found = propose(store, draft, change, history, newest)
        if isinstance(found, Version):
            return found
        proposal = found.version if draft.gate is None else draft.gate(found)
        path = version_path(proposal.version)
        refuse_collected(store, draft, proposal, {**plans, **planned(store)})
        newest = parse_entry(settle(store, path, proposal.sealed()), store.full_url(path))
        refuse_fenced(draft, newest)
        if isinstance(newest, Version):
            history.append(newest)
            if newest.run_id == draft.run_id:
                announce(store, newest)
                return newest


def rehearse(store: ObjectStore, draft: Draft) -> Version:
    """What `commit` would publish now, judged and not published; the newest version where nothing would change.

    Raises as `commit` does.
    """
    ensure_store(store, uuid.uuid4().hex)
    sequence = read_sequence_around(store, draft.parent)
    history = [entry for entry in sequence if isinstance(entry, Version)]
    change = plan_change(store, draft, history)
    found = propose(store, draft, change, history, sequence[-1] if sequence else None)
    if isinstance(found, Version):
        return found
    return found.version if draft.gate is None else draft.gate(found)


def refuse_fenced(draft: Draft, entry: Version | Fence) -> None:
    """An owner that was taken over publishes nothing any more, however long it was asleep."""
    if isinstance(entry, Fence) and draft.lease is not None and entry.lease > draft.lease:
        raise StoreConflict(
            f"{entry}: number {entry.number} of the sequence is its fence. Run {draft.run_id} (lease {draft.lease}) "
            "may publish nothing any more and did not. What it finished is kept; run again, if the other run did not "
            "publish it already."
        )


def refuse_lost_fences(store: ObjectStore, draft: Draft, sequence: Sequence[Version | Fence]) -> None:
    """A fence that did not come whole may be that of a newer lease: then only who holds the newest one publishes."""
    lost = {*fences_after(sequence[-1] if sequence else None)} - {
        each.number for each in sequence if isinstance(each, Fence)
    }
    if lost and draft.lease is not None and not is_newest(store, draft.lease):
        raise StoreConflict(
            f"{store.full_url(version_path(min(lost)))} is a fence that cannot be read, and lease {draft.lease} of run "
            f"{draft.run_id} is not the newest: another run may have taken the store over. Nothing was published, what "
            "is finished is kept; run again."
        )


def refuse_out_of_use(
    store: ObjectStore, draft: Draft, change: Change, base: Version | None, entries: Sequence[Entry]
) -> None:
    """A revert or a recall holds against runs that were at work by then, and against their milestones."""
    if base is None or draft.reverts:
        return
    if not draft.bring_back:
        by = taken_back(store, base).by
        refuse_taken_back({each.shard: by[pair] for each in entries if (pair := (each.shard, each.outcome)) in by})
    elif base.reverts != change.reverts:
        revert, target = base.reverts[-1]
        raise StoreConflict(
            f"release {revert} of {store.url} went back to {target} after run {draft.run_id} was planned. Nothing was "
            "published; what is finished is kept. Run again, if its labels are still to be brought back."
        )


def plan_change(store: ObjectStore, draft: Draft, history: Sequence[Version]) -> Change:
    """The draft against the version it was planned against, so that it can be applied to a later one."""
    parent = next((version for version in history if version.version == draft.parent), None)
    if parent is None and draft.parent:
        raise UsageError(f"the run was planned against version {draft.parent}, which {store.url} does not hold.")
    before = read_segments(store, parent.segments) if parent and same_meaning(parent, draft) else {}
    wanted = {entry.shard: entry for entry in entries_of(draft.receipts)}
    written = {shard: entry for shard, entry in wanted.items() if before.get(shard) != entry}
    removed = frozenset(draft.removed) & frozenset(before)
    return Change(before, written, removed, parent.reverts if parent else ())


def same_meaning(version: Version, draft: Draft) -> bool:
    return version.fingerprints == draft.fingerprints


def refuse_absent_data(store: ObjectStore, receipts: Sequence[Receipt]) -> None:
    gone = absences(store, [each for receipt in receipts for each in receipt.objects()])
    if gone:
        redacted = read_redactions(store).by_path
        if gone.keys() <= redacted.keys():
            raise StoreConflict(
                f"{len(gone)} objects of this run were erased meanwhile, for samples that were withdrawn (first: "
                f"{store.full_url(min(gone))}); nothing was published. Run again: nothing is labelled again."
            )
        path, what = min((path, what) for path, what in gone.items() if path not in redacted)
        raise Refused(
            f"{store.full_url(path)} {what} ({len(gone)} such objects); nothing was published. "
            "Run again: the shards it belongs to are labelled anew."
        )


def refuse_collected(store: ObjectStore, draft: Draft, proposal: Version, plans: Mapping[str, frozenset[str]]) -> None:
    """What a plan to collect names may be gone before the version stands (see `collect`), cards among it.

    `plans` holds also those that were open before the data was looked at and the segments were written: one that was
    applied since, and so is gone, may have deleted them.
    """
    needed = {each.path for receipt in draft.receipts for each in receipt.objects()}
    needed |= {each.path for each in proposal.objects}
    for name, paths in plans.items():
        for path in sorted(needed & paths):
            raise Refused(
                f"{store.full_url(path)} is named by the plan {name} of `relabel collect`, which may delete it at any "
                f"moment; nothing was published. Give the plan up with `relabel collect {store.url} --drop {name}`, "
                "then run again."
            )


def propose(
    store: ObjectStore, draft: Draft, change: Change, history: Sequence[Version], newest: Version | Fence | None
) -> Proposal | Version:
    """The next version on top of the last one, or that itself where the draft changes nothing in it.

    The same labels get a new number where the last one is recalled and the draft brings them back.
    It follows `newest` in the sequence, which is the last one or a fence after it. Its segments and cards are written.
    """
    base = history[-1] if history else None
    held = base_entries(store, draft, change, base)
    refuse_conflict(change, held, draft.run_id)
    changed = [entry for shard, entry in change.written.items() if held.get(shard) != entry]
    tombstones = [Entry(shard=shard, removed=True) for shard in sorted(change.removed) if shard in held]
    same = base is not None and same_meaning(base, draft)
    after = {**held, **{entry.shard: entry for entry in changed}}
    entries = [after[shard] for shard in sorted(after) if shard not in change.removed]
    refuse_out_of_use(store, draft, change, base, entries)
    covered = coverage(draft, base, held, entries)
    stands = base is not None and same and not changed and not tombstones and covered <= base.coverage
    if base is not None and stands and not (draft.bring_back and find_recall(store, base.version)):
        return base
    if not entries:
        raise UsageError("there is nothing to publish: no shard is finished.")
    kept = list(base.segments) if base is not None and same else []
    segments = next_segments(store, kept, changed + tombstones, entries)
    version = describe(draft, base, entries, covered, segments, newest, digest_before(store, newest))
    return Proposal(with_cards(store, version, entries), {entry.shard: entry for entry in entries}, history, held)


def base_entries(store: ObjectStore, draft: Draft, change: Change, base: Version | None) -> Mapping[str, Entry]:
    """What of `base` stays; nothing where the draft's labels mean something else."""
    if base is None:
        return {}
    if same_meaning(base, draft):
        return change.before if base.version == draft.parent else read_segments(store, base.segments)
    if base.version != draft.parent:
        raise StoreConflict(
            f"version {base.version} of {store.url} (run {base.run_id}) holds other labels and was published after run "
            f"{draft.run_id} was planned. Run again to publish on top of it, or give this recipe a store of its own."
        )
    return {}


def refuse_conflict(change: Change, held: Mapping[str, Entry], run_id: str) -> None:
    """Another run may have touched other shards, or these with the same result."""
    touched = {**change.written, **dict.fromkeys(change.removed)}
    for shard, wanted in touched.items():
        if held.get(shard) not in (change.before.get(shard), wanted):
            raise StoreConflict(
                f"another run published another result for shard {shard!r} after run {run_id} was planned. Run again: "
                "what is finished is kept, and the run is planned against the newest version."
            )


def next_segments(
    store: ObjectStore, kept: Sequence[SegmentRef], changed: Sequence[Entry], entries: Sequence[Entry]
) -> tuple[SegmentRef, ...]:
    """The parent's and a small one, or new ones for all where they would be too many."""
    if not kept or len(kept) >= MAX_SEGMENTS:
        return write_segments(store, entries)
    if not changed:
        return tuple(kept)
    return (*kept, *write_segments(store, changed))


def coverage(draft: Draft, base: Version | None, held: Mapping[str, Entry], entries: Sequence[Entry]) -> float:
    """Of the release that holds these entries, in [0, 1].

    At least that of a version published since the draft was planned, where they are of the same shards.
    """
    counted = len(entries) / max(1, draft.num_source_shards)
    stated = counted if draft.coverage is None else draft.coverage
    if base is not None and base.version != draft.parent and held.keys() == {entry.shard for entry in entries}:
        stated = max(stated, base.coverage)
    return min(1.0, stated)


def describe(
    draft: Draft,
    base: Version | None,
    entries: Sequence[Entry],
    covered: float,
    segments: tuple[SegmentRef, ...],
    newest: Version | Fence | None,
    parent_sha256: str,
) -> Version:
    known = {**(base.numerics if base else {}), **draft.numerics()}
    number = newest.number + 1 if newest else 1
    return Version(
        format=FORMAT,
        version=number,
        parent=base.version if base else 0,
        parent_sha256=parent_sha256,
        fences=fences_after(newest),
        lease=draft.lease,
        commit_id=uuid.uuid4().hex,
        run_id=draft.run_id,
        segments=segments,
        labels=dict(draft.labels),
        selection=draft.selection,
        source=draft.source,
        counts=count(entries),
        coverage=covered,
        numerics=mix(entries, known),
        content_digest=content_digest(draft.labels, entries),
        recipe=draft.recipe,
        summary=release_summary(entries),
        meta=draft.meta,
        usage=draft.usage,
        reverts=(*(base.reverts if base else ()), *([(number, draft.reverts)] if draft.reverts else [])),
        created=moment(),
        tool=tool(),
    )


def moment() -> str:
    """Now, for people."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
