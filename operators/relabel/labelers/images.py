"""Images: encoded bytes to oriented RGB, and oriented RGB to the square that a model sees.

An image is decoded whole and right, or refused with a reason: a decoder that warns of damage has already made pixels
up. The EXIF rotation is applied. Transparent pixels are composited on white, the page that most people see them on.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import BadSample
from ..reasons import Reason
from ..shards.shard import Value

MAX_PIXELS = 89_478_485
"""Where Pillow begins to warn of a bomb. Decoding one holds at most 12 bytes per pixel, about 1 GiB."""
BAND_PIXELS = 1 << 20
"""Converted at a time: conversions hold several copies."""
MAX_SCANS = 100
"""Of a progressive JPEG, whose every scan costs a pass over all pixels and may cost no bytes; real ones have ten."""

Rgb = UInt8[np.ndarray, "y x 3"]

Image.init()
FORMATS = tuple(
    sorted({"PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF"} & Image.OPEN.keys())
)
"""Of what this Pillow reads; others (EPS, PDF, WMF) run programs or carry no pixels."""
SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)|(?P<TIFF>II\*\0|MM\0\*)|(?P<WebP>RIFF....WEBP)",
    re.DOTALL,
)
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, struct.error, zlib.error
)  # fmt: skip
"""What Pillow's decoders raise on damaged input."""

PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
MAX_PADDING_BYTES = 16
"""Stuffing before the end marker that some cameras write; more means that pixels before it went wrong."""
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The next marker after entropy-coded data."""
DAMAGE = ("Corrupt JPEG data", "Premature end")


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Rgb:
    """RGB uint8 [height, width, 3] in display orientation; the first frame of an animation.

    Raises BadSample: NOT_AN_IMAGE, CORRUPT_IMAGE, or IMAGE_TOO_LARGE (by the header, before pixels are decoded).
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, max_pixels)
    return _decode_with_pillow(data, max_pixels)


def square_image(
    sample: Mapping[str, Value], size: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear"
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The image of a sample, decoded, upright, and stretched to a square; raises BadSample as `decode_image` does."""
    data = sample["image"]
    if not isinstance(data, bytes):
        raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
    return resize_square(decode_image(data), size, interpolation)


def _refusal(data: bytes, error: Exception) -> BadSample:
    known = SIGNATURE.match(data)
    if known is None and isinstance(error, UnidentifiedImageError):
        return BadSample(Reason.NOT_AN_IMAGE, f"{len(data)} bytes in no known image format, beginning {data[:16]!r}")
    kind = known.lastgroup if known else "image"
    return BadSample(Reason.CORRUPT_IMAGE, f"{kind} of {len(data)} bytes, cut off or damaged: {error}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadSample(Reason.IMAGE_TOO_LARGE, f"{width} x {height} pixels, at most {max_pixels} are decoded")


def _decode_jpeg(data: bytes, max_pixels: int) -> Rgb:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _decode_with_pillow(data, max_pixels)
    _check_size(int(width), int(height), max_pixels)
    if b"\xff\xc2" in data and not _has_few_scans(data):
        raise BadSample(Reason.CORRUPT_IMAGE, f"JPEG of {len(data)} bytes with more than {MAX_SCANS} scans")
    try:
        pixels = _jpeg_pixels(data, "CMYK" if colorspace in ("CMYK", "YCCK") else "RGB")
    except ValueError as error:
        if str(error).startswith(DAMAGE):
            raise _refusal(data, error) from error
        return _decode_with_pillow(data, max_pixels)
    if b"Exif\0" in data or b"tiff:Orientation" in data:
        pixels = _orient(pixels, _orientation(data))
    return np.ascontiguousarray(pixels)


def _jpeg_pixels(data: bytes, colorspace: Literal["RGB", "CMYK"]) -> Rgb:
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace)
    except ValueError as error:
        padding = PADDING.search(str(error))
        if padding is None or int(padding[1]) > MAX_PADDING_BYTES:
            raise
        pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=False)
    return pixels if colorspace == "RGB" else _from_inverted_cmyk(pixels)


def _has_few_scans(data: bytes) -> bool:
    """Whether the decoder will meet at most MAX_SCANS scans, found by walking from marker to marker."""
    position, scans = 2, 0
    while (found := SCAN_END.search(data, position)) and found[0] != b"\xff\xd9":
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)
        scans += found[0] == b"\xff\xda"
        if scans > MAX_SCANS:
            return False
    return True


def _from_inverted_cmyk(cmyk: UInt8[np.ndarray, "y x 4"]) -> Rgb:
    """JPEG stores ink inverted (255 is none), as Adobe does."""
    pixels = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for rows in _bands(*cmyk.shape[:2]):
        ink = cmyk[rows].astype(np.uint16)
        pixels[rows] = (ink[..., :3] * ink[..., 3:] + 127) // 255
    return pixels


def _bands(height: int, width: int) -> Iterator[slice]:
    """The rows of an image, a few at a time."""
    step = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _orientation(data: bytes) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; 1 where the metadata cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = Image.open(io.BytesIO(data), formats=("JPEG",)).getexif().get(ExifTags.Base.Orientation, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) else 1


def _orient(pixels: Rgb, orientation: int) -> UInt8[np.ndarray, "height width 3"]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _decode_with_pillow(data: bytes, max_pixels: int) -> Rgb:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height, max_pixels)
                image.load()
                _check_size(image.width, image.height, max_pixels)  # an icon may hold more than it announces
                return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except DECODER_ERRORS as error:
        raise _refusal(data, error) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:
        return image  # metadata that cannot be read: the pixels are whole, shown as stored


def _to_rgb(image: Image.Image) -> Rgb:
    if image.mode in ("F", "LAB"):
        raise BadSample(
            Reason.NOT_AN_IMAGE, f"an image of mode {image.mode} has no agreed brightness; store it with 8 or 16 bits"
        )
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows in _bands(image.height, image.width):
        pixels[rows] = _band_to_rgb(image.crop((0, rows.start, image.width, rows.stop)))
    return pixels


def _band_to_rgb(image: Image.Image) -> Rgb:
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image))
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _from_16_bit(grey: Shaped[np.ndarray, "y x"]) -> Rgb:
    """0 .. 65535 to 0 .. 255, scaled, not clipped."""
    if grey.min() < 0 or grey.max() > 65535:
        raise BadSample(Reason.NOT_AN_IMAGE, "a 32-bit image has no agreed brightness; store it with 8 or 16 bits")
    scaled = ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2)


def resize_square(
    image: Rgb, size: int, interpolation: Literal["bilinear", "bicubic"]
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Stretch to `size` x `size` without a crop: antialiased where it shrinks, on uint8, clamped to 0 .. 255."""
    import torch  # lazily: reading a recipe needs no torch

    if image.shape[:2] == (size, size):
        return image
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(
        pixels, (size, size), mode=interpolation, align_corners=False, antialias=True
    )
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def fitted(image: Rgb, longest: int) -> UInt8[np.ndarray, "height width 3"]:
    """The whole image, shrunk (bicubic, antialiased) so that no side is longer than `longest`; never enlarged."""
    height, width, _ = image.shape
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
