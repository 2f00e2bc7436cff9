"""Faults: object stores that fail on purpose, for proving that a run survives it.

A fault strikes one operation, reads and listings included. What it does to the store is what servers, networks and
dying processes do; what the caller sees is what the client library makes of that.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ObjectExists, StorageError
from ..storage.objects import ObjectInfo, ObjectStore

READS = frozenset({"get", "head", "list"})
WRITES = frozenset({"create", "put", "delete"})


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
class Operation:
    """One request of a caller; `apply` does on the server what was asked."""

    number: int
    """Counted from zero."""
    kind: str
    """get | create | put | head | list | delete."""
    path: str
    data: bytes
    """Of a create or a put."""
    apply: Callable[[], Any]


class OperatedStore(WrappedStore):
    """Every operation passes through `operate`, in which subclasses do more than `apply` it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.num_operations = 0

    def get(self, path: str) -> bytes:
        return bytes(self._begin("get", path, lambda: self.inner.get(path)))

    def create(self, path: str, data: bytes) -> None:
        self._begin("create", path, lambda: self.inner.create(path, data), data)

    def put(self, path: str, data: bytes) -> None:
        self._begin("put", path, lambda: self.inner.put(path, data), data)

    def head(self, path: str) -> ObjectInfo:
        found: ObjectInfo = self._begin("head", path, lambda: self.inner.head(path))
        return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._begin("list", prefix, lambda: list(self.inner.list(prefix))))

    def delete(self, path: str) -> None:
        self._begin("delete", path, lambda: self.inner.delete(path))

    def operate(self, operation: Operation) -> Any:
        return operation.apply()

    def _begin(self, kind: str, path: str, apply: Callable[[], Any], data: bytes = b"") -> Any:
        number, self.num_operations = self.num_operations, self.num_operations + 1
        return self.operate(Operation(number, kind, path, data, apply))


class LaggingStore(OperatedStore):
    """A store on which writes may still be on their way, and whose listings may lag behind."""

    def hold_back(self, operation: Operation) -> None:
        """The write will land later, whatever the caller believes."""
        raise NotImplementedError

    def old_listing(self, prefix: str) -> Iterator[ObjectInfo]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens instead of one operation."""

    name: str
    strikes: frozenset[str]
    """Kinds of operations."""
    strike: Callable[[LaggingStore, Operation], Any]

    def __repr__(self) -> str:
        return self.name


def land(operation: Operation) -> None:
    """A late write lands; nobody hears that it was refused."""
    try:
        operation.apply()
    except ObjectExists:
        return


def failure(operation: Operation, what: str) -> StorageError:
    return StorageError(f"{operation.kind} {operation.path}: {what}. Run again.")


def crash_before(store: LaggingStore, operation: Operation) -> Any:
    raise Crash(operation.path)


def crash_after(store: LaggingStore, operation: Operation) -> Any:
    operation.apply()
    raise Crash(operation.path)


def tear(store: LaggingStore, operation: Operation) -> Any:
    half = operation.data[: len(operation.data) // 2]
    (store.inner.create if operation.kind == "create" else store.inner.put)(operation.path, half)
    raise Crash(operation.path)


def lose_acknowledgement(store: LaggingStore, operation: Operation) -> Any:
    operation.apply()
    raise failure(operation, "the connection was closed before an answer came")


def report_own_as_conflict(store: LaggingStore, operation: Operation) -> Any:
    operation.apply()
    raise ObjectExists(f"{operation.path} exists already.")


def report_conflict(store: LaggingStore, operation: Operation) -> Any:
    raise ObjectExists(f"{operation.path}: ConditionalRequestConflict.")


def land_late(store: LaggingStore, operation: Operation) -> Any:
    store.hold_back(operation)
    raise failure(operation, "no answer in time")


def crash_and_land_late(store: LaggingStore, operation: Operation) -> Any:
    store.hold_back(operation)
    raise Crash(operation.path)


def list_stale(store: LaggingStore, operation: Operation) -> Any:
    return store.old_listing(operation.path)


def slow_down(store: LaggingStore, operation: Operation) -> Any:
    raise failure(operation, "503 SlowDown, after every retry")


def reset_in_body(store: LaggingStore, operation: Operation) -> Any:
    operation.apply()
    raise failure(operation, "the connection was reset in the middle of the body")


def truncate_body(store: LaggingStore, operation: Operation) -> Any:
    data = operation.apply()
    return data[: len(data) // 2]


CREATE = frozenset({"create"})
FAULTS = (
    Fault("crash before", READS | WRITES, crash_before),
    Fault("crash after", WRITES, crash_after),
    Fault("torn write", frozenset({"put"}), tear),
    Fault("lost acknowledgement", WRITES, lose_acknowledgement),
    Fault("own write reported as conflict", CREATE, report_own_as_conflict),
    Fault("conflict with nothing landed", CREATE, report_conflict),
    Fault("late landing", WRITES, land_late),
    Fault("crash, then late landing", WRITES, crash_and_land_late),
    Fault("stale listing", frozenset({"list"}), list_stale),
    Fault("503 once", READS | WRITES, slow_down),
    Fault("reset in mid body", frozenset({"get"}), reset_in_body),
    Fault("truncated body", frozenset({"get"}), truncate_body),
)
"""What a correct server, a network and a dying process may do. A `put` may be torn, a `create` never."""
UNAVAILABLE = Fault("503 for good", READS | WRITES, slow_down)
TORN_CREATE = Fault("torn create", CREATE, tear)
"""Of a server that breaks the one promise that a release stands on."""
BY_NAME = {fault.name: fault for fault in (*FAULTS, UNAVAILABLE, TORN_CREATE)}


class FaultyStore(LaggingStore):
    """One fault at the operation numbered `at`; UNAVAILABLE strikes all that follow, too.

    A late write lands `delay` operations later, or with `land_all`.
    """

    def __init__(self, inner: ObjectStore, at: int = -1, fault: Fault = UNAVAILABLE, delay: int = 4) -> None:
        super().__init__(inner)
        self.at, self.fault, self.delay = at, fault, delay
        self.in_flight: list[tuple[int, Operation]] = []
        """Writes on their way, each with the number of operations until it lands."""
        self.struck: Operation | None = None
        self._then = {info.path: info for info in inner.list("")} if fault.strike is list_stale else {}

    def operate(self, operation: Operation) -> Any:
        self.in_flight = [(left - 1, late) for left, late in self.in_flight]
        for _, late in [each for each in self.in_flight if each[0] < 0]:
            land(late)
        self.in_flight = [each for each in self.in_flight if each[0] >= 0]
        here = operation.number == self.at or (self.fault is UNAVAILABLE and 0 <= self.at < operation.number)
        if not here or operation.kind not in self.fault.strikes:
            return operation.apply()
        self.struck = operation
        return self.fault.strike(self, operation)

    def hold_back(self, operation: Operation) -> None:
        self.in_flight.append((self.delay, operation))

    def old_listing(self, prefix: str) -> Iterator[ObjectInfo]:
        """What lay there when this wrapper was made."""
        below = f"{prefix}/" if prefix else ""
        return iter([info for path, info in sorted(self._then.items()) if path.startswith(below)])

    def land_all(self) -> None:
        for _, late in self.in_flight:
            land(late)
        self.in_flight = []
