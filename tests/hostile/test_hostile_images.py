"""Hostile images: labelled, or a dead sample with the right reason; memory bounded by pixels; no warning leaks."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from confined import confined
from PIL import ExifTags, Image

from relabel.errors import BadSample
from relabel.labelers.images import MAX_PIXELS, decode_image
from relabel.reasons import Reason

SMALL = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def saved(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, body: bytes = b"", *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def replaced(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    start = data.index(mark) + offset
    return data[:start] + value + data[start + len(value) :]


def tiff(width: int, height: int) -> bytes:
    data = saved(SMALL, "TIFF")
    for tag, value in ((256, width), (257, height)):
        data = replaced(data, struct.pack("<HHI", tag, 4, 1), 0, struct.pack("<HHII", tag, 4, 1, value))
    return data


def icon(width: int, height: int) -> bytes:
    """An icon that says 16 x 16 and holds a larger PNG."""
    body = png(width, height, zlib.compress(bytes(10)))
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(body), 22) + body


HUGE: dict[str, Callable[[int, int], bytes]] = {
    "PNG": png,
    "JPEG": lambda x, y: replaced(saved(SMALL, "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", y, x)),
    "progressive JPEG": lambda x, y: replaced(
        saved(SMALL, "JPEG", progressive=True), b"\xff\xc2", 5, struct.pack(">HH", y, x)
    ),
    "GIF": lambda x, y: replaced(saved(SMALL, "GIF"), b"GIF8", 6, struct.pack("<HH", x, y)),
    "TIFF": tiff,
    "BMP": lambda x, y: replaced(saved(SMALL, "BMP"), b"BM", 18, struct.pack("<ii", x, y)),
    "WEBP": lambda x, y: replaced(
        saved(SMALL, "WEBP"), b"\x9d\x01\x2a", 3, struct.pack("<HH", min(x, 16383), min(y, 16383))
    ),
    "ICO": icon,
    "PPM": lambda x, y: b"P6 %d %d 255 " % (x, y),
}


@pytest.mark.parametrize("size", [(9460, 9460), (13_000, 13_000), (65_000, 65_000)], ids=str)
@pytest.mark.parametrize("form", HUGE)
def test_huge_dimensions_are_refused_by_the_header(form: str, size: tuple[int, int]) -> None:
    """Below Pillow's own limits too, where it only warns."""
    with pytest.raises(BadSample) as caught:
        decode_image(HUGE[form](*size))
    assert caught.value.reason == Reason.IMAGE_TOO_LARGE, caught.value.detail


@pytest.mark.parametrize(
    ("channels", "options"),
    [(3, {}), (4, {"colour": 6}), (6, {"depth": 16}), (1, {"colour": 0})],
    ids=["RGB", "RGBA", "16 bit", "grey"],
)  # fmt: skip
def test_the_largest_image_stays_below_its_cap(channels: int, options: dict[str, int], tmp_path: Any) -> None:
    width, height = 4000, 4000
    row = zlib.compress(bytes((width * channels + 1) * height), 1)
    (tmp_path / "a.png").write_bytes(png(width, height, row, **options))
    code = """
from pathlib import Path
from relabel.labelers.images import decode_image
import relabel.labelers.images, PIL.Image
data = Path(sys.argv[1]).read_bytes()
guarded(lambda: decode_image(data).shape)
"""
    answer = confined(code, str(tmp_path / "a.png"))
    assert answer["answer"] == [height, width, 3]
    assert answer["grown"] < 12 * width * height + (64 << 20)


