"""Objects: the few operations that a label store needs of whatever keeps its bytes.

Only `create` decides anything: it lands whole or not at all, and never over an object that is there. `put` is for
names that no other writer uses (unique per attempt, or named by their content).
"""

import contextlib
import dataclasses
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

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

    def names(self, prefix: str) -> Iterator[str]:
        """The paths that `list` gives, where nothing else is asked of the objects."""
        return (info.path for info in self.list(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The paths that `list` gives, and how many bytes each holds."""
        return ((info.path, info.size) for info in self.list(prefix))

    @abstractmethod
    def delete(self, path: str) -> None:
        """Deleting what is not there is not an error."""

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A file that becomes the object, as by `put`, when the block ends without an error; of any size, on disk."""
        with tempfile.TemporaryFile(prefix="relabel-") as file:
            yield file
            file.seek(0)
            self.put(path, file.read())

    def sweep(self) -> None:
        """Remove what writers that died left behind and no listing shows; only while nobody writes."""
        return

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
