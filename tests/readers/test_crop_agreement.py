"""Agreement: label maps that are read wrongly are refused, each way to be wrong by a test of its own."""

from typing import Any

import pytest
from PIL import Image
from samples import GEOMETRY, contract, gradient, jpeg, label_map, opened, sample

from relabel.errors import Refused, UnknownName
from relabel.labels.contract import LabelContract
from relabel.labels.kinds import classes
from relabel.readers.crops import RandomResizedCrop, Resize

CROP = RandomResizedCrop(8, pool="label_map")


def columns(**axes: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(
        column.model_copy(update={"axes": axes.get(column.name.removeprefix("label_map_"), column.axes)})
        for column in contract().columns
    )


def geometry(**changes: Any) -> Any:
    """One that this relabel cannot write, as a newer one may."""
    return GEOMETRY.model_copy(update=changes)


WRONG = {
    "transposed ids": contract(columns=columns(ids=("x", "y", "k"))),
    "transposed scores": contract(columns=columns(scores=("x", "y", "k"))),
    "transposed residual": contract(columns=columns(residual=("x", "y"))),
    "probabilities": contract(score_domain="probability"),
    "renormalised top k": contract(residual=None),
    "another kind": classes("label_map", ["a", "b"]),
    "no geometry": contract(geometry=None),
    "a teacher that saw the middle only": contract(geometry=geometry(crop="center")),
    "a teacher that saw the aspect kept": contract(geometry=geometry(resize="shorter_side")),
    "x first": contract(geometry=geometry(box_order="x1, y1, x2, y2")),
    "an unknown orientation": contract(geometry=geometry(orientation="landscape")),
}


def test_the_right_contract_is_taken() -> None:
    CROP.check({"label_map": contract(), "others": classes("others", ["a", "b"])})
    RandomResizedCrop(8).check({})


@pytest.mark.parametrize("name", WRONG)
def test_a_contract_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="'label_map'"):
        CROP.check({"label_map": WRONG[name]})


def test_a_transposed_map_says_what_is_wrong() -> None:
    wrong: LabelContract = WRONG["transposed ids"]
    with pytest.raises(Refused, match=r"axes of ids .*expected \('y', 'x', 'k'\), the contract says \('x', 'y', 'k'\)"):
        CROP.check({"label_map": wrong})


def test_a_label_that_is_not_wanted_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'label_maps'"):
        CROP.check({"label_maps": contract("label_maps")})


def test_two_orientations_cannot_be_pooled_from_one_image() -> None:
    other = contract("other", geometry=geometry(orientation="stored"))
    with pytest.raises(Refused, match="different orientations"):
        RandomResizedCrop(8, pool=("label_map", "other")).check({"label_map": contract(), "other": other})


@pytest.mark.parametrize(("what", "size"), [("cropped", (150, 150)), ("turned", (160, 240)), ("padded", (240, 200))])
def test_an_image_that_is_not_the_labelled_one_is_refused_at_use(what: str, size: tuple[int, int]) -> None:
    given = {**sample(gradient(*size)), "label_map": label_map(160, 240)}
    if what == "turned":
        given["image"] = given["image"].transpose(Image.Transpose.ROTATE_90)
    with pytest.raises(Refused, match="made of an image of 240 x 160 pixels.*cropped, padded or turned"):
        CROP(given)


@pytest.mark.parametrize("size", [(80, 120), (53, 80), (321, 480), (16, 24)])
def test_the_same_image_at_another_size_is_taken(size: tuple[int, int]) -> None:
    found = Resize(8, pool="label_map")({**sample(gradient(*size)), "label_map": label_map(160, 240)})
    assert found["label_map"].sum() == pytest.approx(1, abs=1e-5)


def test_an_image_that_was_turned_by_its_tag_is_the_labelled_one() -> None:
    exif = Image.Exif()
    exif[274] = 6
    stored = gradient(240, 160)
    Resize(8, pool="label_map")({**sample(opened(jpeg(stored, exif=exif))), "label_map": label_map(160, 240)})
    with pytest.raises(Refused, match="made of an image of 160 x 240"):
        Resize(8, pool="label_map")({**sample(opened(jpeg(stored, exif=exif))), "label_map": label_map(240, 160)})