def test_the_default_limit_is_where_pillow_warns() -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    data = saved(np.zeros((2000, 2000, 3), np.uint8), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    with pytest.raises(BadSample, match="scans") as caught:
        decode_image(data[:-2] + scan * 5000 + data[-2:])
    assert caught.value.reason == Reason.CORRUPT_IMAGE
    assert decode_image(data).shape == (2000, 2000, 3)


def with_exif(garbage: bytes) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    data = saved(SMALL, "JPEG", exif=exif)
    start = data.index(b"Exif\0\0") + 6
    return data[:start] + garbage + data[start + len(garbage) :]


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("payload.txt", "x" * 100)
    return buffer.getvalue()


FINE: dict[str, Callable[[], bytes]] = {
    "JPEG and zip": lambda: zipped(saved(SMALL, "JPEG")),
    "PNG and zip": lambda: zipped(saved(SMALL, "PNG")),
    "GIF and JavaScript": lambda: saved(SMALL, "GIF") + b"/*<script>alert(1)</script>*/",
    "EXIF of garbage": lambda: with_exif(b"\xff" * 20),
    "EXIF in a circle": lambda: with_exif(b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0"),
    "ICC of garbage": lambda: saved(SMALL, "PNG", icc_profile=b"\0\xff" * 100),
    "JPEG ICC of garbage": lambda: saved(SMALL, "JPEG", icc_profile=b"\xff" * 100),
    "animated GIF": lambda: saved(SMALL, "GIF", save_all=True, append_images=[Image.fromarray(255 - SMALL)] * 3),
    "animated WebP": lambda: saved(SMALL, "WEBP", save_all=True, append_images=[Image.fromarray(255 - SMALL)] * 3),
    "CMYK": lambda: saved(Image.fromarray(SMALL).convert("CMYK"), "JPEG"),
    "CMYK TIFF": lambda: saved(Image.fromarray(SMALL).convert("CMYK"), "TIFF"),
    "16 bit": lambda: saved(SMALL[..., 0].astype(np.uint16) * 257, "PNG"),
    "palette and transparency": lambda: saved(Image.fromarray(SMALL).convert("P"), "PNG", transparency=b"\0\x80\xff"),
}


@pytest.mark.parametrize("kind", FINE)
def test_odd_images_are_decoded(kind: str) -> None:
    assert decode_image(FINE[kind]()).shape == (8, 8, 3)


REFUSED: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "nothing": (lambda: b"", Reason.NOT_AN_IMAGE),
    "SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>', Reason.NOT_AN_IMAGE),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", Reason.NOT_AN_IMAGE),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) system\n", Reason.NOT_AN_IMAGE),
    "PDF": (lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", Reason.NOT_AN_IMAGE),
    "a pickle": (lambda: b"\x80\x04\x95" + bytes(40), Reason.NOT_AN_IMAGE),
    "zero width": (lambda: png(0, 8, zlib.compress(bytes(8))), Reason.CORRUPT_IMAGE),
    "PNG without data": (lambda: png(8, 8), Reason.CORRUPT_IMAGE),
    "PNG text bomb": (
        lambda: png(8, 8, zlib.compress(bytes(200)), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 27)))),
        Reason.CORRUPT_IMAGE,
    ),
    "JPEG header only": (lambda: saved(SMALL, "JPEG")[:200], Reason.CORRUPT_IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_pretenders_are_refused(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(BadSample) as caught:
        decode_image(make())
    assert caught.value.reason == reason, caught.value.detail


def damaged(data: bytes) -> Iterator[bytes]:
    for size in range(0, len(data), max(1, len(data) // 40)):
        yield data[:size]
    for bit in range(0, len(data) * 8, max(1, len(data) * 8 // 120)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "JPEG2000", "PPM", "AVIF"])
def test_cut_and_flipped_images_never_raise_anything_else(form: str) -> None:
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {form}")
    for data in damaged(saved(np.tile(SMALL, (4, 4, 1)), form)):
        try:
            assert decode_image(data, max_pixels=1 << 20).dtype == np.uint8
        except BadSample as error:
            assert error.reason in {Reason.CORRUPT_IMAGE, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE}


def test_decoders_say_nothing_on_standard_error() -> None:
    """Libraries in C print what they think of a damaged file; a run of a million samples would drown in it."""
    code = """
import sys
from relabel.labelers.images import decode_image
from relabel.errors import BadSample
data = sys.stdin.buffer.read()
for size in range(10, len(data), 7):
    try:
        decode_image(data[:size])
    except BadSample:
        continue
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input=saved(SMALL, "JPEG"), capture_output=True,
                          check=True, env={"PYTHONPATH": "operators"})  # fmt: skip
    assert done.stderr == b""
