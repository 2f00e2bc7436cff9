"""Cutting: a region of an image, decoded no larger than needed, resized and converted in one step.

A JPEG that was not decoded yet is decoded at 1/2, 1/4 or 1/8 of its size where the region keeps at least the pixels
that are asked for. A reduced image may be a fraction of a pixel larger than 1/s of the stored one; regions are divided
by s itself, so that they stay where they were. Pillow is imported where it is used.
"""

import struct
import zlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from ..errors import BadSample, UsageError
from ..reasons import Reason
from .regions import Region

Output = Literal["tensor", "pil", "array"]
OUTPUTS = ("tensor", "pil", "array")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's: all but nearest are antialiased where they shrink."""
SCALES = (8, 4, 2)
ORIENTATION = 274
"""The EXIF tag."""
DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged input."""
METADATA_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)


def cut(image: Any, region: Region, size: tuple[int, int], interpolation: str, flip: bool, output: Output) -> Any:
    """The region of a PIL image as RGB of `size` (height, width), then mirrored where `flip`.

    Transparent pixels are composited on white, 16-bit greys are scaled. Gives a uint8 tensor [3, height, width], a PIL
    image, or a uint8 array [height, width, 3]. Raises BadSample where the image cannot be decoded.
    """
    from PIL import Image

    shrunk = _reduce(image, region, size)
    top, left, height, width = (side / shrunk for side in region)
    rgb = as_rgb(decoded(image))
    found = rgb.resize(
        (size[1], size[0]),
        Image.Resampling[interpolation.upper()],
        (left, top, min(left + width, rgb.width), min(top + height, rgb.height)),
    )
    if flip:
        found = found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return convert(found, output)


def convert(image: Any, output: Output) -> Any:
    """An RGB PIL image as it is, as an array [height, width, 3] or a tensor [3, height, width]."""
    if output == "pil":
        return image
    if output == "array":
        return np.array(image)
    import torch

    planes = np.empty((3, image.height, image.width), np.uint8)
    for plane, band in zip(planes, image.split(), strict=True):
        plane[:] = np.asarray(band)
    return torch.from_numpy(planes)


def check_whole(image: Any) -> None:
    """Raises UsageError where it is no PIL image, or a crop before this one had it decoded at a reduced scale."""
    if not hasattr(image, "getbands"):
        raise UsageError(
            f"a crop cuts a PIL image, got {type(image).__name__}. Leave `decode` on, and let a crop come before what "
            "makes tensors of images; one crop per sample is enough."
        )
    if any(scale != 1 for scale in getattr(image, "decoderconfig", ())[:1]):
        raise UsageError(
            "this image was decoded at a reduced scale for a crop before this one. Where several crops share an "
            "image, decode it first: sample['image'].load()."
        )


def upright(image: Any) -> Any:
    """The image after its EXIF rotation; one without is given back as it is, undecoded."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
        return ImageOps.exif_transpose(image) if turned else image
    except METADATA_ERRORS:
        return image  # as labelling does: metadata that cannot be read, the pixels are whole


def decoded(image: Any) -> Any:
    """The image, with its pixels; raises BadSample where they are damaged."""
    try:
        image.load()
    except DECODER_ERRORS as error:
        raise BadSample(Reason.CORRUPT_IMAGE, f"{image.format or image.mode} image: {error}") from error
    return image


def _reduce(image: Any, region: Region, size: tuple[int, int]) -> float:
    """Have a JPEG decoded at a reduced scale where that is enough; returns by how much."""
    width, height = image.size
    for scale in SCALES:
        if region.height / scale >= size[0] and region.width / scale >= size[1]:
            drafted = image.draft(None, (width // scale, height // scale))
            return float(width / drafted[1][2]) if drafted else 1.0
    return 1.0


def as_rgb(image: Any) -> Any:
    """8-bit RGB of any decoded PIL image; raises BadSample where its brightness has no agreed scale."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("F", "LAB"):
        raise BadSample(
            Reason.NOT_AN_IMAGE, f"an image of mode {image.mode} has no agreed brightness; store it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return Image.fromarray(_from_16_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _from_16_bit(grey: Shaped[np.ndarray, "y x"]) -> Shaped[np.ndarray, "y x"]:
    if grey.min() < 0 or grey.max() > 65535:
        raise BadSample(Reason.NOT_AN_IMAGE, "a 32-bit image has no agreed brightness; store it with 8 or 16 bits")
    return ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
