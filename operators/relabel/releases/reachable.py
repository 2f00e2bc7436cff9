"""Reachable: which objects of a store are needed, by a release, a receipt or a run that is at work.

Nothing is guessed: where a version, a segment, a receipt or a redaction cannot be read, what it needs is unknown, and
nothing counts as garbage. Only rooms whose contents are known are looked at.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import ObjectMissing, Refused, StoreCorrupt
from ..storage.objects import ObjectInfo, ObjectStore
from .candidates import read_candidates
from .leases import holders
from .receipts import FOLD, NAME, Receipt, Receipts
from .redactions import read_redactions
from .retirements import read_retired
from .segments import Entry, merge, read_segment
from .stored import in_threads
from .versions import Version, read_history

ROOMS = ("data", "segments", "cards", "parts", "states", "doctor")
"""Where garbage may lie; what decides, and what people wrote, is never looked at."""
RECEIPT = re.compile(r"receipts/(?P<folder>[^/]+)/(?P<name>[^/]+)")
PART = re.compile(
    r"parts/(?P<folder>[^/]+)/(?P<token>[0-9a-f]{32})-g(?P<generation>\d{4,})-by\d+(-only-[0-9a-f]{16})?/[^/]+"
)

Generations = Mapping[tuple[str, str], int]
"""(receipts folder, first 32 digits of a token) -> newest generation that is recorded."""


@dataclasses.dataclass(frozen=True)
class Reachable:
    """What must stay."""

    paths: frozenset[str]
    generations: Generations
    at_work: bool
    """Whether a run holds a lease that has not expired."""

    def needs(self, path: str) -> bool:
        """A part is needed while a run is at work and its shard has no receipt of its generation or a later one.

        Where none is, the parts of one that may go on are protected by the grace alone. So are states of statistics,
        which are gathered before a run takes its lease.
        """
        part = PART.fullmatch(path)
        if part is not None:
            done = self.generations.get((part["folder"], part["token"]), -1)
            return self.at_work and done < int(part["generation"])
        if path.startswith("states/"):
            return self.at_work
        return path in self.paths or path.startswith("parts/")


def unreachable(store: ObjectStore) -> dict[str, ObjectInfo]:
    """Path -> what lies there and nobody needs.

    Listed before the roots are read: what becomes reachable meanwhile is not missed. Raises Refused where a root is
    damaged.
    """
    lying = [info for room in ROOMS for info in store.list(room)]
    try:
        needed = reachable(store)
    except (StoreCorrupt, ObjectMissing) as error:
        raise Refused(
            f"{error} What it needs is unknown, so nothing is collected. Restore it from a copy (a damaged receipt may "
            "be deleted: its shard is labelled again)."
        ) from error
    return {info.path: info for info in lying if not needed.needs(info.path)}


def reachable(store: ObjectStore) -> Reachable:
    redactions = read_redactions(store)
    recorded = set[str]()
    generations: dict[tuple[str, str], int] = {}
    for folder, names in receipt_names(store).items():
        recorded |= of_receipts(store, folder, names, generations)
    history = [*read_history(store), *(each.version for each in read_candidates(store))]
    published, given_up = of_releases(store, history)
    at_work = any(not holder.expired for holder in holders(store))
    paths = (
        (recorded - given_up)
        | published
        | {each.now.path for each in redactions.by_path.values() if each.now is not None}
        | {each.path for version in history for each in version.objects}
    )
    return Reachable(frozenset(paths), generations, at_work)


def of_releases(store: ObjectStore, history: Sequence[Version]) -> tuple[set[str], set[str]]:
    """The label shards and dead letters that releases hold, and those that retired releases alone held.

    Where none is retired the former are of every entry, also of those that a later segment replaces: cheaper.
    """
    retired = read_retired(store)
    refs = {segment.path: segment for version in history for segment in version.segments}
    read = in_threads(lambda ref: read_segment(store, ref), [*refs.values()])
    segments = dict(zip(refs, read, strict=True))
    ever = of_entries(entry for entries in read for entry in entries)
    if not retired:
        return ever, set()
    held = set[str]()
    for version in history:
        if version.version not in retired:
            held |= of_entries(merge(segments[ref.path] for ref in version.segments).values())
    return held, ever - held


def of_entries(entries: Iterable[Entry]) -> set[str]:
    return {each.path for entry in entries for each in entry.objects()}


def of_receipts(
    store: ObjectStore, folder: str, names: Sequence[str], generations: dict[tuple[str, str], int]
) -> set[str]:
    """What all receipts of one fingerprint name, whatever its generation."""
    receipts = Receipts(store, folder)
    paths: set[str] = set()
    for receipt in every_receipt(receipts, names, receipts.read):
        shard = folder, receipt.token[:32]
        generations[shard] = max(receipt.generation, generations.get(shard, -1))
        paths |= {each.path for each in receipt.objects()}
    return paths


def every_receipt(
    receipts: Receipts, names: Sequence[str], read: Callable[[str, int], Receipt | None]
) -> list[Receipt]:
    """Of one fingerprint and every generation; `names` lie in its folder, and what is in a fold is read there.

    `read` says what becomes of a single one that is damaged: it raises, or gives None.
    """
    # A damaged fold (its writer died) is passed over: what it holds lies there singly, too.
    folded = [receipt for name in names if FOLD.fullmatch(name) for receipt in receipts.try_fold(name, [])]
    known = {(receipt.token[:32], receipt.generation): receipt for receipt in folded}
    singles = [(found["token"], int(found["generation"])) for name in names if (found := NAME.fullmatch(name))]
    loose = in_threads(lambda single: read(*single), [single for single in singles if single not in known])
    return [*known.values(), *(receipt for receipt in loose if receipt is not None)]


def receipt_names(store: ObjectStore) -> dict[str, list[str]]:
    """Folder of a fingerprint -> what lies in it."""
    names: dict[str, list[str]] = {}
    for info in store.list("receipts"):
        if found := RECEIPT.fullmatch(info.path):
            names.setdefault(found["folder"], []).append(found["name"])
    return names
