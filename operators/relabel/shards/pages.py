"""Pages: how large a Parquet file's pages are, by its own page headers, before anything is decompressed.

A footer's sizes are those of encoded data, which a dictionary or run lengths can make arbitrarily small, and they may
lie. No single value is larger than the page that holds it, and a page is decompressed into exactly the bytes that its
header announces: bounding pages bounds a reader's memory.
"""

import os
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import BadShard
from ..reasons import Reason
from .limits import MAX_FOOTER_BYTES, MAX_PAGE_BYTES

TAIL_BYTES = 8
"""The footer's length and the magic."""
HEADER_BYTES = 4096
"""Of a page header at first try; statistics can make one longer."""
MAX_HEADER_BYTES = 1 << 20
MAX_DEPTH = 16

# Field numbers of parquet.thrift.
NUM_ROWS, ROW_GROUPS = 3, 4
COLUMNS, GROUP_ROWS = 1, 3
META_DATA = 3
PATH, COMPRESSED_SIZE, DATA_OFFSET, DICTIONARY_OFFSET = 3, 7, 9, 11
UNCOMPRESSED_PAGE, COMPRESSED_PAGE = 2, 3

Struct = dict[int, Any]


def largest_page(file: Any, columns: Collection[str], url: str) -> int:
    """Bytes of the largest page of these columns once decompressed.

    Raises BadShard: UNSUPPORTED_SHARD where it is more than MAX_PAGE_BYTES, CORRUPT_SHARD where footer or page headers
    do not parse, or place something where the file has nothing.
    """
    size = file.seek(0, os.SEEK_END)
    largest = 0
    try:
        for chunk in chunks(footer(file, size, url), columns):
            for uncompressed in pages(file, size, chunk):
                largest = max(largest, uncompressed)
                if largest > MAX_PAGE_BYTES:
                    raise BadShard(
                        Reason.UNSUPPORTED_SHARD,
                        f"{url}: a page of {largest} bytes, at most {MAX_PAGE_BYTES} are read; write it again with a "
                        "smaller data_page_size and write_batch_size",
                    )
    except (Malformed, LookupError, TypeError, AttributeError) as error:
        raise BadShard(Reason.CORRUPT_SHARD, f"{url} is not sound Parquet ({error}); write it again") from error
    finally:
        file.seek(0)
    return largest


def footer_size(file: Any, size: int, url: str) -> int:
    """Raises UNSUPPORTED_SHARD where it is more than anybody should parse."""
    file.seek(size - TAIL_BYTES)
    length = int.from_bytes(file.read(4), "little")
    if length > min(size, MAX_FOOTER_BYTES):
        reason = Reason.UNSUPPORTED_SHARD if length <= size else Reason.CORRUPT_SHARD
        raise BadShard(reason, f"{url}: a footer of {length} bytes; at most {min(size, MAX_FOOTER_BYTES)} are read")
    return length


def footer(file: Any, size: int, url: str) -> Struct:
    length = footer_size(file, size, url)
    file.seek(size - TAIL_BYTES - length)
    return Compact(file.read(length)).struct()


def chunks(meta: Struct, columns: Collection[str]) -> Iterator[Struct]:
    """The metadata of every column chunk of these columns."""
    for group in meta[ROW_GROUPS]:
        for chunk in group[COLUMNS]:
            found = chunk[META_DATA]
            if found[PATH][0].decode(errors="replace") in columns:
                yield found


def pages(file: Any, size: int, chunk: Struct) -> Iterator[int]:
    """The decompressed size of every page of a chunk, by walking from header to header."""
    position = min(offset for offset in (chunk.get(DICTIONARY_OFFSET), chunk[DATA_OFFSET]) if offset)
    end = position + chunk[COMPRESSED_SIZE]
    if not 0 < position <= end <= size:
        raise Malformed(f"a column at bytes {position} to {end} of {size}")
    while position < end:
        header, length = page_header(file, position)
        body, uncompressed = header[COMPRESSED_PAGE], header[UNCOMPRESSED_PAGE]
        position += length + body
        if body < 0 or uncompressed < 0 or position > end:
            raise Malformed(f"a page before byte {position} of {body} bytes, {uncompressed} decompressed")
        yield uncompressed


def page_header(file: Any, position: int) -> tuple[Struct, int]:
    """The header at a position, and its length."""
    room = HEADER_BYTES
    while True:
        file.seek(position)
        reader = Compact(file.read(room))
        try:
            return reader.struct(), reader.position
        except Malformed:
            if room >= MAX_HEADER_BYTES:
                raise
            room *= 16


class Malformed(ValueError):
    """Bytes that are no Thrift structure."""


class Compact:
    """Thrift's compact protocol, read into dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def struct(self, depth: int = 0) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self.value(kind, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Malformed("nested too deeply")
        if kind in (1, 2, 3):
            return self.byte()
        if kind in (4, 5, 6):
            return self.signed()
        if kind in (7, 8):
            return self.take(8 if kind == 7 else self.unsigned())
        if kind in (9, 10):
            return self.list(depth + 1)
        if kind == 12:
            return self.struct(depth + 1)
        raise Malformed(f"a field of kind {kind} before byte {self.position}")

    def list(self, depth: int) -> list[Any]:
        head = self.byte()
        count = head >> 4 if head >> 4 < 15 else self.unsigned()
        if count > len(self.data) - self.position:
            raise Malformed(f"a list of {count} before byte {self.position}")
        return [self.value(head & 15, depth) for _ in range(count)]

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        if len(piece) < size:
            raise Malformed(f"{size} bytes expected before byte {self.position}, {len(piece)} are left")
        self.position += size
        return piece

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Malformed(f"a number without end before byte {self.position}")

    def signed(self) -> int:
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)
