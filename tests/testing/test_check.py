"""check_labeler: what keeps the rules passes, and whoever breaks one is told which."""

import pytest
from broken_labelers import BROKEN, Good, GoodClasses, GoodParameters, GoodVarying

from relabel import Labeler
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters
from relabel.testing import RuleBroken, check_labeler

TEXTS = [{"text": bytes((seed * 37 + index * (seed + 5)) % 251 for index in range(20 + seed))} for seed in range(5)]


@pytest.mark.parametrize("cls", [Good, GoodVarying, GoodClasses], ids=lambda cls: cls.__name__)
def test_what_keeps_the_rules_passes(cls: type[Good]) -> None:
    check_labeler(cls(GoodParameters(scale=0.5), "as_named"), TEXTS)


@pytest.mark.parametrize(("cls", "lesson"), BROKEN.items(), ids=[cls.__name__ for cls in BROKEN])
def test_every_broken_rule_is_told(cls: type[Good], lesson: str) -> None:
    samples = [{**text, "width": 3} for text in TEXTS]
    with pytest.raises(RuleBroken) as caught:
        check_labeler(cls(cls.Parameters()), samples)  # type: ignore[arg-type]
    assert lesson in str(caught.value)


def test_a_class_in_a_function_cannot_travel() -> None:
    class Local(Good):
        pass

    with pytest.raises(RuleBroken, match="at the top of a module"):
        check_labeler(Local(GoodParameters()), TEXTS)


def test_three_samples_with_all_fields_are_wanted() -> None:
    with pytest.raises(RuleBroken, match="at least three samples"):
        check_labeler(Good(GoodParameters()), TEXTS[:2])
    with pytest.raises(RuleBroken, match="one lacks text"):
        check_labeler(Good(GoodParameters()), [{"image": b"1"}] * 3)


def test_the_labeler_that_was_given_stays_as_it_was() -> None:
    labeler: Labeler[GoodParameters] = Good(GoodParameters())
    check_labeler(labeler, TEXTS, compute_batch=3)
    assert (labeler.facts, labeler.compute_batch) == ({}, 8)


def test_the_built_in_labeler_keeps_the_rules(photos: list[tuple[bytes, int]]) -> None:
    parameters = LabelMapParameters(model="efficientnet-lite0", input_size=64)
    check_labeler(LabelMapLabeler(parameters), [{"image": data} for data, _ in photos[:3]], compute_batch=2)
