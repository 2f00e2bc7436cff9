"""Tar: the regular files of a ustar, pax or GNU archive, parsed from a stream of chunks.

No archive yields fewer members than were written into it: every header's checksum is compared, both end-of-archive
blocks must be there, and nothing that looks like a header may follow them. Where two readers would understand an
archive differently (two names for one member, links that hold data), it is refused.
"""

import io
import re
from collections.abc import Iterable, Iterator
from zlib import adler32

from ..errors import BadShard
from ..reasons import Reason
from .limits import MAX_EXTENSION_BYTES, MAX_MEMBER_BYTES, MAX_NAME_BYTES

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

REGULAR = frozenset((b"0", b"\0", b"7"))
EMPTY = frozenset((b"3", b"4", b"5", b"6"))
"""Devices, folders, pipes: nothing follows their header."""
EXTENSIONS = {b"x": b"x", b"X": b"x", b"g": b"g", b"L": b"L", b"K": b"K"}
"""Headers that describe the next member (pax, Solaris's pax, GNU's long name and link) or all (`g`)."""
UNREADABLE = {
    b"S": "a sparse member",
    b"M": "a member continued from another volume",
    b"1": "a hard link (tar --hard-dereference stores the file)",
    b"2": "a symbolic link (tar --dereference stores the file)",
}
OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
RECORDS = re.compile(rb"path|size|GNU\.sparse\..*", re.DOTALL)
"""The pax records that change what a member is."""

Records = dict[bytes, bytes]


def members(chunks: Iterable[bytes], max_member_bytes: int = MAX_MEMBER_BYTES) -> Iterator[tuple[bytes, bytes]]:
    """Name and payload of every regular file, in order; `chunks` is consumed to its end.

    Raises BadShard as `headers` does.
    """
    blocks = Blocks(chunks)
    take = blocks.take
    for name, size, _ in headers(blocks, max_member_bytes):
        yield name, take(size)


def headers(blocks: "Blocks", max_member_bytes: int = MAX_MEMBER_BYTES) -> Iterator[tuple[bytes, int, int]]:
    """Name and size of every regular file, in order, and the byte where its headers begin.

    Whoever iterates takes or skips each payload before asking for the next. Names are raw bytes, with pax and GNU long
    names applied. Raises BadShard: TRUNCATED_SHARD where the archive ends early, CORRUPT_SHARD where a header is
    damaged, UNSUPPORTED_SHARD for links, sparse members and for a member of more than `max_member_bytes` (before
    anything is allocated for it).
    """
    take = blocks.take
    extended: dict[bytes, Records] = {}
    begin = blocks.offset
    while (header := take(BLOCK)) != ZERO_BLOCK:
        if not is_header(header):
            raise blocks.corrupt("a member's header does not match its checksum")
        kind = header[156:157]
        size = number(header[124:136], blocks)
        if kind in EXTENSIONS:
            extend(EXTENSIONS[kind], read_extension(blocks, size), extended, blocks)
            continue
        name = header_name(header)
        if extended:
            name, size = described(extended, name, size, blocks)
            extended = {}
        folder = kind == b"\0" and header[:100].partition(b"\0")[0].endswith(b"/")
        if kind not in REGULAR or folder:
            skip_member(b"5" if folder else kind, name, size, blocks)
            begin = blocks.offset
            continue
        if name.endswith(b"/"):
            raise blocks.corrupt(f"a file of the name {name!r}, which is a folder's")
        if size > max_member_bytes:
            raise blocks.unsupported(f"member {name!r} has {size} bytes, above the limit of {max_member_bytes}")
        yield name, size, begin
        begin = blocks.offset
    if extended:
        raise blocks.corrupt("an extended header without the member that it describes")
    finish(blocks)


