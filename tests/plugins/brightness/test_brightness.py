"""The labeler keeps relabel's rules, and measures what it says."""

import io

import numpy as np
from brightness import Brightness, BrightnessParameters
from PIL import Image

from relabel.testing import check_labeler


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_keeps_the_rules() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    check_labeler(Brightness(BrightnessParameters()), [{"image": png(pixels)} for pixels in noise])


def test_black_is_0_and_white_is_1() -> None:
    labeler = Brightness(BrightnessParameters(size=8))
    pages = [np.full((20, 30, 3), value, np.uint8) for value in (0, 255)]
    prepared = [labeler.prepare({"image": png(page)})["image"] for page in pages]
    labels = labeler({"image": np.stack(prepared)})
    assert list(labels["brightness_mean"]) == [0, 1]
    assert list(labels["brightness_spread"]) == [0, 0]
