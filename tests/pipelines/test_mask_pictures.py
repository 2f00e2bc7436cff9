"""Pictures of masks: colours, borders, stripes and numbers lie where the mask says, and mean what the list says."""

import io
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from matplotlib.colors import to_rgb
from PIL import Image

from pipelines import mask_rows
from pipelines.agreement import CellAgreement
from pipelines.drawing import OTHER, PreviewSample
from pipelines.mask_rows import PALETTE, class_colours, middle, painted, resampled
from pipelines.preview import render
from pipelines.readings import NOTHING, Classified
from pipelines.side_by_side import Pair, class_colours_of
from pipelines.side_by_side import render as render_pairs
from relabel.labels.mask import Mask

NAMES = [f"class {index}" for index in range(30)]


def mask_of(ids: np.ndarray) -> Mask:
    present = np.unique(ids[ids != 255]).astype(np.uint8)
    return Mask(ids.astype(np.uint8), present, np.full(len(present), 0.8, np.float32), len(NAMES), 255)


@pytest.fixture
def sample() -> PreviewSample:
    """Class 3 in the left third, class 7 beside it, and a strip below that is ignored."""
    ids = np.full((60, 90), 7)
    ids[:, :30] = 3
    ids[50:] = 255
    return PreviewSample(np.full((60, 90, 3), 128, np.uint8), mask_of(ids), NAMES, "an old label", "a sample")


def drawn(samples: list[PreviewSample], folder: Path) -> UInt8[np.ndarray, "y x 3"]:
    render(samples, folder / "masks.png", "mask")
    return np.asarray(Image.open(io.BytesIO((folder / "masks.png").read_bytes())).convert("RGB"))


def test_regions_lie_on_the_photo_the_right_way_round(sample: PreviewSample, tmp_path: Path) -> None:
    """Read transposed or mirrored, the colours would lie elsewhere."""
    picture = drawn([sample], tmp_path)[:, : int(0.53 * 1650)].astype(int)
    left, right = (np.nonzero(np.abs(picture - over_grey(PALETTE[index])).sum(axis=2) < 12) for index in (3, 7))
    assert len(right[1]) == pytest.approx(2 * len(left[1]), rel=0.15)
    assert left[1].max() < right[1].min()
    assert abs(left[0].max() - right[0].max()) < 3


def over_grey(colour: str) -> np.ndarray:
    """As a class is drawn over a photo of grey 128."""
    grey = (110 + 128 * 145 / 255) / 255
    return np.round(255 * (mask_rows.STRENGTH * np.array(to_rgb(colour)) + (1 - mask_rows.STRENGTH) * grey))


def test_borders_stripes_and_classes_that_are_not_listed() -> None:
    regions = np.repeat([[0] * 20 + [1] * 20 + [NOTHING] * 20], 40, axis=0)
    pixels = painted(np.full((40, 60, 3), 200, np.uint8), regions, {0: "#0072b2"})
    assert len(np.unique(pixels[:, :18].reshape(-1, 3), axis=0)) == 1
    assert not np.array_equal(pixels[0, 0], pixels[0, 30])
    assert np.ptp(pixels[0, 30].astype(int)) < 15, OTHER
    assert len(np.unique(pixels[:, 43:].reshape(-1, 3), axis=0)) == 2
    for border in (19, 39):
        assert pixels[:, border].mean() < 50
        assert (pixels[:, border - 1] == 255).all()


def test_a_class_keeps_its_colour() -> None:
    assert class_colours([3, 0, 9]) == {3: PALETTE[3], 0: PALETTE[0], 9: PALETTE[9]}
    assert class_colours([9, 3]) == {9: PALETTE[9], 3: PALETTE[3]}
    many = class_colours([2, 12, 22])
    assert many[2] == PALETTE[2]
    assert len(set(many.values())) == 3
    assert set(class_colours(range(30)).values()) == set(PALETTE)


def test_numbers_stand_inside_what_they_name() -> None:
    ring = np.ones((80, 80), np.bool_)
    ring[25:, 25:] = False
    place = middle(ring)
    assert place is not None
    assert ring[int(place[0]), int(place[1])]
    assert middle(np.zeros((80, 80), np.bool_)) is None
    assert middle(np.eye(80, dtype=np.bool_)) is None


def test_large_masks_are_drawn_as_small_ones() -> None:
    whole = np.repeat(np.repeat(np.arange(6).reshape(2, 3), 50, axis=0), 40, axis=1)
    assert resampled(whole, (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.array_equal(resampled(np.arange(6).reshape(2, 3), (100, 120)), whole)


def test_any_mask_is_drawn(sample: PreviewSample, tmp_path: Path) -> None:
    """Thin, of many classes, of none."""
    sizes = {(1, 90): np.arange(90)[None] % 30, (300, 2): np.full((300, 2), 255), (64, 64): np.eye(64) * 29}
    others = [
        PreviewSample(np.zeros((*shape, 3), np.uint8), mask_of(ids), NAMES, None, "$x_1$ " * 30)
        for shape, ids in sizes.items()
    ]
    picture = drawn([sample, *others], tmp_path)
    assert picture.shape[1] == 1650
    assert np.array_equal(picture, drawn([sample, *others], tmp_path))


def side(ids: np.ndarray) -> Classified:
    masses = np.bincount(ids[ids >= 0], minlength=len(NAMES)) / ids.size
    return Classified(masses, ids, np.full(ids.shape, 0.9), "mask")


def test_two_masks_side_by_side(tmp_path: Path) -> None:
    """A class has one colour in all rows."""
    ids = np.full((40, 60), 4)
    ids[:, 20:] = 14
    other = np.where(ids == 4, 8, NOTHING)
    image = np.full((40, 60, 3), 90, np.uint8)
    pairs = [
        Pair(image, "one", None, side(ids), side(other), CellAgreement(0.0, 1 / 3)),
        Pair(image, "two", "old", side(other), side(np.full_like(ids, NOTHING)), CellAgreement(0.0, 0.0)),
    ]
    first, second = class_colours_of(pairs)
    assert first[4] == second.get(4, first[4])
    assert first[8] == second[8]
    assert len({first[4], first[8], first[14]}) == 3
    render_pairs(pairs, NAMES, ("a", "b"), "A and B", tmp_path / "pairs.png")
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.width == 2100
