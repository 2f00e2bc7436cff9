"""Redactions: which objects of older releases were rewritten without withdrawn rows, and what stands for them now.

`redactions/<id>.json` is created once, before anything is deleted. A release that names a redacted object is redacted,
not corrupt: readers take the object that stands for it, which holds the same rows less the labels of withdrawn ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ..digests import digest
from ..storage.objects import ObjectStore
from . import notices
from .stored import Stored

FOLDER = "redactions"


@dataclasses.dataclass(frozen=True)
class Redaction:
    """One object that was rewritten."""

    path: str
    now: Stored | None
    """What stands for it; None where nothing was left (a dead-letter file of withdrawn rows alone)."""
    withdrawn: int
    """Rows that are blank in what stands for it."""


@dataclasses.dataclass(frozen=True)
class Redactions:
    """All of a store; one that was rewritten again is followed to its end."""

    by_path: Mapping[str, Redaction] = dataclasses.field(default_factory=dict)

    def current(self, stored: Stored) -> Stored | None:
        """The object to read where a release names `stored`."""
        now: Stored | None = stored
        while now is not None and now.path in self.by_path:
            now = self.by_path[now.path].now
        return now

    def blanked(self, stored: Stored) -> int | None:
        """Withdrawn rows that are blank in what stands for it; None where it was never rewritten."""
        found = None
        while stored.path in self.by_path:
            found = self.by_path[stored.path]
            if found.now is None:
                break
            stored = found.now
        return found.withdrawn if found else None


def write_redaction(store: ObjectStore, redactions: Sequence[Redaction], release: int) -> str:
    """Record them all at once; `release` is the one that holds no withdrawn row any more. Returns the id."""
    objects = [dataclasses.asdict(each) for each in sorted(redactions, key=lambda each: each.path)]
    fields = {"objects": objects, "release": release}
    name = digest(fields)[:32]
    notices.post(store, f"{FOLDER}/{name}.json", fields)
    return name


def read_redactions(store: ObjectStore) -> Redactions:
    held: dict[str, Redaction] = {}
    for fields in notices.read_all(store, FOLDER).values():
        for each in fields["objects"]:
            now = None if each["now"] is None else Stored(**each["now"])
            held[each["path"]] = Redaction(each["path"], now, each["withdrawn"])
    return Redactions(held)
