"""Memory: an object store in a dictionary, exact to the contract, which remembers every change.

It has the server's clock (which only a write or a test moves), and its past: what a listing that lags behind shows.
"""

import dataclasses
import threading
from collections.abc import Iterator

from ..digests import sha256
from ..errors import ObjectExists, ObjectMissing
from ..storage.objects import ObjectInfo, ObjectStore

START_SECONDS = 1.8e9
WRITE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """One object as the server keeps it."""

    data: bytes
    etag: str
    modified: float


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One write that was applied; None where there was or is no object."""

    path: str
    before: Held | None
    after: Held | None


class MemoryStore(ObjectStore):
    """`conditional` False is a server that ignores If-None-Match: every create overwrites."""

    def __init__(self, url: str = "memory", conditional: bool = True) -> None:
        self.url, self.conditional = url, conditional
        self.now = START_SECONDS
        """The server's clock, in seconds since the epoch."""
        self.changes: list[Change] = []
        """Every write that was applied, oldest first."""
        self._held: dict[str, Held] = {}
        self._lock = threading.RLock()

    def copy(self) -> "MemoryStore":
        """Another store with the same objects, the same clock and no past."""
        other = MemoryStore(self.url, self.conditional)
        other.now, other._held = self.now, dict(self._held)
        return other

    def get(self, path: str) -> bytes:
        return self._find(path).data

    def create(self, path: str, data: bytes) -> None:
        with self._lock:
            if self.conditional and path in self._held:
                raise ObjectExists(f"{self.full_url(path)} exists already.")
            self.put(path, data)

    def put(self, path: str, data: bytes) -> None:
        with self._lock:
            self.now += WRITE_SECONDS
            self._change(path, Held(data, sha256(data)[:32], self.now))

    def head(self, path: str) -> ObjectInfo:
        return describe(path, self._find(path))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.listing(prefix)

    def listing(self, prefix: str, behind: int = 0) -> Iterator[ObjectInfo]:
        """What a list showed before the last `behind` changes."""
        with self._lock:
            held = dict(self._held)
            past = self.changes[len(self.changes) - behind :] if behind else []
        for change in reversed(past):
            if change.before is None:
                held.pop(change.path, None)
            else:
                held[change.path] = change.before
        below = prefix.strip("/") + "/" if prefix.strip("/") else ""
        return iter([describe(path, held[path]) for path in sorted(held) if path.startswith(below)])

    def delete(self, path: str) -> None:
        with self._lock:
            if path in self._held:
                self.now += WRITE_SECONDS
                self._change(path, None)

    def _find(self, path: str) -> Held:
        try:
            return self._held[path]
        except KeyError:
            raise ObjectMissing(f"{self.full_url(path)}: no object of that name.") from None

    def _change(self, path: str, after: Held | None) -> None:
        self.changes.append(Change(path, self._held.get(path), after))
        if after is None:
            del self._held[path]
        else:
            self._held[path] = after

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.RLock())


def describe(path: str, held: Held) -> ObjectInfo:
    return ObjectInfo(path=path, size=len(held.data), etag=held.etag, modified=held.modified)
