"""Images: every kind that a data set holds is decoded right, or refused with a reason a person understands."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from relabel.errors import BadSample
from relabel.labelers.images import decode_image, resize_square
from relabel.reasons import Reason

RED, WHITE = (220, 40, 30), (255, 255, 255)


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth and asymmetric: a JPEG keeps it, and no flip or rotation leaves it as it is."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)], axis=-1)
    image[: height // 3, : width // 4] = RED
    return image.astype(np.uint8)


def saved(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def refusal(data: bytes, **options: int) -> BadSample:
    with pytest.raises(BadSample) as caught:
        decode_image(data, **options)
    return caught.value


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PPM", {}), ("JPEG2000", {})],
)
def test_lossless_formats_come_back_exactly(form: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode_image(saved(scene(), form, **options)), scene())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_jpeg_is_what_pillow_shows(options: dict[str, Any]) -> None:
    data = saved(scene(), "JPEG", quality=95, **options)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode_image(data) - shown).max() <= 3
    assert decode_image(data).dtype == np.uint8


@pytest.mark.parametrize("subsampling", ["411", "440", "422"])
def test_rare_subsamplings(subsampling: str) -> None:
    data = simplejpeg.encode_jpeg(scene(), quality=95, colorsubsampling=subsampling)
    assert np.abs(decode_image(data).astype(int) - scene()).mean() < 4


def test_grey_jpeg_has_three_equal_channels() -> None:
    image = decode_image(saved(Image.fromarray(scene()).convert("L"), "JPEG"))
    assert image.shape == (48, 64, 3)
    assert (image == image[..., :1]).all()


def test_cmyk_jpeg_has_right_colours() -> None:
    flat = np.full((40, 40, 3), RED, np.uint8)
    image = decode_image(saved(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(image.astype(int) - RED).max() <= 6
    data = saved(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode_image(data) - shown).max() <= 2


def test_cmyk_jpeg_that_is_cut_off_is_refused() -> None:
    data = saved(Image.fromarray(scene()).convert("CMYK"), "JPEG")
    assert refusal(data[: len(data) * 2 // 3]).reason == Reason.CORRUPT_IMAGE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 97, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    data = saved(scene(), form, exif=exif, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    ours = decode_image(data)
    assert ours.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert np.abs(ours - upright).max() <= 3


def test_unreadable_exif_leaves_the_image_as_stored() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = saved(scene(), "JPEG", exif=exif)
    start = data.index(b"Exif\0\0") + 6
    for garbage in (b"\xff" * 20, b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08" + b"\xff" * 14):
        broken = data[:start] + garbage + data[start + len(garbage) :]
        assert decode_image(broken).shape == (48, 64, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (8, 1))
    expected = np.round(ramp / 65535 * 255)
    for form in ("PNG", "TIFF"):
        image = decode_image(saved(ramp, form))
        assert np.abs(image - expected[..., None]).max() <= 1
        assert (image[0, 0, 0], image[0, -1, 0]) == (0, 255)


def test_one_bit_png_is_black_and_white() -> None:
    mask = scene()[..., 0] > 128
    image = decode_image(saved(Image.fromarray(mask), "PNG"))
    assert np.array_equal(image, np.repeat(mask[..., None], 3, axis=2) * np.uint8(255))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, :32] = 255
    layered = np.dstack([scene(), alpha])
    expected = scene()
    expected[:, 32:] = WHITE
    assert np.array_equal(decode_image(saved(layered, "PNG")), expected)
    grey = decode_image(saved(Image.merge("LA", [Image.fromarray(scene()[..., 0]), Image.fromarray(alpha)]), "PNG"))
    assert (grey[:, 32:] == 255).all()
    assert np.array_equal(grey[:, :32, 0], scene()[:, :32, 0])


def test_palette_with_alpha() -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*RED, 10, 20, 30])
    palette.paste(1, (4, 0, 8, 8))
    image = decode_image(saved(palette, "PNG", transparency=bytes([255, 0])))
    assert image[0, 0].tolist() == list(RED)
    assert image[0, 7].tolist() == list(WHITE)


def test_colour_key_is_transparent_too() -> None:
    image = decode_image(saved(np.full((4, 4, 3), RED, np.uint8), "PNG", transparency=RED))
    assert (image == 255).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_counts(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    image = decode_image(saved(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert np.abs(image.astype(int) - RED).max() <= 2


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds one line."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(bytes(width))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [png_header(16_000, 16_000), png_header(100_000, 100_000), saved(np.zeros((80, 80, 3), np.uint8), "JPEG")],
    ids=["bomb", "huge bomb", "jpeg"],
)
def test_too_many_pixels_are_refused_by_the_header(data: bytes) -> None:
    limit = {"max_pixels": 6000} if data.startswith(b"\xff\xd8") else {}
    error = refusal(data, **limit)
    assert error.reason == Reason.IMAGE_TOO_LARGE
    assert "pixels" in error.detail


@pytest.mark.parametrize("data", [b"", b"hello, this is a caption", b"\0" * 500, b"RIFF\x10\0\0\0WAVEfmt ", b"BMW"])
def test_what_is_no_image_is_said_to_be_none(data: bytes) -> None:
    error = refusal(data)
    assert error.reason == Reason.NOT_AN_IMAGE
    assert f"{len(data)} bytes" in error.detail


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unscaled_brightness_is_refused(mode: str) -> None:
    deep = Image.new(mode, (4, 4), 100_000)
    error = refusal(saved(deep, "TIFF"))
    assert error.reason == Reason.NOT_AN_IMAGE
    assert "8 or 16 bits" in error.detail


ENCODINGS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(scene(), "JPEG"),
    "progressive JPEG": lambda: saved(scene(), "JPEG", progressive=True),
    "PNG": lambda: saved(scene(), "PNG"),
    "GIF": lambda: saved(scene(), "GIF"),
    "BMP": lambda: saved(scene(), "BMP"),
    "WebP": lambda: saved(scene(), "WEBP"),
    "TIFF": lambda: saved(scene(), "TIFF"),
    "TIFF LZW": lambda: saved(scene(), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_cut_file_is_refused_or_whole(kind: str) -> None:
    data = ENCODINGS[kind]()
    whole = decode_image(data)
    refused = 0
    for length in range(8, len(data), max(1, len(data) // 150)):
        try:
            assert np.array_equal(decode_image(data[:length]), whole), length
        except BadSample as error:
            refused += 1
            assert error.reason in (Reason.CORRUPT_IMAGE, Reason.NOT_AN_IMAGE)
    assert refused > 100


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG", "WebP"])
def test_a_cut_file_is_said_to_be_damaged(kind: str) -> None:
    data = ENCODINGS[kind]()
    error = refusal(data[: len(data) // 2])
    assert error.reason == Reason.CORRUPT_IMAGE
    assert "cut off or damaged" in error.detail


def test_a_jpeg_with_overwritten_middle_is_refused() -> None:
    data = saved(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "JPEG")
    middle = len(data) // 2
    assert refusal(data[:middle] + b"\xff\x00" * 20 + data[middle + 40 :]).reason == Reason.CORRUPT_IMAGE


def test_stuffing_before_the_end_marker_is_no_damage() -> None:
    data = saved(scene(), "JPEG")
    assert np.array_equal(decode_image(data[:-2] + bytes(6) + data[-2:]), decode_image(data))
    assert np.array_equal(decode_image(data + b"trailing bytes"), decode_image(data))
    assert refusal(data[:-2] + bytes(100) + data[-2:]).reason == Reason.CORRUPT_IMAGE


@given(st.sampled_from(sorted(ENCODINGS)), st.lists(st.tuples(st.integers(2, 5000), st.integers(0, 255)), max_size=4))
@example("TIFF", [(4, 255)])
def test_damage_never_raises_anything_else(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(ENCODINGS[kind]())
    for place, value in changes:
        data[place % len(data)] = value
    try:
        image = decode_image(bytes(data), max_pixels=200_000)
    except BadSample as error:
        assert error.reason in {Reason.CORRUPT_IMAGE, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE}
        assert len(error.detail) > 10
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3


def test_lab_is_refused_with_advice() -> None:
    buffer = io.BytesIO()
    Image.new("LAB", (4, 4)).save(buffer, "TIFF", compression="raw", tiffinfo=TiffImagePlugin.ImageFileDirectory_v2())
    assert "mode LAB" in refusal(buffer.getvalue()).detail


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_keeps_what_lies_where(interpolation: Any) -> None:
    image = np.zeros((300, 500, 3), np.uint8)
    image[:150, :250] = 200
    square = resize_square(image, 64, interpolation)
    assert square.shape == (64, 64, 3)
    assert (square[:28, :28] == 200).all()
    assert (square[36:] == 0).all()
    assert (square[:, 36:] == 0).all()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for interpolation in ("bilinear", "bicubic"):
        square = resize_square(stripes, 64, interpolation)
        assert np.abs(square[:, 2:-2].astype(int) - 128).max() <= 6


def test_the_right_size_is_left_alone_and_one_pixel_fills_a_square() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(resize_square(image, 64, "bicubic"), image)
    assert (resize_square(np.full((1, 1, 3), RED, np.uint8), 32, "bicubic") == RED).all()


def test_reading_only_memory_can_be_resized() -> None:
    image = scene()
    image.flags.writeable = False
    assert resize_square(image, 32, "bilinear").shape == (32, 32, 3)
