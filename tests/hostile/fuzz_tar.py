"""Fuzz: mutate archives under coverage guidance and compare what the parser makes of them with tarfile.

`make fuzz-tar SECONDS=600`; needs atheris (`pip install atheris`, no part of the test extra). A finding is written to
.fuzz/crash-* and becomes a case of test_hostile_tar. `judge` is the property itself, which the suite runs too.
"""

import importlib
import io
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

from relabel.errors import BadShard
from relabel.reasons import Reason
from relabel.shards import tar
from relabel.shards.decompress import Codec, decompress
from relabel.shards.stream import ByteStream
from relabel.shards.webdataset import group

Members = list[tuple[bytes, bytes]]
FOUND_WRONG = {Reason.TRUNCATED_SHARD, Reason.CORRUPT_SHARD, Reason.UNSUPPORTED_SHARD, Reason.DUPLICATE_KEYS}


class Bytes(ByteStream):
    """A stream of bytes in memory."""

    def __init__(self, data: bytes, chunk: int = 1 << 20) -> None:
        super().__init__("memory.tar", len(data), "")
        self._data, self._size_of_chunk = data, chunk

    def check_unchanged(self) -> None:
        """Nobody changes it."""

    def _chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), self._size_of_chunk):
            yield self._data[start : start + self._size_of_chunk]


def ours(data: bytes, chunk: int = 1 << 20) -> Members | None:
    """What the parser reads; None where it refuses, as it should: with a reason and a place."""
    try:
        return list(tar.members(Bytes(data, chunk), 1 << 20))
    except BadShard as error:
        assert error.reason in FOUND_WRONG
        assert " byte " in error.detail, error.detail
        return None


def theirs(data: bytes) -> tuple[Members, bool]:
    """What tarfile reads, and whether it gives up aloud where it stops."""
    found: Members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                if info.isreg():
                    file = archive.extractfile(info)
                    assert file is not None
                    found.append((info.name.encode(errors="surrogateescape"), file.read()))
    except tarfile.ReadError:
        return found, True
    return found, False


def judge(data: bytes, chunk: int = 1 << 20) -> Members | None:
    """Whatever is read is what tarfile reads: the same names and payloads, never fewer.

    Three things tarfile does worse: it takes GNU's times for a part of the name, it stops in silence at a header with
    garbage in a field that says nothing of the content (an owner's number), and it refuses a global header at the end.
    """
    got = ours(data, chunk)
    if got is None:
        return None
    expected, gave_up = theirs(data)
    assert len(got) >= len(expected), (got, expected)
    for (name, payload), (their_name, their_payload) in zip(got, expected, strict=False):
        assert their_name == name or their_name.endswith(b"/" + name), (name, their_name)
        assert payload == their_payload
    assert len(got) == len(expected) or gave_up or has_garbage(data), (got, expected)
    return got


def has_garbage(data: bytes) -> bool:
    """Whether tarfile cannot parse one of the sound headers."""
    for start in range(0, len(data), 512):
        header = data[start : start + 512]
        if header != tar.ZERO_BLOCK and tar.is_header(header):
            try:
                tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                return True
    return False


def with_checksums(data: bytes) -> bytes:
    """Every block that has a size where headers have it gets a right checksum: mutations reach what lies behind it."""
    fixed = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        header = fixed[start : start + 512]
        if any(header) and (header[257:262] == b"ustar" or start == 0):
            header[148:156] = b" " * 8
            fixed[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(fixed)


def samples_of(data: bytes, codec: Codec) -> None:
    """Decompressing and grouping anything ends in samples or a reason."""
    try:
        list(group(tar.members(decompress(Bytes(data), codec, 1 << 24), 1 << 20)))
    except BadShard as error:
        assert error.reason in FOUND_WRONG


def one(data: bytes) -> None:
    """One input of the fuzzer: its first byte chooses what is attacked."""
    kind, rest = data[:1], data[1:]
    if kind == b"g":
        samples_of(rest, "gzip")
    elif kind == b"z":
        samples_of(rest, "zstd")
    else:
        chunk = 1 << 20 if kind < b"\x80" else 700
        judge(rest, chunk)
        judge(with_checksums(rest), chunk)


def main() -> None:
    atheris: Any = importlib.import_module("atheris")  # installed by `make fuzz-tar` only

    for module in (tar, sys.modules[group.__module__]):
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and not isinstance(value, type):
                setattr(module, name, atheris.instrument_func(value))
    for name, value in list(vars(tar.Blocks).items()):
        if callable(value):
            setattr(tar.Blocks, name, atheris.instrument_func(value))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
