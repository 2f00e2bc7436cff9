"""Tar reading: CPU of webdataset, tarfile and our reader over the same shards, layer by layer.

Samples are one image of 10 kB or 100 kB and a class of two bytes. webdataset is its own iterator up to grouped
samples with raw bytes, so the layer to compare is grouping; hashing all bytes of the shard comes on top and is ours
alone. The file lies in the page cache.
"""

import random
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from measure import best_of_each, report
from photos import samples, write_tar

from relabel.shards import tar
from relabel.shards.stream import LOCAL_CHUNK_BYTES
from relabel.shards.webdataset import WebDatasetSource, group

SIZES = {10_000: 3_000, 100_000: 600}
"""Bytes of a member: samples of the shard."""
TARGET = 5.0
RATE_TARGET = 500.0


def main(folder: Path) -> None:
    for size, count in SIZES.items():
        path = folder / f"{size}.tar"
        write_shard(path, size, count)
        report_layers(path, f"{size // 1000} kB members", count)


def write_shard(path: Path, size: int, count: int) -> None:
    noise = random.Random(size)
    rows = [(f"{row:06d}", noise.randbytes(size)) for row in range(count)]
    write_tar(path, [member for key, data in rows for member in ((f"{key}.jpg", data), (f"{key}.cls", b"12"))])


def report_layers(path: Path, title: str, count: int) -> None:
    cpu = best_of_each({name: lambda read=read: drain(read) for name, read in readers(path).items()})
    megabytes = path.stat().st_size / 1e6
    for name, seconds in cpu.items():
        ours = name not in ("webdataset", "tarfile")
        target = f">= {TARGET:g} x" if name == "parser and grouping" and title.startswith("10 ") else ""
        speed = cpu["webdataset"] / seconds
        met = speed >= TARGET if target else None
        baseline = f"webdataset {cpu['webdataset'] / count * 1e6:.1f} us" if ours else ""
        ratio = f"{speed:.1f} x less CPU" if ours else ""
        report(f"{title}: {name}", seconds / count * 1e6, "us/sample", baseline, ratio, target, met)
    rate = megabytes / cpu["full source, hashed"]
    report(f"{title}: full source, hashed", rate, "MB/s per core", "", "", f">= {RATE_TARGET:g}", rate >= RATE_TARGET)


def readers(path: Path) -> Mapping[str, Callable[[], Iterator[Any]]]:
    source = WebDatasetSource(str(path))
    [shard] = source.shards()
    return {
        "webdataset": lambda: samples([path]),
        "tarfile": lambda: tarfile_members(path),
        "bytes alone": lambda: chunks(path),
        "parser": lambda: tar.members(chunks(path)),
        "parser and grouping": lambda: group(tar.members(chunks(path))),
        "full source, hashed": lambda: iter(source.read(shard)),
    }


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(LOCAL_CHUNK_BYTES):
            yield chunk


def tarfile_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for info in archive:
            if (file := archive.extractfile(info)) is not None:
                yield info.name, file.read()


def drain(read: Callable[[], Iterator[Any]]) -> None:
    for _ in read():
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]))
