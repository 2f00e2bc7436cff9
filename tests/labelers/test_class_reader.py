"""Class readers: what a class may be called, and what comes of other words."""

from typing import Any

import planted_labels as planted
import pytest

from relabel.errors import BadSample, UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.kinds import scores
from relabel.refiners.label_prior import LabelPrior, LabelPriorParameters


def reader(**parameters: Any) -> LabelPrior:
    made = LabelPrior(LabelPriorParameters(probabilities="said", gold=ClassSource(field="topic"), **parameters))
    found: LabelPrior = planted.told(made, ["said"], 3)
    return found


@pytest.mark.parametrize(
    ("value", "number"),
    [("class 1", 1), (b" class 2\n", 2), ("0", 0), (2, 2), ("", -1), (b"  ", -1), (None, -1)],
)
def test_a_field_holds_a_name_or_a_number(value: Any, number: int) -> None:
    sample = {"__key__": "a"} if value is None else {"__key__": "a", "topic": value}
    assert int(reader().prepare(sample)["gold"]) == number


@pytest.mark.parametrize("value", ["class 3", "3", "-1", "1.0", "²", b"\xff", "x" * 20_000])
def test_other_words_are_bad_samples(value: Any) -> None:
    with pytest.raises(BadSample):
        reader().prepare({"__key__": "a", "topic": value})


def test_without_names_numbers_alone_are_known() -> None:
    made = reader()
    made.input_names = {}
    assert int(made.prepare({"__key__": "a", "topic": "1"})["gold"]) == 1
    with pytest.raises(BadSample, match="0 to 2"):
        made.prepare({"__key__": "a", "topic": "class 1"})


def test_labels_that_are_lacking_or_none_are_told() -> None:
    made = reader()
    made.inputs = {}
    assert made.class_names() == ()
    with pytest.raises(UsageError, match="put the step that writes it before"):
        made.writes()
    made.inputs = {"said": scores("said", "a")}
    with pytest.raises(UsageError, match="expected to give probabilities"):
        made.writes()


def test_a_source_is_a_label_or_a_field() -> None:
    assert ClassSource.model_validate("topic") == ClassSource(label="topic")
    for wrong in ({}, {"label": "a", "field": "b"}, {"field": ""}):
        with pytest.raises(ValueError):  # noqa: PT011
            ClassSource.model_validate(wrong)


def test_statistics_over_different_things_are_different_ones() -> None:
    """What is kept of one is not taken for another's."""
    found = set()
    for probabilities in ("said", "heard"):
        for gold in (ClassSource(field="topic"), ClassSource(field="subject"), ClassSource(label=probabilities)):
            parameters = LabelPriorParameters(probabilities=probabilities, gold=gold, log_prior=(0.0, 0.0, 0.0))
            statistic = planted.told(LabelPrior(parameters), [probabilities], 3).statistic()
            assert statistic is not None
            found.add(statistic.fingerprint())
    assert len(found) == 6
