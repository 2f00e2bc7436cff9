"""Content: the same pixels on every machine, and pictures on which a real classifier has something to say."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel.digests import sha256
from relabel.errors import UsageError
from relabel.labelers.content import MAX_IMAGES, MIN_IMAGES, fixed_images, folder_files, folder_images

DIGEST_OF_96 = "b40144aecf8c740f816723629b526a983dd71d6839accb3c242e36ad99fffc43"
"""Changes only with `content.VERSION`."""


def test_the_images_are_the_same_everywhere() -> None:
    assert sha256(fixed_images(96).tobytes()) == DIGEST_OF_96


def test_images_differ_and_use_the_whole_range() -> None:
    images = fixed_images(64)
    assert images.shape == (MAX_IMAGES, 64, 64, 3)
    assert len({image.tobytes() for image in images}) == MAX_IMAGES
    assert images.min() == 0
    assert images.max() == 255
    assert images.astype(np.float32).std(axis=(1, 2, 3)).min() > 20


def test_large_images_are_few() -> None:
    assert MIN_IMAGES <= len(fixed_images(1024)) < MAX_IMAGES


def test_a_folder_is_known_by_its_bytes_not_by_its_names(tmp_path: Path, photos: list[tuple[bytes, int]]) -> None:
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        (tmp_path / name).mkdir()
        for index, photo in enumerate(order):
            (tmp_path / name / f"{index}.jpg").write_bytes(photos[photo][0])
        (tmp_path / name / "readme.txt").write_text("not an image")
    first, digest = folder_images(str(tmp_path / "a"), 64)
    second, other = folder_images(str(tmp_path / "b"), 64)
    assert digest == other
    assert first.shape == (3, 64, 64, 3)
    assert np.array_equal(first, second)
    small = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(small, "PNG")
    (tmp_path / "b" / "red.png").write_bytes(small.getvalue())
    assert folder_images(str(tmp_path / "b"), 64)[1] != digest


@pytest.mark.parametrize("name", ["empty", "nothing"])
def test_a_folder_without_images_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"expects a folder with 1 to 512 images .* got 0 in"):
        folder_files(str(tmp_path / name))
