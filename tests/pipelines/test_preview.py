"""The preview: the picture says what the label map says."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.drawing import COLOURS, PreviewSample
from pipelines.map_rows import coloured_cells, view_of
from pipelines.preview import render
from pipelines.wording import percent, short_name
from relabel.errors import UsageError
from relabel.labels.label_map import LabelMap

NAMES = ["tabby, tabby cat", "espresso", "goose", "yurt", "drum", "cannon"]


@pytest.fixture
def sample() -> PreviewSample:
    """Two by three cells: surely a tabby in the left column, surely espresso in the other two."""
    ids = np.zeros((2, 3, 2), np.uint16)
    ids[:, 0] = (0, 1)
    ids[:, 1:] = (1, 0)
    scores = np.broadcast_to(np.array([9.0, 0.0], np.float16), ids.shape).copy()
    residual = np.zeros((2, 3), np.float16)
    label_map = LabelMap(ids=ids, scores=scores, residual=residual, height=60, width=90, classes=6)
    image = np.full((60, 90, 3), 200, np.uint8)
    return PreviewSample(image, label_map, NAMES, "tabby, tabby cat", "a cat and two cups")


def test_classes_are_listed_by_their_mass_with_their_share_of_cells(sample: PreviewSample) -> None:
    first, second, *rest = view_of(sample).entries
    assert (first.name, first.colour, first.cells) == ("espresso", COLOURS[0], pytest.approx(2 / 3))
    assert (second.name, second.cells) == ("tabby", pytest.approx(1 / 3))
    assert first.probability == pytest.approx(2 / 3, abs=1e-3)
    assert all(entry.cells == 0 and entry.probability < 1e-3 for entry in rest)


def test_cells_have_the_colour_of_their_class_and_the_opacity_of_its_probability() -> None:
    probabilities = np.zeros((1, 3, 4), np.float32)
    probabilities[0, :, :] = [[0.9, 0.1, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0, 1]]
    rgba = coloured_cells(probabilities, [0, 1])
    assert rgba[0, 0, :3] == pytest.approx([0xE4 / 255, 0x57 / 255, 0x2E / 255])
    assert rgba[0, 0, 3] > rgba[0, 1, 3] > 0
    assert rgba[0, 2].tolist() == [0, 0, 0, 0]


def test_the_map_lies_on_the_photo_the_right_way_round(sample: PreviewSample, tmp_path: Path) -> None:
    """Left third tabby, the rest espresso: read transposed, the colours would lie elsewhere."""
    picture = drawn([sample], tmp_path)
    tabby, espresso = (distance_to(picture, colour) < 60 for colour in (COLOURS[1], COLOURS[0]))
    # Further right lies the list with its bars.
    end = int(0.53 * picture.shape[1])
    left, right = np.nonzero(tabby[:, :end])[1], np.nonzero(espresso[:, :end])[1]
    assert len(left) > 1000
    assert len(right) == pytest.approx(2 * len(left), rel=0.05)
    assert left.max() < right.min() + 3


def test_equal_samples_give_equal_pictures_and_more_samples_a_taller_one(sample: PreviewSample, tmp_path: Path) -> None:
    one, two = drawn([sample], tmp_path), drawn([sample, sample], tmp_path)
    assert np.array_equal(one, drawn([sample], tmp_path))
    assert one.shape[1] == two.shape[1] == 1650
    assert two.shape[0] > 1.5 * one.shape[0]


def test_odd_names_are_drawn(sample: PreviewSample, tmp_path: Path) -> None:
    odd = dataclasses.replace(sample, old_label=None, title="$x_1$ & <b>", class_names=["$\\frac", *["long " * 30] * 5])
    assert drawn([odd], tmp_path).shape[1] == 1650


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        render([], tmp_path / "none.png")


@pytest.mark.parametrize(("fraction", "text"), [(0.0, "0 %"), (0.004, "< 1 %"), (0.014, "1 %"), (1.0, "100 %")])
def test_percentages(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_the_first_synonym_is_the_short_name() -> None:
    assert short_name("jeep, landrover") == "jeep"


def drawn(samples: list[PreviewSample], folder: Path) -> np.ndarray:
    render(samples, folder / "preview.png")
    return np.asarray(Image.open(io.BytesIO((folder / "preview.png").read_bytes())).convert("RGB"))


def distance_to(picture: np.ndarray, colour: str) -> np.ndarray:
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return np.abs(picture.astype(int) - rgb).sum(-1)
