"""What the experiments on gains rest on: the test is not trained on, errors are as planted, overlaps are said."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gains.arms import Claim, Row, Spread, conclude, spreads, verdict
from gains.bag_of_words import Texts, learn
from gains.distinct_articles import COPIED, Split, passages, split, words
from gains.pseudo_labels import SEEDS, WRONG, plant, topics_of
from PIL import Image

from pipelines.articles import TOPICS


@pytest.fixture(scope="module")
def articles() -> Split:
    return split()


def test_no_article_of_the_test_is_trained_on_nor_a_copy_of_one(articles: Split) -> None:
    assert len(articles.train) + len(articles.test) + articles.copies == 2225
    assert len(articles.test) > 500
    assert set(np.bincount(topics_of(articles.test)) > 80) == {True}
    trained = {" ".join(words(each.text)) for each in articles.train}
    assert not trained & {" ".join(words(each.text)) for each in articles.test}
    assert not {each.key for each in articles.train} & {each.key for each in articles.test}
    of_train = [passages(each.text) for each in articles.train]
    holders: dict[int, list[int]] = {}
    for row, held in enumerate(of_train):
        for passage in held:
            holders.setdefault(passage, []).append(row)
    for each in articles.test:
        mine = passages(each.text)
        shared = np.bincount([row for passage in mine for row in holders.get(passage, ())], minlength=len(of_train))
        assert (shared <= COPIED * np.minimum(len(mine), [len(held) for held in of_train])).all(), each.key


def test_so_many_labels_are_wrong_as_planted_and_others_for_every_seed(articles: Split) -> None:
    people = topics_of(articles.train)
    vectors = np.random.default_rng(0).random((len(people), 8)).astype(np.float32)
    planted = plant(people, vectors)
    assert len(planted) == 2 * len(SEEDS)
    assert {int((given != people).sum()) for given in planted.values()} == {round(WRONG * len(people))}
    assert not np.array_equal(planted["uniform_0"], planted["uniform_1"])
    towards = {(int(true), int(given)) for true, given in zip(people, planted["confusable_0"], strict=True)}
    assert len(towards) == 2 * len(TOPICS), "each topic is taken for one other"
    table = np.zeros((len(TOPICS), len(TOPICS)))
    np.add.at(table, (people, planted["uniform_0"]), 1)
    assert (table > 0).all()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More wait for each other where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_student_learns_and_the_same_seed_learns_the_same(articles: Split) -> None:
    train, test = articles.train[:200], articles.test[:200]
    texts = Texts([each.text for each in train], [each.text for each in test])
    said = [learn(texts.train, topics_of(train), texts.test, len(TOPICS), seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(said[0], said[1])
    assert not np.array_equal(said[0], said[2])
    assert (said[0] == topics_of(test)).mean() > 0.8


def test_a_claim_holds_only_where_mean_and_standard_error_lie_apart() -> None:
    assert verdict(Spread(0.9, 0.01, 3), Spread(0.85, 0.02, 3)) == "holds"
    assert verdict(Spread(0.9, 0.03, 3), Spread(0.85, 0.02, 3)) == "overlap"
    assert verdict(Spread(0.85, 0.02, 3), Spread(0.9, 0.03, 3)) == "overlap"
    assert verdict(Spread(0.9, 0.0, 3), Spread(0.9, 0.0, 3)) == "overlap"
    assert verdict(Spread(0.85, 0.02, 3), Spread(0.9, 0.01, 3)) == "reversed"


def test_the_error_is_that_of_the_mean_over_seeds() -> None:
    found = spreads([Row("a", seed, score) for seed, score in enumerate((0.5, 0.6, 0.7))])["a"]
    assert (found.mean, found.error, found.seeds) == (pytest.approx(0.6), pytest.approx(0.1 / math.sqrt(3)), 3)
    with pytest.raises(ValueError, match="the arm 'a' has one seed"):
        spreads([Row("a", 0, 0.5)])
    for score in (0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match="expected one score in"):
            spreads([Row("a", 0, 0.5), Row("a", int(score > 1 or score != score), score)])


def test_an_experiment_ends_in_a_table_a_picture_and_all_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(arm, seed, mean + 0.01 * seed) for arm, mean in (("x: a", 0.5), ("x: b", 0.6)) for seed in range(3)]
    conclude("Title", rows, [Claim("x: b", "x: a"), Claim("x: a", "x: b")], tmp_path, {"x: a": "a note"}, {})
    held = json.loads((tmp_path / "gains.json").read_text())
    assert [each["verdict"] for each in held["claims"]] == ["holds", "reversed"]
    assert (len(held["rows"]), held["arms"]["x: a"]["note"]) == (6, "a note")
    assert Claim("x: b", "x: a").against == "a"
    assert Claim("y: b", "x: a").against == "x: a"
    with Image.open(tmp_path / "gains.png") as picture:
        assert picture.width == 924
