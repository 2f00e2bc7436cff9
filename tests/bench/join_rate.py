"""Join rate: what it costs to read photographs with their label maps, against reading the photographs alone.

Photographs of about 10 and 110 kB with label maps of 15 x 15 cells and 5 classes of 1000, two shards, in the page
cache. Decoded means: to 224 x 224 RGB, JPEGs with Pillow's draft mode, and nothing else, so that what labels cost
weighs as much as it can. CPU seconds of this process are the least of several turns that take each other's place.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measure import best_of_each, report
from photos import jpegs, samples, write_tar
from PIL import Image

import relabel
from relabel.shards import tar
from relabel.shards.stream import LOCAL_CHUNK_BYTES
from relabel.shards.webdataset import group

sys.path.insert(0, str(Path(__file__).parent.parent))
from labelled_shards import Publisher

SIZES = {"10 kB": ((160, 120), 3000), "110 kB": ((760, 600), 600)}
"""Photographs' width and height, and how many."""
SHARDS = 2
DISTINCT = 50
SIDE = 224
LIMIT = 1.05
BARE_LIMIT = 2.0
ROUNDS = int(os.environ.get("ROUNDS", "7"))
Readers = Mapping[str, Callable[[], Iterator[Any]]]


def main(folder: Path) -> None:
    warnings.simplefilter("ignore", ResourceWarning)
    for title, (size, count) in SIZES.items():
        media = folder / title.replace(" ", "")
        kilobytes = write_media(media, size, count)
        release = Publisher(
            str(folder / f"{media.name}-store"), {"path": f"{media}/*.tar"}, labels=["label_map"], classes=1000,
            grid=(15, 15), top_k=5, distinct=DISTINCT,
        ).publish()  # fmt: skip
        name = f"{kilobytes:.0f} kB photographs"
        raw = measured(undecoded(media, release), count)
        tell(f"{name}, undecoded", raw, "bare parse", BARE_LIMIT)
        tell(f"{name}, decoded to {SIDE} px", measured(decoded(media, release), count), "ours, images alone", LIMIT)
        digest = (raw["joined, digests compared"] - raw["joined"]) * 1000
        report(f"{name}: comparing digests (a copy)", digest / 1000, "ms per image")


def write_media(folder: Path, size: tuple[int, int], count: int) -> float:
    """Shards of photographs; returns the mean size of one in kB."""
    folder.mkdir(parents=True)
    images = jpegs(DISTINCT, size)
    for number in range(SHARDS):
        rows = range(number, count, SHARDS)
        write_tar(
            folder / f"{number}.tar",
            [file for row in rows
             for file in ((f"{row:06d}.cls", b"12"), (f"{row:06d}.jpg", images[row % DISTINCT]))],
        )  # fmt: skip
    return sum(map(len, images)) / len(images) / 1000


def undecoded(media: Path, release: relabel.Release) -> Readers:
    paths = sorted(media.glob("*.tar"))
    datasets = {
        "ours, images alone": release.dataset(columns=[], decode=False),
        "joined": release.dataset(decode=False),
        "joined, digests compared": release.dataset(decode=False, check="digest"),
    }
    return {
        "webdataset, images alone": lambda: samples(paths),
        "bare parse": lambda: (sample for path in paths for sample in group(tar.members(chunks(path)))),
        **{name: lambda dataset=dataset: iter(dataset) for name, dataset in datasets.items()},  # type: ignore[misc]
    }


def decoded(media: Path, release: relabel.Release) -> Readers:
    paths = sorted(media.glob("*.tar"))
    datasets = {
        "ours, images alone": release.dataset(columns=[], transform=to_pixels),
        "joined": release.dataset(transform=to_pixels),
    }
    return {
        "webdataset, images alone": lambda: map(from_webdataset, samples(paths)),
        **{name: lambda dataset=dataset: iter(dataset) for name, dataset in datasets.items()},  # type: ignore[misc]
    }


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(LOCAL_CHUNK_BYTES):
            yield chunk


def to_pixels(sample: dict[str, Any]) -> dict[str, Any]:
    image = sample["image"]
    image.draft("RGB", (SIDE, SIDE))
    return {**sample, "image": np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))}


def from_webdataset(sample: dict[str, Any]) -> dict[str, Any]:
    return to_pixels({**sample, "image": Image.open(io.BytesIO(sample["jpg"]))})


def measured(readers: Readers, count: int) -> dict[str, float]:
    """CPU seconds per 1000 samples."""
    found = best_of_each({name: lambda read=read: drain(read, count) for name, read in readers.items()}, ROUNDS)
    return {name: seconds / count * 1000 for name, seconds in found.items()}


def drain(read: Callable[[], Iterator[Any]], count: int) -> None:
    seen = sum(1 for _ in read())
    assert seen == count, f"{seen} of {count} samples came"


def tell(title: str, cpu: Mapping[str, float], baseline: str, limit: float) -> None:
    base, web = cpu[baseline], cpu["webdataset, images alone"]
    for name, seconds in cpu.items():
        if name == baseline:
            report(f"{title}: {name}", seconds, "CPU s per 1000", f"webdataset {web:.4g}", f"{seconds / web:.3f}")
            continue
        ratio, target = seconds / base, f"<= {limit:g}" if name == "joined" else ""
        report(
            f"{title}: {name}", seconds, "CPU s per 1000", f"{baseline} {base:.4g}", f"{ratio:.3f}", target,
            ratio <= limit if target else None,
        )  # fmt: skip
    report(
        f"{title}: joined against webdataset alone", cpu["joined"], "CPU s per 1000", f"webdataset {web:.4g}",
        f"{cpu['joined'] / web:.3f}", "< 1", cpu["joined"] < web,
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
