"""Pixels: full-size masks are what interpolating, softmax and argmax of the whole give, in tiles of any size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relabel.labelers import pixels
from relabel.labelers.pixels import Pixels, classify_pixels


def grid(classes: int, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(classes, rows, columns, generator=torch.Generator().manual_seed(seed))


def reference(logits: torch.Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [classes, height, width] at once, and how far the best two classes are apart."""
    full = torch.nn.functional.interpolate(logits[None].double(), (height, width), mode="bilinear")[0]
    best = full.topk(2, dim=0).values
    return full.softmax(dim=0).numpy(), (best[0] - best[1]).numpy()


@given(
    st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(2, 12), st.integers(0, 99)
)
def test_they_are_what_the_whole_gives(shape: tuple[int, int], size: tuple[int, int], classes: int, seed: int) -> None:
    logits = grid(classes, *shape, seed)
    found = classify_pixels(logits, *size, 0.0, "|u1", 255)
    probabilities, margin = reference(logits, *size)
    clear = margin > 1e-4
    assert (found.map == probabilities.argmax(axis=0))[clear].all()
    assert found.classes.tolist() == np.unique(found.map).tolist()
    means = [probabilities[index][found.map == index].mean() for index in found.classes]
    assert found.confidence == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("tile_bytes", [1, 40, 1000, 10**6])
def test_tiles_leave_no_trace(tile_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = grid(7, 6, 5)
    whole = classify_pixels(logits, 33, 21, 0.4, "|u1", 255)
    monkeypatch.setattr(pixels, "TILE_BYTES", tile_bytes)
    assert same(classify_pixels(logits, 33, 21, 0.4, "|u1", 255), whole)


def test_memory_is_bounded_by_tiles() -> None:
    for height, width, classes in [(4000, 6000, 150), (1, 10**7, 1000), (10**7, 1, 60000), (1, 1, 2)]:
        tiles = pixels._tiles(height, width, classes)
        sizes = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in tiles]
        assert sum(sizes) == height * width
        assert max(sizes) * classes * 4 <= pixels.TILE_BYTES


def test_unsure_pixels_are_ignored_and_count_for_nothing() -> None:
    logits = grid(4, 5, 6)
    everything, sure = (classify_pixels(logits, 20, 30, least, "|u1", 255) for least in (0.0, 0.7))
    probability = reference(logits, 20, 30)[0].max(axis=0)
    clear = np.abs(probability - 0.7) > 1e-4
    assert ((sure.map == 255) == (probability < 0.7))[clear].all()
    assert (sure.map == everything.map)[sure.map != 255].all()
    assert 0 < (sure.map == 255).mean() < 1
    assert (sure.confidence >= 0.7).all()
    nothing = classify_pixels(grid(4, 5, 6) * 0, 20, 30, 0.9, "|u1", 255)
    assert (nothing.map == 255).all()
    assert (len(nothing.classes), len(nothing.confidence)) == (0, 0)


def test_more_than_255_classes_need_two_bytes() -> None:
    logits = torch.zeros(300, 2, 2)
    logits[299, :, 1] = 30
    logits[255, :, 0] = 30
    found = classify_pixels(logits, 4, 4, 0.99, "<u2", 65535)
    assert found.map.dtype == np.uint16
    assert (found.map[:, 0] == 255).all()
    assert (found.map[:, 3] == 299).all()
    assert found.classes.tolist() == [255, 299]
    assert found.classes.dtype == np.uint16


def test_of_equal_classes_the_lowest_wins() -> None:
    logits = torch.zeros(5, 3, 3)
    logits[[1, 3]] = 2.0
    assert (classify_pixels(logits, 9, 9, 0.0, "|u1", 255).map == 1).all()


def test_borders_lie_where_the_cells_meet() -> None:
    """Two columns of cells of opposite logits: the border is the middle of the image, at any width."""
    logits = torch.tensor([[[4.0, -4.0]], [[-4.0, 4.0]]])
    for width in (2, 10, 64, 1001):
        found = classify_pixels(logits, 3, width, 0.0, "|u1", 255)
        assert (found.map == (np.arange(width) + 0.5 > width / 2)).all()


def same(one: Pixels, other: Pixels) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))
