"""Label sets and answers: exact names or nothing, and every kind of bad answer told apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from relabel.errors import UsageError
from relabel.labelers.excerpts import both_ends, excerpt, text_of
from relabel.labelers.json_answers import Reading, answer_schema, read_answer
from relabel.labelers.label_sets import LabelSet, label_set
from relabel.testing.judge import PLANTS

TOPICS = label_set(("sports", "business", "health care", "politics"))


def test_a_name_is_matched_whole_or_not_at_all() -> None:
    for said in ("sports", " SPORTS\n", "Health  Care", "ｓｐｏｒｔｓ"):
        assert TOPICS.match(said) is not None
    for said in ("sport", "no sports", "sports.", "health", "care", "health-care", "", "sports business"):
        assert TOPICS.match(said) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("a",), "2 to"),
        (("a", "A "), "spaces at its ends"),
        (("a b", "A B"), "twice"),
        (("a", ""), "printable"),
        (("a", "b\nc"), "one line"),
        (("a", "b" * 300), "200"),
        (("a", "<|im_end|>"), "Rename"),
    ],
)
def test_sets_whose_names_are_none_are_refused(given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        label_set(given)


def test_a_taxonomy_is_a_file_with_classes(tmp_path: Path) -> None:
    path = tmp_path / "topics.json"
    classes: list[dict[str, Any]] = [
        {"id": "t1", "name": "sports", "description": "matches\nand  players"},
        {"id": "t2", "name": "other sports"},
    ]
    path.write_text(json.dumps({"classes": classes, "trace": []}))
    found = label_set(str(path))
    assert found == LabelSet(("sports", "other sports"), ("matches and players", ""), ("t1", "t2"))
    assert found.defined() == "- sports: matches and players\n- other sports"
    assert found.listed() == "sports, other sports"
    assert found.lettered() == "A. sports\nB. other sports"
    same = json.dumps({"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]})
    for text, says in (
        ("{", "not JSON"), ("[]", "without classes"), ('{"classes": [1]}', "has a `name`"),
        (same, "needs a id of its own"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UsageError, match=says):
            label_set(str(path))
    with pytest.raises(UsageError, match="no file on this machine"):
        label_set(str(tmp_path / "none.json"))
    assert label_set({"a": "first", "b": ""}).defined() == "- a: first\n- b"


@pytest.mark.parametrize(
    ("plant", "most", "expected"),
    [
        ("malformed", 1, Reading((), ("parse_error",))),
        ("empty", 1, Reading((), ("parse_error",))),
        ("prose", 1, Reading((), ("parse_error",))),
        ("number", 1, Reading((), ("parse_error",))),
        ("member", 1, Reading((), ("parse_error",))),
        ("long", 1, Reading((), ("parse_error",))),
        ("many", 2, Reading((), ("parse_error",))),
        ("strange", 1, Reading((), ("out_of_taxonomy",))),
        ("substring", 1, Reading((), ("out_of_taxonomy",))),
        ("mixed", 2, Reading((0,), ("out_of_taxonomy",))),
        ("other", 1, Reading((), ("other",))),
        ("fenced", 1, Reading((0,), ())),
        ("second", 1, Reading((0,), ())),
        ("half", 1, Reading((0,), ())),
        ("twice", 3, Reading((0, 1), ())),
        ("many", 3, Reading((0, 1, 3), ())),
    ],
)
def test_every_bad_answer_has_a_flag_of_its_own(plant: str, most: int, expected: Reading) -> None:
    assert read_answer(PLANTS[plant], TOPICS, "Other", most) == expected
    assert expected.final == (expected.flags in ((), ("other",)))


def test_a_hostile_answer_costs_little() -> None:
    for text in ("{" * 1_000_000, "[" * 1_000_000, '{"a":' * 100_000, '{"label": "' + "x" * 10_000_000):
        assert read_answer(text, TOPICS, "", 1).flags == ("parse_error",)
    assert read_answer('{"label": "Other"}', TOPICS, "", 1).flags == ("out_of_taxonomy",), "nobody offered it"


def test_the_schema_is_that_of_the_answer() -> None:
    import jsonschema

    for most, answer, bad in (
        (1, {"label": "sports"}, {"label": ["sports"]}),
        (2, {"labels": ["sports", "Other"]}, {"labels": ["a"]}),
    ):
        schema = answer_schema(TOPICS, "Other", most)
        jsonschema.validate(answer, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_an_excerpt_is_the_beginning_and_the_end() -> None:
    words = " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrst")
    assert excerpt(words, 20, 0.75) == excerpt(words, 99, 0.0)
    assert not excerpt(words, 20, 0.75).truncated
    cut = excerpt(words, 8, 0.75)
    assert (cut.text, cut.truncated) == ("worda wordb wordc wordd worde wordf … words wordt", True)
    assert excerpt(words, 4, 1.0).text == "worda wordb wordc wordd …"
    assert excerpt(words, 4, 0.0).text == "… wordq wordr words wordt"
    assert excerpt("a" * 1000, 4, 0.5).text == f"{'a' * 16} … {'a' * 16}", "a word without end is cut in itself"
    assert excerpt("internationalisation of things", 4, 1.0).text == "internationalisation of …"
    assert excerpt("of internationalisation", 2, 1.0).text == "of …", "not in the middle of a word"


def test_what_is_looked_at_is_bounded() -> None:
    huge = "begin " + "x" * 10_000_000 + " end"
    ends = both_ends(huge, 16)
    assert ends.truncated
    assert len(ends.text) < 1000
    assert ends.text.startswith("begin")
    assert ends.text.endswith("end")
    assert both_ends("short", 16).text == "short"


def test_a_field_is_text_whatever_it_holds() -> None:
    assert [text_of(value) for value in (b"a\xff", "b\ud800", 7, None)] == ["a\ufffd", "b?", "7", ""]
