"""Samples as a data set gives them to transforms, made of photographs and of label maps that tell places apart."""

import io
from typing import Any

import numpy as np
from PIL import Image

from relabel.labels.contract import Classes, Geometry, LabelContract
from relabel.labels.label_map import LabelMap, encode, label_map_contract

CLASSES = 20
GEOMETRY = Geometry(size=96, interpolation="bilinear", orientation="exif")


def contract(name: str = "label_map", **changes: Any) -> LabelContract:
    made = label_map_contract(name, Classes(digest="d" * 64, count=CLASSES), (6, 8), 4, GEOMETRY)
    return made.model_copy(update=changes)


def label_map(height: int, width: int, seed: int = 0) -> LabelMap:
    logits = np.random.default_rng(seed).normal(0, 3, (1, CLASSES, 6, 8)).astype(np.float32)
    return LabelMap(**{name: values[0] for name, values in encode(logits, 4).items()},
                    height=height, width=width, classes=CLASSES)  # fmt: skip


def gradient(height: int, width: int) -> Image.Image:
    """Red says where a pixel lies from left to right, green from top to bottom: 0 to 255."""
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    pixels = np.zeros((height, width, 3))
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = across, down[:, None], 0.5
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=98, subsampling=0, **options)
    return held.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def sample(image: Image.Image, seed: int = 1, **more: Any) -> dict[str, Any]:
    width, height = image.size
    return {"__key__": "k", "__seed__": seed, "image": image, "label_map": label_map(height, width), **more}


def seen(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """The box (y1, x1, y2, x2) of a gradient that an RGB array [y, x, 3] shows; x1 > x2 where it is mirrored."""
    red, green = pixels[..., 0].mean(axis=0) / 255, pixels[..., 1].mean(axis=1) / 255

    def ends(line: np.ndarray) -> tuple[float, float]:
        middle = line[2:-2]
        slope, start = np.polyfit(np.arange(2, len(line) - 2) + 0.5, middle, 1)
        return start, start + slope * len(line)

    (y1, y2), (x1, x2) = ends(green), ends(red)
    return y1, x1, y2, x2
