"""Photos: real photographs as installed packages carry them, cut and resized into as many different ones as needed."""

import functools
import importlib
import importlib.util
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.demo import PHOTOS

MORE = (
    ("skimage", "data/brick.png"), ("skimage", "data/camera.png"), ("skimage", "data/coins.png"),
    ("skimage", "data/grass.png"), ("skimage", "data/gravel.png"), ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"), ("skimage", "data/motorcycle_left.png"), ("skimage", "data/retina.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)  # fmt: skip
"""Beside the demo's photographs; where a package lacks one, it is left out."""


@functools.cache
def photographs() -> Sequence[Image.Image]:
    """Every photograph, RGB."""
    encoded = [photo.read() for photo in PHOTOS] + [path.read_bytes() for path in more_files()]
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded]


def more_files() -> Iterator[Path]:
    for package, file in MORE:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(folder) / file).is_file():
                yield Path(folder) / file


def variants(count: int, seed: int = 0) -> Iterator[Image.Image]:
    """Crops of 45 % to 100 % of a photograph's sides, every second one mirrored; neighbours show different photos."""
    random = np.random.default_rng(seed)
    pool = photographs()
    order = random.permutation(len(pool))
    for index in range(count):
        photo = pool[order[index % len(pool)]]
        height, width = (int(side * random.uniform(0.45, 1)) for side in (photo.height, photo.width))
        top, left = random.integers(photo.height - height + 1), random.integers(photo.width - width + 1)
        crop = photo.crop((left, top, left + width, top + height))
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.integers(2) else crop


def jpegs(count: int, size: tuple[int, int], seed: int = 0) -> list[bytes]:
    """`count` different JPEGs of `size` (width, height), quality 90."""
    encoded = []
    for image in variants(count, seed):
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def write_shards(folder: Path, images: Sequence[bytes], count: int, per_shard: int) -> str:
    """`count` samples in tar shards, `images` over and over; returns the pattern that names the shards."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, count, per_shard)):
        rows = range(start, min(start + per_shard, count))
        write_tar(folder / f"{number:04d}.tar", [(f"{row:07d}.jpg", images[row % len(images)]) for row in rows])
    return f"{folder}/*.tar"


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def samples(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The samples of tar shards as webdataset's own iterator gives them: raw bytes by extension, and `__key__`."""
    loader: Any = importlib.import_module("webdataset")
    return iter(loader.WebDataset([str(path) for path in paths], shardshuffle=False))
