"""Agreement: what two labels say of one image, by common classes and on one grid."""

import numpy as np
import pytest

from pipelines.agreement import (
    CellAgreement,
    Correspondence,
    by_common_ids,
    canonical,
    cell_agreement,
    correspond,
    mean_agreement,
    old_class,
)
from pipelines.readings import NOTHING, Classified, read
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Classes, Geometry
from relabel.labels.kinds import classes, scores, text
from relabel.labels.label_map import LabelMap, label_map_contract
from relabel.labels.mask import Mask, mask_contract

GEOMETRY = Geometry(size=64, interpolation="bilinear", orientation="exif")
PETS = ("tabby, tabby cat", "dog", "owl")
BEASTS = ("Owl", "polar_bear", "Tabby")


def declared(names: tuple[str, ...]) -> Classes:
    return ClassMap(names).declare()


def classified(cells: list[list[int]], num_classes: int = 4) -> Classified:
    grid = np.array(cells)
    masses = np.array([(grid == index).mean() for index in range(num_classes)])
    return Classified(masses, grid, np.full(grid.shape, 0.5))


def test_one_class_map_is_compared_by_ids() -> None:
    found = correspond(declared(PETS), PETS, declared(PETS), PETS)
    assert found.same_classes
    assert found.first.tolist() == found.second.tolist() == [0, 1, 2]
    assert found.note == "one class map of 3 classes"


def test_different_class_maps_are_compared_by_name_and_it_is_said() -> None:
    found = correspond(declared(PETS), PETS, declared(BEASTS), BEASTS)
    assert not found.same_classes
    assert found.first.tolist() == [0, 1, 2]
    assert found.second.tolist() == [2, 3, 0]
    assert list(found.names) == ["tabby", "dog", "owl", "polar_bear"]
    assert "different class maps (3 and 3 classes): compared by name, 2 names are in both" in found.note


def test_a_name_that_stands_for_two_classes_is_one() -> None:
    twice = ("crane", "dog", "crane")
    found = correspond(declared(twice), twice, declared(PETS), PETS)
    assert found.first.tolist() == [0, 1, 0]
    common = by_common_ids(classified([[0, 2, NOTHING, 1]], 3), found.first, len(found.names))
    assert common.cells.tolist() == [[0, 0, NOTHING, 1]]
    assert common.masses.tolist() == [0.5, 0.25, 0, 0]
    assert common.best == 0


@pytest.mark.parametrize("name", ["Polar_Bear", "polar bear, Ursus maritimus", " polar  bear"])
def test_names_are_one_whatever_their_spelling(name: str) -> None:
    assert canonical(name) == "polar bear"


def test_cells_agree_where_they_have_one_class() -> None:
    assert cell_agreement(classified([[0, 1], [2, 3]]), classified([[0, 1], [3, 3]])) == CellAgreement(0.75, 1.0)
    some = cell_agreement(classified([[0, NOTHING], [2, 3]]), classified([[0, 1], [3, NOTHING]]))
    assert (some, str(some)) == (CellAgreement(0.5, 0.5), "50 % of 50 %")
    assert cell_agreement(classified([[NOTHING]]), classified([[1]])) == CellAgreement(0.0, 0.0)


def test_images_count_by_their_compared_cells() -> None:
    mean = mean_agreement([CellAgreement(1.0, 0.1), CellAgreement(0.0, 0.3)])
    assert mean is not None
    assert (mean.equal, mean.compared) == (pytest.approx(0.25), pytest.approx(0.2))
    assert mean_agreement([CellAgreement(0.0, 0.0)]) == CellAgreement(0.0, 0.0)
    assert mean_agreement([]) is None


def test_grids_meet_on_the_finer_one() -> None:
    """A column is a column: read transposed, half would agree."""
    fine = classified([[0, 0, 1, 1]] * 6)
    assert cell_agreement(fine, classified([[0, 1]] * 2)).equal == 1
    assert cell_agreement(classified([[0, 1]] * 3), fine).equal == 1
    assert cell_agreement(fine, classified([[0, 0], [1, 1]])).equal == 0.5
    # Thirds at the centres of quarters: 1/8, 3/8, 5/8, 7/8 of the width.
    assert cell_agreement(classified([[0, 1, 1, 2]]), classified([[0, 1, 2]])).equal == 1


