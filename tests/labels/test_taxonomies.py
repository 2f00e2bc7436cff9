"""Taxonomies: ids that stay under new names, where the others went, and what is no taxonomy."""

import json

import pytest

from relabel.errors import UsageError
from relabel.labels.taxonomy import OTHER, Category, Taxonomy, from_json, grown, parse_taxonomy, traced

EMPTY = Taxonomy(())


def names(table: Taxonomy) -> dict[str, str]:
    return {each.id: each.name for each in table.categories}


def test_ids_stay_across_a_rename_a_reorder_and_a_merge() -> None:
    first = grown(EMPTY, [{"name": "Sport"}, {"name": "Films"}, {"name": "Music"}], {}, 10)
    assert names(first) == {"t1": "Sport", "t2": "Films", "t3": "Music"}
    second = grown(
        first, [{"id": "t3", "name": "Music and films"}, {"name": "sport"}, {"name": "Law"}], {"t2": "t3"}, 10
    )
    assert names(second) == {"t3": "Music and films", "t1": "sport", "t4": "Law"}
    assert second.moved == {"t2": "t3"}
    assert second.parent == first.digest
    assert first.renamed(second) == {"t1": ("Sport", "sport"), "t3": ("Music", "Music and films")}
    third = grown(second, [{"name": "Law"}, {"id": "t2", "name": "Opera"}], {"t3": "t9", "t1": "t4"}, 10)
    assert names(third) == {"t4": "Law", "t5": "Opera"}, "an id that is gone is never given again"
    assert third.moved == {"t3": None, "t1": "t4"}, "what went into nothing that there is went nowhere"
    assert traced(first, [second, third]) == {"t1": "t4", "t2": None, "t3": None}


def test_what_is_told_twice_is_other_or_too_much_is_passed_over() -> None:
    told = [
        {"name": "A"},
        {"name": "a "},
        {"name": OTHER},
        {"name": "  "},
        {"name": "B\n b"},
        {"name": "C"},
        {"name": "D"},
    ]
    assert names(grown(EMPTY, told, {}, 3)) == {"t1": "A", "t2": "B b", "t3": "C"}
    table = grown(EMPTY, [{"name": "A"}, {"name": "B"}], {}, 3)
    assert names(grown(table, [{"id": "t1", "name": "B"}, {"id": "t1", "name": "A"}], {}, 3)) == {"t1": "B", "t3": "A"}


def test_the_digest_is_of_the_categories_alone_and_survives_a_file() -> None:
    table = grown(grown(EMPTY, [{"name": "A"}], {}, 3), [{"name": "A", "description": "first"}], {}, 3)
    again = parse_taxonomy(table.to_bytes(how={"seed": 1}), "t.json")
    assert again == table
    assert again.digest == Taxonomy(table.categories).digest
    assert again.digest != Taxonomy((Category("t1", "A"),)).digest


def test_a_taxonomy_made_by_hand_needs_names_alone() -> None:
    made = parse_taxonomy('["Health care", "Law"]', "mine.json")
    assert names(made) == {"Health care": "Health care", "Law": "Law"}
    assert from_json({"classes": [{"name": "Law", "description": "courts"}]}).categories[0].description == "courts"
    assert made.class_map.names == ("Health care", "Law")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "mine.json is not JSON"),
        ("{}", "without classes"),
        ("[]", "without classes"),
        ("[3]", "a category is a name, or has a `name`, got '3'"),
        ('["Law", "law"]', "needs a name of its own, got 'law' twice"),
        ('["Law", "Law"]', "needs a id of its own, got 'Law' twice"),
        ('[{"id": "a", "name": "Law"}, {"id": "b", "name": "law"}]', "needs a name of its own, got 'law' twice"),
        ('["other"]', "is what fits no category"),
        ('[{"name": "Law", "label": 3}]', "a category has id, name and description, got 'label' in 'Law'"),
        ('[{"name": "Law", "id": "A  b"}]', "a category's id is one line"),
        (json.dumps(["x" * 200]), "one line of at most 120 characters"),
        ('["a\\ud800"]', "half of a surrogate pair is no text"),
        (json.dumps({"classes": ["a"], "moved": 3}), "`moved` of a taxonomy is a mapping"),
    ],
)
def test_what_is_no_taxonomy_is_said(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_taxonomy(text, "mine.json")


def test_ids_that_a_person_wrote_are_never_given_to_another_category() -> None:
    mine = from_json([{"id": "t1", "name": "Law"}, {"id": "t2", "name": "Film"}])
    after = grown(mine, [{"name": "Sport"}, {"id": "t1", "name": "Law"}, {"id": "t2", "name": "Film"}], {}, 10)
    assert names(after) == {"t3": "Sport", "t1": "Law", "t2": "Film"}
    without = grown(mine, [{"id": "t1", "name": "Law"}], {}, 10)
    assert names(grown(without, [{"id": "t1", "name": "Law"}, {"name": "Opera"}], {}, 10))["t3"] == "Opera"