class Blocks:
    """Block-aligned reads over chunks of any size; holds one chunk."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._position = 0
        self._passed = 0

    @property
    def offset(self) -> int:
        """Of the next block, in bytes from the start of the archive."""
        return self._passed + self._position

    def take(self, size: int) -> bytes:
        """The next `size` bytes; the padding up to the block's end is passed over."""
        start = self._position
        stop = start + size
        padded = stop + (-size % BLOCK)
        if padded <= len(self._chunk):
            self._position = padded
            return self._chunk[start:stop]
        gathered = io.BytesIO()  # holds a large member once, where joining its pieces would hold it twice
        for piece in self._across(size):
            gathered.write(piece)
        self.skip(padded - stop)
        return gathered.getvalue()

    def skip(self, size: int) -> None:
        """Pass over `size` bytes without holding them."""
        for _ in self._across(size):
            pass

    def rest(self) -> Iterator[bytes]:
        """Every whole block that is left."""
        while True:
            if self._position + BLOCK > len(self._chunk) and not self._join_next():
                return
            yield self.take(BLOCK)

    def corrupt(self, detail: str) -> BadShard:
        return BadShard(Reason.CORRUPT_SHARD, f"{detail}, before byte {self.offset}; copy the archive again")

    def unsupported(self, detail: str) -> BadShard:
        return BadShard(Reason.UNSUPPORTED_SHARD, f"{detail}, before byte {self.offset}")

    def _across(self, size: int) -> Iterator[bytes]:
        while size > 0:
            piece = self._chunk[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece
            if size and not self._next():
                raise BadShard(
                    Reason.TRUNCATED_SHARD,
                    f"the archive ends at byte {self.offset}, {size} bytes short of what it announced (or without its "
                    "two end-of-archive blocks); copy it again",
                )

    def _next(self) -> bool:
        self._passed += len(self._chunk)
        self._position = 0
        self._chunk = next(self._chunks, b"")
        return bool(self._chunk)

    def _join_next(self) -> bool:
        left = self._chunk[self._position :]
        more = next(self._chunks, b"")
        self._passed += self._position
        self._position, self._chunk = 0, left + more
        return bool(more) and (len(self._chunk) >= BLOCK or self._join_next())


def is_header(header: bytes) -> bool:
    """Whether the block carries the checksum of its own bytes."""
    try:
        stored = int(header[148:156].rstrip(b"\0 "), 8)
    except ValueError:
        return False
    # adler32's low half is 1 + the sum modulo 65521, which 256 bytes cannot reach: an exact sum at C speed.
    total = (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) + 254 - sum(header[148:156])
    return stored == total or stored == signed_sum(header, total)


def signed_sum(header: bytes, total: int) -> int:
    """The checksum as some old tars computed it, from signed bytes."""
    return total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def number(field: bytes, blocks: Blocks) -> int:
    """A size: octal, or GNU's base-256."""
    if octal := OCTAL.fullmatch(field):
        return int(octal[1] or b"0", 8)
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    raise blocks.corrupt(f"a member's size is not a number ({field!r})")


def header_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU headers keep times where ustar keeps the prefix.
    if header[345] and header[257:265] != b"ustar  \0":
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def read_extension(blocks: Blocks, size: int) -> bytes:
    if size > MAX_EXTENSION_BYTES:
        raise blocks.unsupported(f"an extended header of {size} bytes; at most {MAX_EXTENSION_BYTES} are read")
    whole = blocks.take(size + (-size % BLOCK))
    if any(whole[size:]):
        raise blocks.corrupt("an extended header that goes on after its end")
    return whole[:size]


def extend(kind: bytes, payload: bytes, extended: dict[bytes, Records], blocks: Blocks) -> None:
    """Note one extended header for the next member; one for all members (`g`) may say nothing that matters."""
    if kind in extended:
        raise blocks.corrupt("two extended headers of one kind for one member")
    if kind == b"L":
        extended[kind] = {b"path": payload.partition(b"\0")[0]}
    elif kind == b"K":
        extended[kind] = {}
    else:
        records = parse_pax(payload, blocks)
        if kind == b"x":
            extended[kind] = records
        elif records:
            raise blocks.unsupported(f"a pax header that gives all members one {min(records).decode(errors='replace')}")


def parse_pax(payload: bytes, blocks: Blocks) -> Records:
    """Those of the records `LENGTH KEY=VALUE` and a newline that change what a member is."""
    records: Records = {}
    start = 0
    while start < len(payload) and payload[start]:
        space = payload.find(b" ", start, start + 20)
        length = payload[start:space]
        end = start + int(length) if space > start and length.isdigit() else start
        key, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not start < space < end <= len(payload) or payload[end - 1] != 0x0A or not equals or not key:
            raise blocks.corrupt("a pax header that does not parse")
        if RECORDS.fullmatch(key):
            records[key] = value
        start = end
    return records


MAX_PAX_DIGITS = 20


def described(extended: dict[bytes, Records], name: bytes, size: int, blocks: Blocks) -> tuple[bytes, int]:
    """A member's name and size under its extended headers.

    Refuses sparse members, whose payload is not their content, and two names for one member.
    """
    records = extended.get(b"x", {})
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise blocks.unsupported("a sparse member; write the archive without --sparse")
    paths = [given[b"path"] for given in extended.values() if b"path" in given]
    if len(paths) > 1 or b"" in paths:
        raise blocks.corrupt(f"a member with {'two names' if len(paths) > 1 else 'an empty name'}")
    name = paths[0] if paths else name
    if len(name) > MAX_NAME_BYTES:
        raise blocks.unsupported(f"a name of {len(name)} bytes, above the limit of {MAX_NAME_BYTES}")
    if b"size" not in records:
        return name, size
    stated = records[b"size"]
    if not stated.isdigit() or len(stated) > MAX_PAX_DIGITS:
        raise blocks.corrupt(f"a pax size that is not a number ({stated[:32]!r})")
    return name, int(stated)


def skip_member(kind: bytes, name: bytes, size: int, blocks: Blocks) -> None:
    """Pass over what is not a regular file; what would hide one is refused."""
    if kind in UNREADABLE or (kind in EMPTY and size):
        what = UNREADABLE.get(kind, "a folder or device that claims to hold data")
        raise blocks.unsupported(f"{name!r} is {what}; write the archive again with plain files")
    blocks.skip(size + (-size % BLOCK))


def finish(blocks: Blocks) -> None:
    """Check the second end-of-archive block and read what follows, which may be padding or garbage, never a member."""
    if blocks.take(BLOCK) != ZERO_BLOCK:
        raise blocks.corrupt("a zeroed header, or half an end-of-archive mark, in mid-archive")
    for block in blocks.rest():
        if block != ZERO_BLOCK and is_header(block):
            raise blocks.corrupt("another member after the end-of-archive blocks (zeroed, or archives put end to end)")
