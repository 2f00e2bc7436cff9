"""Archives: small tar files for the tests of shards."""

import contextlib
import dataclasses
import io
import tarfile
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from relabel.shards import tar
from relabel.shards.shard import Sample, Source


def make_tar(members: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return buffer.getvalue()


def pairs(count: int) -> list[tuple[str, bytes]]:
    """Samples of a .jpg and a .cls member."""
    return [
        (f"s/{index:03d}.{extension}", payload)
        for index in range(count)
        for extension, payload in (("jpg", bytes([index]) * (700 + index)), ("cls", str(index).encode()))
    ]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def parse(data: bytes, chunk: int = 1 << 20) -> list[tuple[bytes, bytes]]:
    return list(tar.members(cut(data, chunk)))


def read_all(source: Source) -> list[Sample]:
    return [sample for shard in source.shards() for sample in source.read(shard)]


def write(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    for name, payload in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)


@dataclasses.dataclass
class Memory:
    """What a block of Python code held at most, in bytes, beyond what it found."""

    peak: int = 0


@contextlib.contextmanager
def watched() -> Iterator[Memory]:
    memory = Memory()
    tracemalloc.start()
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
