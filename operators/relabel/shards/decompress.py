"""Decompress: the bytes inside a .gz or .zst shard, streamed, so that no bomb is ever held in memory.

Members and frames that follow each other are one stream. A stream that ends in mid-frame or fails its checksum never
ends quietly.
"""

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ..errors import BadShard
from ..reasons import Reason
from .limits import FREE_DECOMPRESSED_BYTES, MAX_DECOMPRESSED_BYTES, MAX_EXPANSION
from .stream import ByteStream

Codec = Literal["gzip", "zstd"]

CHUNK_BYTES = 1 << 20


def decompress(stream: ByteStream, codec: Codec, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Iterator[bytes]:
    """Decompressed chunks; `stream` is read to its end.

    Raises BadShard: TRUNCATED_SHARD, CORRUPT_SHARD, UNSUPPORTED_SHARD beyond `max_bytes` or at a bomb's expansion, and
    what `stream` raises.
    """
    source = ChunkFile(iter(stream))
    limit = min(max_bytes, max(FREE_DECOMPRESSED_BYTES, MAX_EXPANSION * stream.size))
    total = 0
    with pa.CompressedInputStream(pa.PythonFile(source, "r"), codec) as inside:
        room = bytearray(CHUNK_BYTES)
        while chunk := read(inside, room, stream.path, codec):
            total += len(chunk)
            if total > limit:
                raise BadShard(
                    Reason.UNSUPPORTED_SHARD,
                    f"{stream.path} of {stream.size} bytes decompresses to more than the {limit} that are read",
                )
            yield chunk
    source.drain()


def read(inside: pa.CompressedInputStream, room: bytearray, path: str, codec: Codec) -> bytes:
    try:
        # A failed `read` of pyarrow 26 never frees the bytes that it would have returned.
        return bytes(memoryview(room)[: inside.readinto(room)])
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
