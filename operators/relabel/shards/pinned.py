"""Pinned: bytes of one shard from anywhere, of the version that was listed, and nothing hashed.

For readers that want a few rows of a shard whose content is known already. Local files are compared by size and
mtime_ns with every read, objects by their ETag (see `ranges`).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from ..digests import Json
from ..storage.failures import translated
from ..storage.filesystems import is_local, resolve
from .ranges import Ranges, changed
from .stream import LOCAL_CHUNK_BYTES, RANGE_BYTES, WINDOW, open_local, ordered


class Pinned(ABC):
    """An open shard; close it."""

    def __init__(self, path: str, size: int, etag: str) -> None:
        self.path, self.size, self.etag = path, size, etag

    @abstractmethod
    def at(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (exclusive, at most `size`). Raises BadShard(CHANGED_SHARD), StorageError."""

    @abstractmethod
    def chunks(self, start: int, soon: int) -> Iterator[bytes]:
        """All bytes from `start` on; what lies before `soon` is likely to be asked for, and fetched ahead."""

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Whatever is open."""


class PinnedFile(Pinned):
    """A file on local disk."""

    def __init__(self, path: str, size: int, etag: str) -> None:
        super().__init__(path, size, etag)
        self._file = open_local(path)
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def at(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`."""
        with translated(self.path):
            return os.pread(self._file.fileno(), stop - start, start)

    def chunks(self, start: int, soon: int) -> Iterator[bytes]:
        """All bytes from `start` on."""
        while chunk := self.at(start, start + LOCAL_CHUNK_BYTES):
            self._look()
            yield chunk
            start += len(chunk)

    def close(self) -> None:
        """The file."""
        self._file.close()

    def _look(self) -> None:
        status = os.fstat(self._file.fileno())
        seen = (status.st_size, str(status.st_mtime_ns))
        if seen != (self.size, self.etag):
            raise changed(self.path, f"expected (size, mtime_ns) {(self.size, self.etag)}, found {seen}")


class PinnedObject(Pinned):
    """An object of a remote store."""

    def __init__(self, ranges: Ranges) -> None:
        super().__init__(ranges.url, ranges.size, ranges.etag)
        self._ranges = ranges
        ranges.check()

    def at(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`."""
        return self._ranges.fetch(start, stop) if stop > start else b""

    def chunks(self, start: int, soon: int) -> Iterator[bytes]:
        """All bytes from `start` on, by a window of range reads up to `soon`, then by one at a time."""
        soon = min(max(soon, start), self.size)
        near = ordered(
            (self._reader(at, min(at + RANGE_BYTES, soon)) for at in range(start, soon, RANGE_BYTES)), WINDOW
        )
        far = (self.at(at, min(at + RANGE_BYTES, self.size)) for at in range(soon, self.size, RANGE_BYTES))
        return chain(near, far)

    def _reader(self, start: int, stop: int) -> Callable[[], bytes]:
        return lambda: self.at(start, stop)


def open_pinned(url: str, size: int, etag: str, options: Mapping[str, Json]) -> Pinned:
    """One listed shard."""
    filesystem, path = resolve(url, options)
    return PinnedFile(path, size, etag) if is_local(url) else PinnedObject(Ranges(filesystem, path, size, etag))
