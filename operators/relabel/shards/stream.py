"""Streams: the bytes of one shard, in order, once, proven to be the bytes that were listed.

A stream that ends without an exception has yielded exactly `size` bytes of one version of the shard, and knows their
sha256. It never holds more than its window in memory.
"""

import contextlib
import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..digests import Json
from ..errors import BadShard, ObjectMissing
from ..storage.failures import translated
from ..storage.filesystems import is_local, resolve
from .ranges import Ranges, changed

LOCAL_CHUNK_BYTES = 1 << 20
RANGE_BYTES = 4 << 20
WINDOW = 8
"""Range reads in flight or waiting to be consumed."""

T = TypeVar("T")


class ByteStream(ABC):
    """Iterate once, to the end; then ask for `sha256`."""

    def __init__(self, path: str, size: int, etag: str) -> None:
        self.path, self.size, self.etag = path, size, etag
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """Of all bytes, as 64 hex digits."""
        assert self._sha256, "the stream was not read to its end"
        return self._sha256

    def __iter__(self) -> Iterator[bytes]:
        """Chunks that are never empty. Raises BadShard(CHANGED_SHARD), StorageError or AccessDenied."""
        hasher, total = hashlib.sha256(), 0
        for chunk in self._chunks():
            hasher.update(chunk)
            total += len(chunk)
            yield chunk
        self.check_unchanged()
        if total != self.size:
            raise changed(self.path, f"expected {self.size} bytes, got {total}")
        self._sha256 = hasher.hexdigest()

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise BadShard(CHANGED_SHARD) where the shard is seen to differ from what was listed."""

    @abstractmethod
    def _chunks(self) -> Iterator[bytes]: ...


class LocalStream(ByteStream):
    """A file on local disk, read in order; its size and mtime_ns hold from the first byte to the last."""

    def __init__(self, path: str, size: int, etag: str) -> None:
        super().__init__(path, size, etag)
        self._seen = (size, etag)
        self._file: io.FileIO | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[io.FileIO]:
        """The one file that is read and checked until the block ends, for formats that must seek."""
        with open_local(self.path) as file:
            self._file = file
            try:
                yield file
            finally:
                self._file = None

    def check_unchanged(self) -> None:
        if self._file is not None:
            self._look(self._file.fileno())
        if self._seen != (self.size, self.etag):
            raise changed(self.path, f"expected (size, mtime_ns) {(self.size, self.etag)}, found {self._seen}")

    def _chunks(self) -> Iterator[bytes]:
        with contextlib.nullcontext(self._file) if self._file is not None else open_local(self.path) as file:
            descriptor = file.fileno()
            self._look(descriptor)
            self.check_unchanged()
            while chunk := self._read(descriptor):
                yield chunk

    def _read(self, descriptor: int) -> bytes:
        with translated(self.path):
            chunk = os.read(descriptor, LOCAL_CHUNK_BYTES)
        self._look(descriptor)
        return chunk

    def _look(self, descriptor: int) -> None:
        # Of the open file: one that another was renamed over is still the one that was listed.
        status = os.fstat(descriptor)
        self._seen = (status.st_size, str(status.st_mtime_ns))


def open_local(path: str) -> io.FileIO:
    """An unbuffered file; a missing one is CHANGED_SHARD, since it had been listed."""
    try:
        with translated(path):
            return Path(path).open("rb", buffering=0)
    except ObjectMissing as error:
        raise changed(path, "the file is gone") from error


class RemoteStream(ByteStream):
    """A remote object, read by an ordered window of range reads in threads."""

    def __init__(self, ranges: Ranges, window: int = WINDOW, range_bytes: int = RANGE_BYTES) -> None:
        super().__init__(ranges.url, ranges.size, ranges.etag)
        self._ranges, self._window, self._range_bytes = ranges, window, range_bytes

    def check_unchanged(self) -> None:
        self._ranges.check()

    def _chunks(self) -> Iterator[bytes]:
        self._ranges.check()
        starts = range(0, self.size, self._range_bytes)
        yield from ordered((self._reader(start) for start in starts), self._window)

    def _reader(self, start: int) -> Callable[[], bytes]:
        return lambda: self._ranges.fetch(start, min(start + self._range_bytes, self.size))


def ordered(calls: Iterator[Callable[[], T]], window: int) -> Iterator[T]:
    """Results in the order of `calls`, with at most `window` of them running or waiting."""
    with ThreadPoolExecutor(window, thread_name_prefix="relabel-read") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                if len(waiting) == window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def open_stream(url: str, size: int, etag: str, options: Mapping[str, Json]) -> ByteStream:
    """The stream of one listed shard."""
    filesystem, path = resolve(url, options)
    if is_local(url):
        return LocalStream(path, size, etag)
    return RemoteStream(Ranges(filesystem, path, size, etag))


def reclassified(error: BadShard, stream: ByteStream) -> BadShard:
    """`error`, or CHANGED_SHARD where the bytes were damaged by a change under the reader."""
    try:
        stream.check_unchanged()
    except BadShard as change:
        return change
    return error
