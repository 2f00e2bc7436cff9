"""Stored: an object as it was when it was written, and whether it is still so."""

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from ..digests import sha256
from ..errors import ObjectMissing, StoreCorrupt
from ..storage.objects import ObjectStore, settle

NUM_REQUESTS = 16
"""In flight at a time; receipts and versions are small, so latency decides."""
LIST_FROM = 64
"""From so many objects on, one listing is cheaper than asking for each."""

_one_at_a_time = False

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One object that a receipt, a segment or a version names."""

    path: str
    """Relative to the store's root."""
    size_bytes: int
    sha256: str


def stored(path: str, data: bytes) -> Stored:
    return Stored(path, len(data), sha256(data))


def create_named(store: ObjectStore, folder: str, data: bytes, suffix: str) -> Stored:
    """Write an object named by its content; equal bytes give the same object, whoever writes them and however often.

    Created once: a release may stand on an equal one already, which a second write could tear.
    """
    named = stored(f"{folder}/{sha256(data)}{suffix}", data)
    if settle(store, named.path, data) != data:
        store.put(named.path, data)  # what lay there was damaged
    return named


def get_checked(store: ObjectStore, expected: Stored) -> bytes:
    """The bytes that were written; raises StoreCorrupt where they are gone or differ."""
    try:
        data = store.get(expected.path)
    except ObjectMissing as error:
        raise StoreCorrupt(f"{store.full_url(expected.path)} is gone.") from error
    if len(data) != expected.size_bytes:
        raise StoreCorrupt(
            f"{store.full_url(expected.path)} holds {len(data)} bytes; {expected.size_bytes} were written."
        )
    if sha256(data) != expected.sha256:
        raise StoreCorrupt(f"{store.full_url(expected.path)} does not have the sha256 that was written: damaged.")
    return data


def absences(store: ObjectStore, expected: Iterable[Stored]) -> dict[str, str]:
    """Path -> what is wrong, for every object that is gone or has another size; contents are not read."""
    wanted = {each.path: each.size_bytes for each in expected}
    sizes = found_sizes(store, wanted)
    return {path: describe_absence(size, sizes.get(path)) for path, size in wanted.items() if sizes.get(path) != size}


def describe_absence(expected: int, found: int | None) -> str:
    return "is gone" if found is None else f"holds {found} bytes; {expected} were written"


def found_sizes(store: ObjectStore, wanted: Mapping[str, int]) -> dict[str, int]:
    """Path -> size in bytes, of those wanted objects that exist."""
    paths = list(wanted)
    if len(paths) < LIST_FROM:
        return {
            path: size for path, size in zip(paths, in_threads(sizer(store), paths), strict=True) if size is not None
        }
    listed = (each for folder in sorted({path.partition("/")[0] for path in paths}) for each in store.sizes(folder))
    return {path: size for path, size in listed if path in wanted}  # a listing may hold far more than is wanted


def sizer(store: ObjectStore) -> Callable[[str], int | None]:
    def size_of(path: str) -> int | None:
        try:
            return store.head(path).size
        except ObjectMissing:
            return None

    return size_of


def in_threads(work: Callable[[T], R], items: Sequence[T], num_threads: int = NUM_REQUESTS) -> list[R]:
    """`work` of each item, in order; the first error ends it."""
    if len(items) < 2 or _one_at_a_time:
        return [work(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(work, items))


@contextlib.contextmanager
def one_request_at_a_time() -> Iterator[None]:
    """Inside, requests follow each other in the caller's thread, so that a test can number and repeat them."""
    global _one_at_a_time  # noqa: PLW0603
    before, _one_at_a_time = _one_at_a_time, True
    try:
        yield
    finally:
        _one_at_a_time = before
