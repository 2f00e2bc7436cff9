"""Labelers: what the base class gives to those who write one, and what makes a fingerprint."""

import math
from typing import Any

import numpy as np
import pytest

from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, classes
from relabel.errors import BadSample, Refused, UsageError
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.labelers.mask import MaskLabeler, MaskParameters
from relabel.labelers.registry import check_declaration
from relabel.reasons import Reason

GOLDEN = {
    "label_map": "83ae49eb794188209e2a13fccc41334e2d35bc6b9d4daa330067340da87d3608",
    "mask": "49f12898003065aed69c38f7d11d464be2ba0a9522a1f9488f40863735bf52d2",
}


class ToyParameters(Parameters):
    top_k: int = 1


class Toy(Labeler[ToyParameters]):
    """Needs nothing but numbers."""

    name, version = "toy", 3

    def writes(self) -> LabelContract:
        return classes(self.label, ["cat", "dog"], self.parameters.top_k)

    def prepare(self, sample: Fields) -> Prepared:
        return {"value": np.array(len(str(sample["image"])))}

    def __call__(self, batch: Batch) -> Labels:
        values = np.asarray(batch["value"])[:, None]
        return self.columns(ids=values % 2, scores=values / 10)


class Plain(Labeler[Parameters]):
    """Has no parameters, and is not whole."""


def test_parameters_stand_in_the_brackets() -> None:
    assert Toy.Parameters is ToyParameters
    assert type("Derived", (Toy,), {}).Parameters is ToyParameters  # type: ignore[attr-defined]
    assert Plain.Parameters is Parameters
    assert Toy(ToyParameters()).label == "toy"


def test_columns_take_names_and_dtypes_of_the_contract() -> None:
    labels = Toy(ToyParameters(), "guess")({"value": np.array([3, 4])})
    assert {name: np.asarray(values).dtype.str for name, values in labels.items()} == {
        "guess_ids": "<u2",
        "guess_scores": "<f4",
    }
    assert np.asarray(labels["guess_ids"]).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ids": np.ones((1, 1), np.int64)}, "the contract of 'toy' has the columns ids, scores"),
        ({"ids": np.ones((1, 1), np.float32), "scores": np.ones((1, 1))}, "is <u2 by its contract, got <f4"),
        ({"ids": np.array([["a"]]), "scores": np.ones((1, 1))}, "is <u2 by its contract, got <U1"),
    ],
)
def test_columns_that_break_the_contract_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        Toy(ToyParameters()).columns(**values)


@pytest.mark.parametrize(("ids", "score"), [(1, math.nan), (1, math.inf), (1, 1e300), (70_000, 1.0), (-1, 1.0)])
def test_values_that_the_dtype_cannot_hold_are_a_bad_sample(ids: int, score: float) -> None:
    with pytest.raises(BadSample) as caught:
        Toy(ToyParameters()).columns(ids=np.array([[ids]]), scores=np.array([[score]]))
    assert caught.value.reason == Reason.BAD_OUTPUT


def test_the_fingerprint_is_what_was_chosen_and_written() -> None:
    toy = Toy(ToyParameters())
    assert toy.source is not None
    assert list(toy.source["files"]) == ["test_labeler.py"]
    assert toy.fingerprint() == Toy(ToyParameters()).fingerprint()
    assert toy.fingerprint() != Toy(ToyParameters(top_k=2)).fingerprint()
    other = Toy(ToyParameters())
    other.source = {**toy.source, "digest": "0" * 64}
    assert toy.fingerprint() != other.fingerprint()


def test_a_built_in_labeler_means_what_it_meant() -> None:
    """Where this fails, stored labels would be made anew or be mixed with others: raise `version`, then pin again."""
    labeler = LabelMapLabeler(LabelMapParameters(model="efficientnet-lite0", input_size=224))
    assert (labeler.version, labeler.source) == (1, None)
    labeler.facts = {
        "weights": "w" * 64,
        "revision": None,
        "architecture": "efficientnet-lite0",
        "normalisation": {"scale": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3},
        "grid": [7, 7],
        "proof": "mean_of_cells",
        "calibration": None,
        "engine_error": None,
        "measured": None,
        "classes": {"digest": "c" * 64, "count": 1000},
        "class_names": ["any"],
    }
    assert labeler.fingerprint() == GOLDEN["label_map"]


def test_the_mask_labeler_means_what_it_meant() -> None:
    """As above."""
    labeler = MaskLabeler(MaskParameters(model="hf:org/name"))
    assert (labeler.version, labeler.source) == (1, None)
    labeler.facts = {
        "weights": "w" * 64,
        "revision": "r" * 40,
        "architecture": "a" * 64,
        "normalisation": {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "grid": [128, 128],
        "classes": {"digest": "c" * 64, "count": 150},
        "class_names": ["any"],
    }
    assert labeler.fingerprint() == GOLDEN["mask"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Toy"}, "name must be lower-case"),
        ({"name": None}, "name must be lower-case"),
        ({"version": 0}, "version must be a whole number from 1, got 0"),
        ({"version": True}, "version must be a whole number"),
        ({"Parameters": dict}, "Parameters must be a class that derives from relabel.Parameters"),
    ],
)
def test_an_incomplete_class_is_told_what_it_lacks(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_declaration(type("Broken", (Toy,), change))
    with pytest.raises(UsageError, match=r"derives from relabel\.Labeler"):
        check_declaration(dict)
    with pytest.raises(UsageError, match="lacks __call__, prepare, writes"):
        check_declaration(type("Broken", (Plain,), {"name": "plain", "version": 1}))
