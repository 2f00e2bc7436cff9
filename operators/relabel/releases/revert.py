"""Revert: the labels of an older release published again, as the newest one.

The same commit as a run's. Afterwards the receipts of these shards name the reverted labels again (a generation
later), so that a run of the same recipe finds them finished; what the revert took back, no run publishes again unless
it is told to (see `taken_back`).
"""

from collections.abc import Mapping

from ..digests import Json
from ..errors import Refused
from ..storage.objects import ObjectStore
from .commit import Draft, commit, same_meaning
from .recalls import find_recall
from .receipts import Finished, Receipt, Receipts
from .redactions import read_redactions
from .retirements import refuse_retired
from .segments import SHARED, Entry, read_segments
from .stored import absences
from .versions import Version, read_version, version_numbers


def revert(store: ObjectStore, number: int) -> Version:
    """Publish release `number` again; returns the newest version, which is unchanged where it holds these labels.

    Raises Refused where the release is recalled or some of its data is gone, StoreConflict where another run
    published meanwhile. Repeating it is no error and finishes what was interrupted.
    """
    target, newest = read_version(store, number), read_version(store, version_numbers(store)[-1])
    entries = read_segments(store, target.segments)
    refuse_unfit(store, target, entries)
    receipts = Receipts(store, target.meaning)
    recorded = receipts.load()
    wanted = [receipt_of(target, entry, newest.version, recorded) for entry in entries.values()]
    draft = Draft(
        run_id=f"revert-v{number}-on-v{newest.version}",
        parent=newest.version,
        labels=target.labels,
        receipts=wanted,
        num_source_shards=len(entries),
        coverage=target.coverage,
        removed=[shard for shard in read_segments(store, newest.segments) if shard not in entries],
        selection=target.selection,
        source=target.source,
        recipe=target.recipe,
        reverts=number,
    )
    held = newest.content_digest == target.content_digest and same_meaning(newest, draft)
    version = newest if held else commit(store, draft)
    record(receipts, recorded, wanted)
    return version


def refuse_unfit(store: ObjectStore, target: Version, entries: Mapping[str, Entry]) -> None:
    number, recall = target.version, find_recall(store, target.version)
    if recall is not None:
        raise Refused(f"release {number} is recalled ({recall}); it is not published again. Choose another one.")
    refuse_retired(store, number)
    objects = [each for entry in entries.values() for each in entry.objects()]
    redacted = read_redactions(store).by_path
    if any(each.path in redacted for each in objects):
        raise Refused(
            f"release {number} holds samples that were withdrawn and erased since; it is not published again. Revert "
            "to a release after the erasure, or label anew with its recipe."
        )
    gone = absences(store, objects)
    if gone:
        path, what = min(gone.items())
        raise Refused(
            f"release {number} cannot be published again: {store.full_url(path)} {what} ({len(gone)} such objects). "
            "Nothing was published. Choose another release, or label anew with its recipe."
        )


def receipt_of(target: Version, entry: Entry, newest: int, recorded: Finished) -> Receipt:
    """The receipt that says of a shard what the release says: the newest that is there, or one a generation later."""
    found = recorded.receipts.get(entry.token)
    if found is not None and (found.data, found.status, found.reason) == (entry.data, entry.status, entry.reason):
        return found
    fields = {name: getattr(entry, name) for name in SHARED if name != "generation"}
    return Receipt(
        **fields,
        generation=recorded.next_generation(entry.token),
        fingerprint=target.meaning,
        numerics=numerics_of(target, entry),
        run_id=f"revert-v{target.version}-on-v{newest}",
        attempt="",
    )


def numerics_of(version: Version, entry: Entry) -> dict[str, Json]:
    """As the receipt had them: the version adds how many shards were computed so."""
    return {name: value for name, value in version.numerics[entry.numerics].items() if name != "shards"}


def record(receipts: Receipts, recorded: Finished, wanted: list[Receipt]) -> None:
    """What is not recorded yet."""
    made = [receipt for receipt in wanted if recorded.receipts.get(receipt.token) != receipt]
    for receipt in made:
        receipts.finish(receipt)
    if len(made) > 1:
        receipts.fold(made)
