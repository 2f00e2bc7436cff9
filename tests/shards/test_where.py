"""Where: conditions on fields, on text as numbers, and on members of JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from relabel.errors import BadSample
from relabel.shards.shard import Sample, Value
from relabel.shards.where import Condition, Where

FIELDS: dict[str, Value] = {
    "jpg": b"\xff\xd8",
    "cls": b"12\n",
    "txt": b"Ein Haus am See",
    "json": b'{"width": 640, "ok": true, "a": {"b.c": 1, "b": "deep"}, "none": null, "score": "0.25"}',
    "bad": b"{",
    "n": 3,
    "flag": False,
    "a.b": "dotted",
}


def admits(**condition: object) -> bool:
    return Where([Condition.model_validate(condition)]).admits(Sample("k", 0, FIELDS))


@pytest.mark.parametrize(
    "condition",
    [
        {"field": "json.width", "ge": 256},
        {"field": "json.width", "ge": 256, "lt": 641},
        {"field": "json.width", "eq": 640.0},
        {"field": "cls", "eq": 12},
        {"field": "cls", "in": [1, 12]},
        {"field": "cls", "not_in": [1, 2]},
        {"field": "json.score", "le": 0.25},
        {"field": "txt", "matches": "^Ein H"},
        {"field": "txt", "gt": "Ein"},
        {"field": "json.a.b", "eq": "deep"},
        {"field": "json.ok", "eq": True},
        {"field": "json.none", "exists": False},
        {"field": "json.width.deeper", "exists": False},
        {"field": "jpg", "exists": True},
        {"field": "png", "exists": False},
        {"field": "png", "ne": 1},
        {"field": "png", "not_in": [1]},
        {"field": "n", "ne": 4},
        {"field": "flag", "eq": False},
        {"field": "a.b", "eq": "dotted"},
    ],
)
def test_admitted(condition: dict[str, object]) -> None:
    assert admits(**condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"field": "json.width", "ge": 641},
        {"field": "json.width", "ge": 256, "lt": 640},
        {"field": "json.width", "eq": "640"},
        {"field": "json.ok", "eq": 1},
        {"field": "cls", "ne": 12},
        {"field": "cls", "not_in": [12]},
        {"field": "cls", "eq": "12"},
        {"field": "cls", "lt": 12},
        {"field": "txt", "gt": 3},
        {"field": "txt", "matches": "See .+"},
        {"field": "n", "matches": "3"},
        {"field": "png", "eq": 1},
        {"field": "png", "exists": True},
        {"field": "png", "ne": 1, "exists": True},
        {"field": "jpg", "exists": False},
        {"field": "png", "matches": ""},
        {"field": "json.none", "ge": 0},
        {"field": "flag", "eq": 0},
    ],
)
def test_not_admitted(condition: dict[str, object]) -> None:
    assert not admits(**condition)


def test_all_conditions_must_hold() -> None:
    yes, no = Condition(field="n", eq=3), Condition(field="n", eq=4)
    sample = Sample("k", 0, FIELDS)
    assert Where([]).admits(sample)
    assert Where([yes, yes]).admits(sample)
    assert not Where([yes, no]).admits(sample)


@pytest.mark.parametrize(("field", "message"), [("bad.x", "not JSON"), ("jpg", "not UTF-8"), ("jpg.x", "not JSON")])
def test_metadata_that_cannot_be_read_costs_the_sample(field: str, message: str) -> None:
    with pytest.raises(BadSample, match=message) as caught:
        admits(field=field, eq=1)
    assert caught.value.reason == "bad_metadata"


def test_deeply_nested_json_costs_the_sample() -> None:
    sample = Sample("k", 0, {"json": b"[" * 100_000})
    with pytest.raises(BadSample):
        Where([Condition(field="json.x", eq=1)]).admits(sample)


@pytest.mark.parametrize(
    "condition",
    [{"field": "a"}, {"field": "", "eq": 1}, {"field": "a", "matches": "("}, {"field": "a", "equals": 1}, {"eq": 1}],
)
def test_conditions_that_say_nothing_are_refused(condition: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(condition)


scalars = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3))


@given(st.text(min_size=1), scalars, st.lists(scalars, max_size=3))
def test_a_condition_survives_the_resolved_recipe(field: str, operand: object, several: list[object]) -> None:
    condition = Condition.model_validate({"field": field, "eq": operand, "in": several})
    written = condition.model_dump(mode="json")
    assert written == {"field": field, "eq": operand, "in": several}
    again = Condition.model_validate(written)
    assert again == condition
    assert type(again.eq) is type(operand)
