"""Faults: object stores that fail on purpose, for proving that a run survives it."""

import dataclasses
from collections.abc import Callable, Iterator

from ..errors import ObjectExists, StorageError
from ..storage.objects import ObjectInfo, ObjectStore


class Crash(BaseException):
    """The process died here; no handler for errors may catch it."""


class WrappedStore(ObjectStore):
    """Another store's operations, unchanged; subclasses change some."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner, self.url = inner, inner.url

    def get(self, path: str) -> bytes:
        return self.inner.get(path)

    def create(self, path: str, data: bytes) -> None:
        self.inner.create(path, data)

    def put(self, path: str, data: bytes) -> None:
        self.inner.put(path, data)

    def head(self, path: str) -> ObjectInfo:
        return self.inner.head(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, path: str) -> None:
        self.inner.delete(path)


class UnconditionalStore(WrappedStore):
    """A server that ignores If-None-Match, as some do: every create overwrites."""

    def create(self, path: str, data: bytes) -> None:
        self.inner.put(path, data)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens at one write: the error raised, and whether the write was applied before."""

    raises: Callable[[str], BaseException]
    applied: bool


CRASH_BEFORE = Fault(Crash, applied=False)
CRASH_AFTER = Fault(Crash, applied=True)
LOST_ACKNOWLEDGEMENT = Fault(StorageError, applied=True)
UNANSWERED = Fault(StorageError, applied=False)
OWN_WRITE_REPORTED_AS_CONFLICT = Fault(ObjectExists, applied=True)
CONFLICT_WITH_NOTHING_LANDED = Fault(ObjectExists, applied=False)
FAULTS = (CRASH_BEFORE, CRASH_AFTER, LOST_ACKNOWLEDGEMENT, UNANSWERED, OWN_WRITE_REPORTED_AS_CONFLICT,
          CONFLICT_WITH_NOTHING_LANDED)  # fmt: skip


class FaultyStore(WrappedStore):
    """Counts writes (create, put, delete) and fails the one numbered `at`, counted from zero."""

    def __init__(self, inner: ObjectStore, at: int, fault: Fault) -> None:
        super().__init__(inner)
        self.at, self.fault, self.num_writes = at, fault, 0

    def create(self, path: str, data: bytes) -> None:
        self._write(path, lambda: self.inner.create(path, data))

    def put(self, path: str, data: bytes) -> None:
        self._write(path, lambda: self.inner.put(path, data))

    def delete(self, path: str) -> None:
        self._write(path, lambda: self.inner.delete(path))

    def _write(self, path: str, apply: Callable[[], None]) -> None:
        number, self.num_writes = self.num_writes, self.num_writes + 1
        if number != self.at:
            return apply()
        if self.fault.applied:
            apply()
        raise self.fault.raises(path)
