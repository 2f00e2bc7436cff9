"""Proper nouns: which names an old caption gives, and which are lost."""

import time

import pytest

from relabel.labelers.proper_nouns import MAX_NAMES, lost_names, names_in


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Portrait of John Smith in front of the Eiffel Tower, Paris", ["John Smith", "Eiffel Tower", "Paris"]),
        ("A cat sits on the mat. The dog runs. It rains.", []),
        ("Boeing 747 of Lufthansa at JFK airport", ["Boeing 747", "Lufthansa", "JFK"]),
        ("the iPhone 15 on a table", ["iPhone 15"]),
        ("Barack Obama speaks. Michelle Obama's smile", ["Barack Obama", "Michelle Obama"]),
        ("a photo by Anna-Maria O'Neill", ["Anna-Maria O'Neill"]),
        ("Skyline of New York at night", ["New York"]),
        ("NASA's Saturn V", ["NASA", "Saturn V"]),
        ("Sunset in Rio de Janeiro", ["Rio", "Janeiro"]),
        ("Buy New Nike Air Max 90 Shoes Online Free Shipping", []),
        ("Two Dogs Running On The Beach", []),
        ("IMG_2034.jpg", []),
        ("", []),
        ("東京タワー", []),
        ("a dog\nWalks home. \n Runs", []),
        ("it is St. Moritz", ["St Moritz"]),
        ("a dog — Walks", []),
    ],
)
def test_names_are_seen_by_their_capitals(text: str, names: list[str]) -> None:
    assert names_in(text) == names


def test_a_name_survives_in_other_letters() -> None:
    old = "Château de Versailles in France, photographed by John Smith"
    assert lost_names(old, "The palace of VERSAILLES, France's finest, by john smith") == []
    assert lost_names(old, "A palace photographed by Smith") == ["Versailles", "France", "John Smith"]
    assert lost_names("Café Müller in Köln", "the cafe Muller in Koln") == []
    assert lost_names("a dog", "a cat") == []


def test_a_list_of_names_has_an_end() -> None:
    many = ", ".join(f"at Place{number}" for number in range(50))
    assert len(names_in(many)) == MAX_NAMES


@pytest.mark.parametrize("filler", ["\n", ".", " ", "Anna went. ", "- "])
def test_a_long_text_takes_no_longer_than_its_length(filler: str) -> None:
    begun = time.process_time()
    names_in("a dog" + filler * (60_000 // len(filler)) + "x Anna")
    assert time.process_time() - begun < 2
