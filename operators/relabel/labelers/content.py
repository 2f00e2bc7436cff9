"""Content: fixed images on which engines are calibrated and compared, the same bytes on every machine.

Made of raw generator words and of additions and multiplications alone, in one order: no library function whose last
bits depend on the processor. Soft clouds and textured things with edges: an ImageNet classifier is confident
(p > 0.3) in about half of the cells, as it is on photographs.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ..digests import digest, sha256
from ..errors import UsageError
from .images import decode_image, resize_square

Images = UInt8[np.ndarray, "rows size size 3"]
Plane = Float32[np.ndarray, "size size"]

MAX_IMAGES, MIN_IMAGES = 16, 2
PIXELS = MAX_IMAGES * 384**2
"""Of all images together, roughly: larger ones are fewer."""
NUM_THINGS = 6
SEED = 2101
VERSION = "relabel content 1"
"""Raised whenever the images change; part of the fingerprint of what was calibrated on them."""
OCTAVES = 6
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_FOLDER_IMAGES = 512


class _Draw:
    """Uniform numbers from the bit generator's raw words, which numpy keeps stable between its releases."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.Philox(seed)

    def between(self, low: float, high: float, *shape: int) -> Float32[np.ndarray, "..."]:
        words = self._words.random_raw(int(np.prod(shape, dtype=np.int64)))
        unit = (words >> np.uint64(40)).astype(np.float32).reshape(shape) * np.float32(2.0**-24)
        return np.asarray(np.float32(low) + np.float32(high - low) * unit)


def fixed_images(size: int) -> Images:
    """The package's own images, `size` x `size`."""
    draw = _Draw(SEED)
    count = min(MAX_IMAGES, max(MIN_IMAGES, PIXELS // size**2))
    return np.stack([_scene(draw, size) for _ in range(count)])


def _scene(draw: _Draw, size: int) -> UInt8[np.ndarray, "size size 3"]:
    light, contrast = draw.between(90.0, 160.0, 1), draw.between(60.0, 130.0, 3)
    scene = light + _clouds(draw, size, 0.5)[..., None] * contrast
    scene += 20 * np.stack([_clouds(draw, size, 0.6) for _ in range(3)], axis=-1)
    for _ in range(NUM_THINGS):
        inside, along = _thing(draw, size)
        texture = draw.between(20.0, 100.0, 1) * _clouds(draw, size, 0.9) + _stripes(draw, along)
        colour = draw.between(0.0, 255.0, 3) + texture[..., None]
        scene = np.where(inside[..., None], colour, scene)
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def _clouds(draw: _Draw, size: int, roughness: float) -> Plane:
    """Noise of halving scales, each `roughness` as strong as the one before; about -1 .. 1."""
    plane, strength, total = np.zeros((size, size), np.float32), 1.0, 0.0
    for octave in range(1, OCTAVES + 1):
        cells = 2**octave
        grid = draw.between(-1.0, 1.0, cells + 1, cells + 1)
        place = np.arange(size) * cells
        low, rest = place // size, (place % size).astype(np.float32) / np.float32(size)
        rows = grid[low] * (1 - rest)[:, None] + grid[low + 1] * rest[:, None]
        plane += np.float32(strength) * (rows[:, low] * (1 - rest) + rows[:, low + 1] * rest)
        total, strength = total + strength, strength * roughness
    return plane * np.float32(2 / total)


def _thing(draw: _Draw, size: int) -> tuple[Bool[np.ndarray, "size size"], Plane]:
    """Where a turned ellipse or box lies, and the coordinate along it in pixels."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    centre, reach, turn = (
        draw.between(0.0, float(size), 2),
        draw.between(0.05 * size, 0.3 * size, 2),
        draw.between(-1.0, 1.0, 2),
    )
    length = np.sqrt(turn[0] * turn[0] + turn[1] * turn[1])
    along = ((y - centre[0]) * turn[0] + (x - centre[1]) * turn[1]) / length
    across = ((x - centre[1]) * turn[0] - (y - centre[0]) * turn[1]) / length
    u, v = along / reach[0], across / reach[1]
    box = bool(draw.between(0.0, 1.0, 1)[0] < 0.5)
    return (np.maximum(np.abs(u), np.abs(v)) < 1) if box else (u * u + v * v < 1), along


def _stripes(draw: _Draw, along: Plane) -> Plane:
    """Triangle waves, on half of the things."""
    period, strength = draw.between(10.0, 50.0, 1), draw.between(-50.0, 50.0, 1)
    place = along / period
    return np.asarray(np.maximum(strength, 0) * (4 * np.abs(place - np.floor(place) - 0.5) - 1))


def folder_files(folder: str) -> tuple[Path, ...]:
    """The images of a calibration folder, by name; raises UsageError where there are none, or too many."""
    place = Path(folder).expanduser()
    found = sorted(path for path in place.glob("*") if path.suffix.lower() in SUFFIXES) if place.is_dir() else []
    if not 1 <= len(found) <= MAX_FOLDER_IMAGES:
        raise UsageError(
            f"calibration expects a folder with 1 to {MAX_FOLDER_IMAGES} images ({', '.join(SUFFIXES)}), got "
            f"{len(found)} in {folder}. Some 20 to 100 images like those to be labelled are enough; leave "
            "`calibration` out for the images that this package makes."
        )
    return tuple(found)


def folder_images(folder: str, size: int) -> tuple[Images, str]:
    """The images of a folder as the model sees them, and the digest of their files, whatever their names."""
    files = sorted((sha256(data), data) for data in (path.read_bytes() for path in folder_files(folder)))
    images = [resize_square(decode_image(data), size, "bilinear") for _, data in files]
    return np.stack(images), digest([name for name, _ in files])
