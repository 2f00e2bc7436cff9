"""Doctor: a second's probe of whether a store keeps the promises that a release relies on.

It writes below `doctor/` only and removes what it wrote.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator

from ..errors import ObjectExists, ObjectMissing, Refused, StorageError
from ..storage.objects import ObjectStore
from .stored import in_threads

NUM_RACERS = 4
NUM_ROUNDS = 3
ADVICE = (
    "several writers could overwrite each other's releases. Use a store that honours conditional writes "
    "(If-None-Match: *): a local POSIX disk, AWS S3, GCS, Azure, R2, MinIO, SeaweedFS, Ceph from 16 on"
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise: whether it is kept, and what was seen."""

    name: str
    ok: bool
    detail: str


class Broken(Exception):
    """A probe saw a broken promise; the message says what was seen."""


def diagnose(store: ObjectStore) -> list[Check]:
    """One entry per promise, in order; where the first, writing at all, is broken, it is the only one."""
    folder = f"doctor/{uuid.uuid4().hex}"
    with removed_afterwards(store, folder):
        checks: list[Check] = []
        for name, probe in PROBES.items():
            checks.append(run(name, probe, store, folder))
            if not checks[0].ok:
                break
    return checks


def require_commits(store: ObjectStore) -> None:
    """The two promises without which a run would be in vain: writing, and create-once.

    Raises Refused where one is broken; a store that cannot be written to at all raises what it said.
    """
    folder = f"doctor/{uuid.uuid4().hex}"
    with removed_afterwards(store, folder):
        try:
            probe_writing(store, folder)
            probe_create(store, folder)
        except Broken as error:
            raise Refused(f"{store.url}: {error}. Nothing was labelled; see `relabel doctor`.") from error


@contextlib.contextmanager
def removed_afterwards(store: ObjectStore, folder: str) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(StorageError):
            for info in list(store.list(folder)):
                store.delete(info.path)


def run(name: str, probe: Callable[[ObjectStore, str], str], store: ObjectStore, folder: str) -> Check:
    try:
        return Check(name, True, probe(store, folder))
    except (Broken, StorageError) as error:
        return Check(name, False, str(error))


def probe_writing(store: ObjectStore, folder: str) -> str:
    data = uuid.uuid4().bytes * 64
    store.put(f"{folder}/object", data)
    if store.get(f"{folder}/object") != data or store.head(f"{folder}/object").size != len(data):
        raise Broken("what was read is not what was written; no release can be trusted to this store")
    return store.url


def probe_create(store: ObjectStore, folder: str) -> str:
    store.create(f"{folder}/once", b"first")
    with contextlib.suppress(ObjectExists):
        store.create(f"{folder}/once", b"second")
        raise Broken(f"conditional create is not honoured: a second create of one name succeeded, so {ADVICE}")
    if store.get(f"{folder}/once") != b"first":
        raise Broken(f"conditional create is not honoured: a refused create replaced the object, so {ADVICE}")
    return "a second create is refused"


def probe_race(store: ObjectStore, folder: str) -> str:
    for number in range(NUM_ROUNDS):
        path = f"{folder}/race-{number}"
        racers = [b"%d" % racer for racer in range(NUM_RACERS)]
        won = [racer for racer, wins in zip(racers, in_threads(racer_of(store, path), racers), strict=True) if wins]
        if won != [store.get(path)]:
            raise Broken(f"{len(won)} of {NUM_RACERS} concurrent creates of one name succeeded, so {ADVICE}")
    return f"{NUM_ROUNDS} rounds of {NUM_RACERS} writers"


def racer_of(store: ObjectStore, path: str) -> Callable[[bytes], bool]:
    def race(data: bytes) -> bool:
        try:
            store.create(path, data)
        except ObjectExists:
            return False
        return True

    return race


def probe_listing(store: ObjectStore, folder: str) -> str:
    store.put(f"{folder}/list/a", b"1")
    found = [(info.path, info.size) for info in store.list(f"{folder}/list")]
    if found != [(f"{folder}/list/a", 1)]:
        raise Broken(f"after writing one object the listing shows {found}; finished work would be done twice")
    return "lists are current"


def probe_deleting(store: ObjectStore, folder: str) -> str:
    store.put(f"{folder}/deleted", b"1")
    store.delete(f"{folder}/deleted")
    with contextlib.suppress(ObjectMissing):
        store.get(f"{folder}/deleted")
        raise Broken("a deleted object can still be read")
    return "deletes are current"


PROBES: dict[str, Callable[[ObjectStore, str], str]] = {
    "write and read back": probe_writing,
    "create once": probe_create,
    "one winner among concurrent creates": probe_race,
    "a written object is listed at once": probe_listing,
    "a deleted object is gone": probe_deleting,
}
