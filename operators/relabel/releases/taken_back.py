"""Taken back: labels that a revert or a recall took out of use; no run publishes them again by itself.

What counts is (shard, outcome): everything that a recalled release holds, or that a revert left behind, and that the
latest release does not hold.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from ..errors import Refused
from ..storage.objects import ObjectStore
from .recalls import read_recalls
from .receipts import Receipt
from .redactions import read_redactions
from .segments import Entry, entry_of, merge, read_segment
from .versions import Version, read_version, version_numbers


@dataclasses.dataclass(frozen=True)
class TakenBack:
    """Which labels, and by what."""

    by: Mapping[tuple[str, str], str]
    """(shard, outcome) -> `release 7 is recalled: ...`."""

    def among(self, records: Iterable[Receipt | Entry]) -> dict[str, str]:
        """Shard -> by what, of those whose labels were taken back."""
        if not self.by:
            return {}
        entries = (each if isinstance(each, Entry) else entry_of(each) for each in records)
        pairs = {(entry.shard, entry.outcome) for entry in entries}
        return {pair[0]: self.by[pair] for pair in sorted(pairs & self.by.keys())}


def taken_back(store: ObjectStore, newest: Version | None) -> TakenBack:
    """Costs one listing where nothing was ever recalled or reverted, else the entries of the releases concerned."""
    recalls = read_recalls(store)
    if newest is None or not (recalls or newest.reverts):
        return TakenBack({})
    numbers = version_numbers(store)
    why: dict[int, str] = {}
    for revert, target in newest.reverts:
        why.update(
            {number: f"release {revert} went back to {target}" for number in numbers if target < number < revert}
        )
    why.update({number: f"release {number} is recalled: {reason}" for number, reason in recalls.items()})
    read = EntryReader(store)
    by = {pair: because for number, because in why.items() if number in numbers for pair in read.pairs(number)}
    usable = [number for number in numbers if number not in recalls]
    for pair in read.pairs(usable[-1]) if usable else ():
        by.pop(pair, None)
    return TakenBack(by)


class EntryReader:
    """Versions share segments; each is read once. What stands for a redacted file counts as the file does."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._redactions = read_redactions(store)
        self._segments: dict[str, list[Entry]] = {}

    def pairs(self, number: int) -> set[tuple[str, str]]:
        """(shard, outcome) of a version."""
        lists = []
        for ref in read_version(self.store, number).segments:
            if ref.path not in self._segments:
                self._segments[ref.path] = read_segment(self.store, ref)
            lists.append(self._segments[ref.path])
        entries = merge(lists).values()
        current = self._redactions.current
        now = {(entry.shard, each.sha256) for entry in entries if entry.data and (each := current(entry.data))}
        return now | {(entry.shard, entry.outcome) for entry in entries}


def refuse_taken_back(found: Mapping[str, str]) -> None:
    """Raises Refused where there are such shards (see `TakenBack.among`)."""
    if found:
        shard, by = next(iter(found.items()))
        raise Refused(
            f"{by}. This run would publish labels again that were taken out of use with that: of {len(found)} shards "
            f"(first: {shard!r}). Nothing was published, and nothing will be until these shards change, leave the "
            "source or are withdrawn, the recipe makes other labels, or you `relabel revert` to a good release. To "
            "publish these labels on purpose: `relabel run RECIPE --bring-back` (`publish` and `replay` never do)."
        )
