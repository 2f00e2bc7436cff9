"""Places: where the samples of an uncompressed tar lie, found from its headers alone, and a place to begin near a row.

What lies between headers is passed over, not read. A place that was guessed from the middle of an archive is believed
only where the keys say so, and whoever reads from there compares every key.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

from ..errors import BadShard
from ..reasons import Reason
from . import tar
from .keys import decode_key
from .limits import KEY_OVERHEAD_BYTES, MAX_KEYS_BYTES
from .webdataset import META, NAME

WINDOW_BYTES = 1 << 20
"""Of one look into the middle of an archive."""
LOOKS = 6
NEAR_BYTES = 8 << 20
"""A place this near before the wanted one is good enough: reading on is as quick as another look."""

ReadAt = Callable[[int, int], bytes]
"""Bytes from a position (inclusive) to another (exclusive)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where one sample lies in an archive, in bytes from its start."""

    key: str
    start: int
    """Of its first header."""
    members: tuple[tuple[str, int, int], ...]
    """Extension, where the payload begins, its size."""


class Jumping(tar.Blocks):
    """Blocks of an archive of which any part can be read: what is skipped is not read."""

    def __init__(self, read_at: ReadAt, size: int, start: int = 0) -> None:
        super().__init__(())
        self._read_at, self._size, self._at = read_at, size, start

    @property
    def offset(self) -> int:
        return self._at

    def take(self, size: int) -> bytes:
        """The next `size` bytes; the padding up to the block's end is passed over."""
        if self._at + size > self._size:
            raise BadShard(Reason.TRUNCATED_SHARD, f"the archive ends at byte {self._size}; copy it again")
        data = self._read_at(self._at, self._at + size)
        self._at += size + (-size % tar.BLOCK)
        return data

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        self._at += size

    def rest(self) -> Iterator[bytes]:
        """Every whole block that is left."""
        while self._at + tar.BLOCK <= self._size:
            yield self.take(tar.BLOCK)


def places(read_at: ReadAt, size: int, start: int = 0) -> Iterator[Place]:
    """The samples of an archive of `size` bytes from `start` on, where a header begins, in order.

    Raises BadShard as `webdataset.group` does.
    """
    blocks = Jumping(read_at, size, start)
    seen: set[str] = set()
    key, first, members = "", 0, list[tuple[str, int, int]]()
    keys_size = 0
    for name, length, begin in tar.headers(blocks):
        payload = blocks.offset
        blocks.skip(length + (-length % tar.BLOCK))
        found = member_of(name)
        if found is None:
            continue
        prefix, extension = found
        if prefix != key or not members:
            if members:
                yield Place(key, first, tuple(members))
            if prefix in seen:
                raise BadShard(Reason.DUPLICATE_KEYS, f"key {prefix!r} comes back after other keys")
            seen.add(prefix)
            keys_size += len(prefix) + KEY_OVERHEAD_BYTES
            if keys_size > MAX_KEYS_BYTES:
                raise BadShard(Reason.UNSUPPORTED_SHARD, f"more than {len(seen) - 1} samples; write smaller shards")
            key, first, members = prefix, begin, []
        if any(extension == other for other, _, _ in members):
            raise BadShard(Reason.DUPLICATE_KEYS, f"key {prefix!r} has two members .{extension}")
        members.append((extension, payload, length))
    if members:
        yield Place(key, first, tuple(members))


def member_of(name: bytes) -> tuple[str, str] | None:
    """Key and extension of a member that is part of a sample."""
    text, _ = decode_key(name)
    match = NAME.match(text)
    return None if match is None or META.match(text) else (match[1], match[2].lower())


def place_near(read_at: ReadAt, size: int, rows: Mapping[str, int], row: int) -> tuple[int, int]:
    """A row at or before `row`, and the byte where its headers begin; in a few looks, each of at most 1 MiB.

    `rows` says of every key of the archive which row it is. The start of the archive is the answer where no better one
    is found.
    """
    low, high = (0, 0), (max(len(rows), row + 1), size)
    for _ in range(LOOKS):
        span = (high[1] - low[1]) / (high[0] - low[0])
        guess = int(low[1] + span * (row - low[0]))
        if guess - low[1] <= NEAR_BYTES:
            break
        begin = max(low[1], guess - WINDOW_BYTES // 2) // tar.BLOCK * tar.BLOCK
        seen = look(read_at, begin, min(begin + WINDOW_BYTES, size), rows)
        before = [place for place in seen if place[0] <= row]
        after = [place for place in seen if place[0] > row]
        if not seen or (not before and after[0] >= high) or (before and before[-1] <= low):
            break
        low = max([low, *before[-1:]])
        high = min([high, *after[:1]])
        if before and after:
            break
    return low


def look(read_at: ReadAt, begin: int, end: int, rows: Mapping[str, int]) -> list[tuple[int, int]]:
    """Rows whose first header lies between two bytes, and where, ascending; the first of a window is not known."""
    window = read_at(begin, end)

    def read(start: int, stop: int) -> bytes:
        return window[start - begin : stop - begin]

    for at in range(begin, end - tar.BLOCK, tar.BLOCK):
        block = read(at, at + tar.BLOCK)
        if block != tar.ZERO_BLOCK and tar.is_header(block):
            found = walk(read, at, end, rows)
            if len(found) > 1 and all(left[0] + 1 == right[0] for left, right in itertools.pairwise(found)):
                return found[1:]
    return []


def walk(read: ReadAt, at: int, end: int, rows: Mapping[str, int]) -> list[tuple[int, int]]:
    """Rows and where they begin, from one header to the end of the window; empty where a key is not of this archive."""
    found: list[tuple[int, int]] = []
    blocks = Jumping(read, end, at)
    try:
        for name, length, begin in tar.headers(blocks):
            blocks.skip(length + (-length % tar.BLOCK))
            part = member_of(name)
            if part is None:
                continue
            if part[0] not in rows:
                return []
            if not found or rows[part[0]] != found[-1][0]:
                found.append((rows[part[0]], begin))
    except BadShard as error:
        if error.reason != Reason.TRUNCATED_SHARD:
            return []
    return found
