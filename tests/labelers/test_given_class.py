"""The class that a data set gives: by name or number, else a dead letter."""

import pytest

from relabel.errors import BadSample
from relabel.labelers.given_class import GivenClass, GivenClassParameters
from relabel.reasons import Reason
from relabel.testing.check import check_labeler

NAMES = ("law", "sport", "7")


def labeler() -> GivenClass:
    return GivenClass(GivenClassParameters(field="topic", classes=NAMES), "topic")


def test_it_keeps_the_rules_of_labelers() -> None:
    check_labeler(labeler(), [{"topic": "law"}, {"topic": b" sport\n"}, {"topic": "1"}, {"topic": "7"}])


@pytest.mark.parametrize(("value", "id_"), [("law", 0), (b"sport\n", 1), ("0", 0), ("7", 2), (1, 1)])
def test_a_name_comes_before_a_number(value: str | bytes | int, id_: int) -> None:
    assert int(labeler().prepare({"topic": value})["id"]) == id_


@pytest.mark.parametrize("value", ["Law", "3", "-1", "", "1.0", b"\xff", "²"])
def test_what_names_no_class_is_a_dead_letter(value: str | bytes) -> None:
    with pytest.raises(BadSample, match="topic is none of the 3 classes") as caught:
        labeler().prepare({"topic": value})
    assert caught.value.reason == Reason.BAD_METADATA
