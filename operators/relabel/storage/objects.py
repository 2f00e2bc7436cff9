"""Objects: the few operations that a label store needs of whatever keeps its bytes.

Only `create` decides anything: it lands whole or not at all, and never over an object that is there. `put` is for
names that no other writer uses (unique per attempt, or named by their content).
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator

from ..errors import ObjectExists, ObjectMissing, StorageError


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of one object."""

    path: str
    """Relative to the store's root, with forward slashes."""
    size: int
    """In bytes."""
    etag: str
    """ETag without quotes; on local disk mtime_ns."""
    modified: float
    """Seconds since the epoch by the server's clock."""


class ObjectStore(ABC):
    """A root under which objects lie: a local folder or a bucket's prefix. Picklable, thread-safe."""

    url: str
    """The root, without a trailing slash and without credentials."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """The whole object; raises ObjectMissing."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> None:
        """Write if absent, whole or not at all, by one request; raises ObjectExists (whose it is: see `settle`)."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write an object whose name nobody else uses; it is whole when this returns."""

    @abstractmethod
    def head(self, path: str) -> ObjectInfo:
        """Raises ObjectMissing."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix` ("" is all), sorted by path; none where there is no such folder."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Deleting what is not there is not an error."""

    def exists(self, path: str) -> bool:
        try:
            self.head(path)
        except ObjectMissing:
            return False
        return True

    def full_url(self, path: str) -> str:
        return f"{self.url}/{path}"


def settle(store: ObjectStore, path: str, data: bytes, attempts: int = 5) -> bytes:
    """Create-once whose outcome is certain: returns the bytes that won, equal to `data` where that is us.

    "Already exists" proves nothing by itself: a lost acknowledgement reports our own success so, and a conflict may
    be reported with nothing landed. Only reading back tells.
    """
    for _ in range(attempts):
        try:
            store.create(path, data)
        except ObjectExists:
            try:
                return store.get(path)
            except ObjectMissing:
                continue
        else:
            return data
    raise StorageError(
        f"{store.full_url(path)}: the store said {attempts} times that it exists and holds nothing of that name. "
        "Run `relabel doctor` on the store."
    )