def test_an_old_label_is_an_index_only_into_one_class_map() -> None:
    one = correspond(declared(PETS), PETS, declared(PETS), PETS)
    two = correspond(declared(PETS), PETS, declared(BEASTS), BEASTS)
    assert [old_class(label, one) for label in ("2", "3", "tabby", "newt", None)] == [2, None, 0, None, None]
    assert [old_class(label, two) for label in ("2", "polar bear")] == [None, 3]


def test_label_maps_are_read_by_their_cells() -> None:
    ids = np.array([[[0, 1], [0, 2]], [[1, 0], [0, 1]]], np.uint16)
    scores_of = np.broadcast_to(np.array([3.0, 0.0], np.float16), ids.shape).copy()
    value = LabelMap(ids, scores_of, np.zeros((2, 2), np.float16), height=8, width=8, classes=3)
    reading = read(label_map_contract("map", declared(PETS), (2, 2), 2, GEOMETRY), PETS, value)
    assert reading.classified is not None
    assert reading.classified.cells.tolist() == [[0, 0], [1, 0]]
    sure = np.exp(3) / (np.exp(3) + 2)
    assert reading.classified.confidence == pytest.approx(sure, abs=1e-3)
    assert reading.classified.masses.sum() == pytest.approx(1, abs=1e-6)
    assert (reading.classified.best, reading.text) == (0, "tabby 69 %")
    assert value.top(1)[0] == (0, pytest.approx(reading.classified.masses[0]))


def test_masks_are_read_by_their_pixels() -> None:
    pixels = np.array([[0, 0, 2, 255], [0, 2, 2, 2]], np.uint8)
    value = Mask(pixels, np.array([0, 2], np.uint8), np.array([0.9, 0.6], np.float32), 3, 255)
    reading = read(mask_contract("mask", declared(PETS), GEOMETRY, 0.5), PETS, value)
    assert reading.text == "owl 50 %, tabby 38 %"
    assert reading.classified is not None
    assert reading.classified.cells.tolist() == [[0, 0, 2, NOTHING], [0, 2, 2, 2]]
    assert reading.classified.confidence == pytest.approx((3 * 0.9 + 4 * 0.6) / 7)
    nothing = Mask(np.full((1, 2), 255, np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.float32), 3, 255)
    empty = read(mask_contract("mask", declared(PETS), GEOMETRY, 0.5), PETS, nothing)
    assert empty.text == "all ignored"
    assert empty.classified is not None
    assert (empty.classified.best, empty.classified.confidence) == (NOTHING, 0)


def test_classes_are_a_map_of_one_cell_where_they_are_probabilities() -> None:
    columns = {"pet_ids": np.array([2, 0], np.uint16), "pet_scores": np.array([0.75, 0.25], np.float32)}
    reading = read(classes("pet", PETS, top_k=2), PETS, columns)
    assert reading.text == "owl 0.75, tabby 0.25"
    assert reading.classified is not None
    assert reading.classified.cells.tolist() == [[2]]
    assert reading.classified.confidence == 0.75
    assert read(classes("pet", PETS, top_k=2, domain="logit"), PETS, columns).classified is None


def test_other_labels_are_read_as_text() -> None:
    long = "a long story " * 20
    assert read(scores("light", "mean", "spread"), (), {"light_mean": 0.5, "light_spread": 1e-5}).text == (
        "mean 0.5, spread 1e-05"
    )
    assert len(read(text("told"), (), {"told_text": long}).text) < 70
    arrays = {"x_vector": np.arange(6.0), "x_few": np.array([1, 2]), "x_raw": b"123", "x_list": [1, 2]}
    shown = read(scores("x", "vector", "few", "raw", "list"), (), arrays).text
    assert shown == "vector [6] mean 2.5, few 1 2, raw 3 bytes, list [1, 2]"


def test_a_correspondence_says_how_many_names_meet() -> None:
    found = Correspondence(np.array([0, 1]), np.array([2, 3]), ["a", "b", "c", "d"], same_classes=False)
    assert "0 names are in both" in found.note
