"""Candidates: releases that were made and refused, or wait for approval: kept whole, so that they can be looked at.

`candidates/<run id>.json` is a version that nobody published, with the verdict. It lapses once a release of its number
or a later one stands: the labels are still receipts, and the next run makes a new candidate of them.
"""

import dataclasses
import re

from pydantic import ValidationError

from ..digests import Json, unseal
from ..errors import StoreCorrupt, UnknownName
from ..storage.objects import ObjectStore
from .stored import in_threads
from .versions import Version, check_format, sequence_numbers

FOLDER = "candidates"
NAME = re.compile(rf"{FOLDER}/([A-Za-z0-9][A-Za-z0-9._-]*)\.json")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A version that could be published."""

    version: Version

    @property
    def run_id(self) -> str:
        return self.version.run_id

    def to_json(self) -> Json:
        version = self.version
        return {
            "run_id": version.run_id, "would_be": version.version, "created": version.created,
            "counts": version.counts.model_dump(mode="json"), "gate": version.gate,
        }  # fmt: skip


def candidate_path(run_id: str) -> str:
    return f"{FOLDER}/{run_id}.json"


def keep_candidate(store: ObjectStore, version: Version) -> None:
    """Only this run writes it; a later verdict on the same run replaces the earlier one."""
    store.put(candidate_path(version.run_id), version.sealed())


def read_candidate(store: ObjectStore, run_id: str) -> Candidate:
    """Raises UnknownName with those that there are, StoreCorrupt where it is damaged."""
    path = candidate_path(run_id)
    if not store.exists(path):
        known = [found[1] for each in store.names(FOLDER) if (found := NAME.fullmatch(each))]
        raise UnknownName("candidate", run_id, known)
    return parse(store.get(path), store.full_url(path))


def read_candidates(store: ObjectStore) -> list[Candidate]:
    """Those that have not lapsed, oldest first."""
    paths = [path for path in store.names(FOLDER) if NAME.fullmatch(path)]
    newest = max(sequence_numbers(store), default=0) if paths else 0
    found = in_threads(lambda path: parse(store.get(path), store.full_url(path)), paths)
    return sorted(
        (each for each in found if each.version.version > newest), key=lambda each: (each.version.created, each.run_id)
    )


def parse(data: bytes, url: str) -> Candidate:
    fields = unseal(data, url)
    check_format(fields.get("format"), url)
    try:
        return Candidate(Version.model_validate(fields))
    except ValidationError as error:
        raise StoreCorrupt(f"{url} is sealed but is no candidate: {error}") from error
