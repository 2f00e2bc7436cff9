"""Decompress: the bytes inside a .gz or .zst shard, streamed, so that no bomb is ever held in memory.

Members and frames that follow each other are one stream. A stream that ends in mid-frame or fails its checksum never
ends quietly.
"""

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ..errors import BadShard
from ..reasons import Reason
from .stream import ByteStream

Codec = Literal["gzip", "zstd"]

CHUNK_BYTES = 1 << 20
MAX_BYTES = 1 << 38
"""256 GiB: what one shard may decompress to."""


def decompress(stream: ByteStream, codec: Codec, max_bytes: int = MAX_BYTES) -> Iterator[bytes]:
    """Decompressed chunks; `stream` is read to its end.

    Raises BadShard: TRUNCATED_SHARD, CORRUPT_SHARD, UNSUPPORTED_SHARD beyond `max_bytes`, and what `stream` raises.
    """
    source = ChunkFile(iter(stream))
    total = 0
    with pa.CompressedInputStream(pa.PythonFile(source, "r"), codec) as inside:
        while chunk := read(inside, stream.path, codec):
            total += len(chunk)
            if total > max_bytes:
                raise BadShard(Reason.UNSUPPORTED_SHARD, f"{stream.path} decompresses to more than {max_bytes} bytes")
            yield chunk
    source.drain()


def read(inside: pa.CompressedInputStream, path: str, codec: Codec) -> bytes:
    try:
        return bytes(inside.read(CHUNK_BYTES))
    except OSError as error:
        if "Truncated" in str(error):
            raise BadShard(Reason.TRUNCATED_SHARD, f"{path} ends inside its {codec} stream; copy it again") from error
        raise BadShard(Reason.CORRUPT_SHARD, f"{path} is no sound {codec} stream ({error}); copy it again") from error


class ChunkFile:
    """A read-only file over chunks, as pyarrow asks for it."""

    closed = False

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none only at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)

    def drain(self) -> None:
        """Read what the decompressor left, so that the stream ends."""
        for _ in self._chunks:
            pass

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The stream belongs to its owner."""
