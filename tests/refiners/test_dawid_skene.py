"""dawid_skene: the table gives what rows give; clones and bad judges; gold anchors."""

from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.kinds import classes
from relabel.labels.probabilities import Probabilities
from relabel.refiners.dawid_skene import DawidSkene, DawidSkeneParameters
from relabel.testing import check_labeler, check_statistic

CHECKED = ClassSource(field="checked")


def votes_of(truth: np.ndarray, count: int, confusions: list[np.ndarray], seed: int = 0) -> dict[str, Any]:
    """Hard votes of judges `a`, `b`, ... with these confusion matrices."""
    random = np.random.default_rng(seed)
    batch: dict[str, Any] = {"key": planted.keys(len(truth))}
    for judge, confusion in enumerate(confusions):
        edges = confusion.cumsum(axis=1)[truth]
        vote = np.minimum((random.random(len(truth))[:, None] > edges).sum(axis=1), count - 1)
        batch |= planted.columns("abcdefgh"[judge], planted.one_hot(vote, count))
    return batch


def skilled(count: int, skill: float) -> np.ndarray:
    return np.full((count, count), (1 - skill) / (count - 1)) + np.eye(count) * (skill - (1 - skill) / (count - 1))


def towards(count: int, skill: float, favourite: int) -> np.ndarray:
    """A judge that says one class wherever it does not know."""
    found = np.eye(count) * skill
    found[:, favourite] += 1 - skill
    return found


def labeler(judges: str, count: int, **parameters: Any) -> Any:
    made = DawidSkene(DawidSkeneParameters(judges=tuple(judges), **parameters))
    return planted.told(made, list(judges), count)


def best(made: Any, batch: dict[str, Any]) -> np.ndarray:
    return np.asarray(made(batch)["dawid_skene_ids"][:, 0])


def majority(batch: dict[str, Any], judges: str, count: int) -> np.ndarray:
    votes = sum(planted.one_hot(batch[f"{judge}_ids"][:, 0].astype(int), count) for judge in judges)
    return np.asarray(np.asarray(votes).argmax(axis=1))


def em_by_rows(votes: np.ndarray, gold: np.ndarray, count: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Dawid and Skene's algorithm, row by row, in plain loops: beliefs and confusion matrices."""
    rows, judges = votes.shape
    belief, confusions = np.zeros((rows, count)), np.zeros((judges, count, count))
    for row in range(rows):
        for vote in votes[row]:
            belief[row, vote] += 1 / judges
        if gold[row] >= 0:
            belief[row] = np.eye(count)[gold[row]]
    first = gold >= 0 if (gold >= 0).any() else np.ones(rows, bool)
    for step in range(iterations + 1):
        used = first if step == 0 else np.ones(rows, bool)
        prior = belief[used].sum(axis=0) + 0.01
        prior /= prior.sum()
        confusions = np.full((judges, count, count), 0.01)
        for judge in range(judges):
            for said in range(count):
                confusions[judge, :, said] += belief[used & (votes[:, judge] == said)].sum(axis=0)
        confusions /= confusions.sum(axis=2, keepdims=True)
        if step == iterations:
            break
        for row in range(rows):
            likelihood = prior * np.prod([confusions[j, :, votes[row, j]] for j in range(judges)], axis=0)
            belief[row] = np.eye(count)[gold[row]] if gold[row] >= 0 else likelihood / likelihood.sum()
    return belief, confusions


@pytest.mark.parametrize("anchors", [0, 40])
def test_the_table_gives_what_the_rows_give(anchors: int) -> None:
    random = np.random.default_rng(2)
    truth = random.choice(3, 800, p=[0.5, 0.3, 0.2])
    batch = votes_of(truth, 3, [skilled(3, 0.8), skilled(3, 0.6), towards(3, 0.7, 1), towards(3, 0.6, 2)])
    batch["gold"] = np.where(np.arange(800) < anchors, truth, -1)
    made = labeler("abcd", 3, gold=CHECKED, iterations=12, tolerance=0.0)
    finished = planted.finish(made, batch, shards=8).finished[0]
    votes = np.stack([batch[f"{judge}_ids"][:, 0].astype(int) for judge in "abcd"], axis=1)
    _, confusions = em_by_rows(votes, batch["gold"], 3, 12)
    assert finished["iterations"] == 12
    np.testing.assert_allclose(finished["confusions"], confusions, rtol=0, atol=1e-12)
    belief, _ = em_by_rows(votes, batch["gold"], 3, 13)
    dense = Probabilities(made.writes()).dense(made(batch))
    np.testing.assert_allclose(dense, belief, atol=1e-6)  # as float32 holds it


@pytest.mark.parametrize("shards", [1, 8, 64])
def test_shards_and_their_order_change_nothing(shards: int) -> None:
    truth = np.random.default_rng(3).integers(0, 4, 1000)
    batch = votes_of(truth, 4, [skilled(4, each) for each in (0.8, 0.6, 0.5)])
    expected = planted.finish(labeler("abc", 4), batch).finished
    ordered = planted.taken(batch, np.argsort(batch["a_ids"][:, 0], kind="stable"))
    assert planted.finish(labeler("abc", 4), ordered, shards, size=17).finished == expected


def test_mixed_skills_and_bias_beat_the_majority() -> None:
    truth = np.random.default_rng(4).integers(0, 3, 4000)
    batch = votes_of(
        truth, 3, [skilled(3, 0.85), skilled(3, 0.55), towards(3, 0.5, 0), towards(3, 0.5, 0), skilled(3, 0.6)]
    )
    found = planted.finish(labeler("abcde", 3), batch)
    right = float((best(found, batch) == truth).mean())
    assert right > float((majority(batch, "abcde", 3) == truth).mean()) + 0.05
    accuracy = found.finished[0]["accuracy"]
    assert accuracy == pytest.approx([0.85, 0.55, 0.67, 0.67, 0.6], abs=0.06)


def test_clones_are_one_vote() -> None:
    truth = np.random.default_rng(5).integers(0, 3, 3000)
    batch = votes_of(truth, 3, [skilled(3, 0.62), skilled(3, 0.8), skilled(3, 0.8)])
    for clone in "defgh"[:3]:
        batch |= {f"{clone}_{suffix}": batch[f"a_{suffix}"] for suffix in ("ids", "scores")}
    many = planted.finish(labeler("abcdef", 3), batch)
    one = planted.finish(labeler("abcdef", 3, families=dict.fromkeys("adef", "one maker")), batch)
    right = [float((best(each, batch) == truth).mean()) for each in (many, one)]
    assert right[0] < 0.7
    assert right[1] > 0.83
    assert many(batch)["dawid_skene_scores"][:, 0].mean() > 0.99
    assert one(batch)["dawid_skene_agree"].max() == 3


def test_gold_anchors_rescue_one_good_judge_among_bad_ones() -> None:
    truth = np.random.default_rng(6).integers(0, 2, 3000)
    batch = votes_of(truth, 2, [skilled(2, 0.2), skilled(2, 0.2), skilled(2, 0.9)])
    batch["gold"] = np.where(np.arange(3000) < 60, truth, -1)
    unknown = np.arange(3000) >= 60
    swapped = planted.finish(labeler("abc", 2), batch)
    assert float((best(swapped, batch) == truth)[unknown].mean()) < 0.2
    rescued = planted.finish(labeler("abc", 2, gold=CHECKED), batch)
    assert float((best(rescued, batch) == truth)[unknown].mean()) > 0.88
    assert (best(rescued, batch) == truth)[~unknown].all()
    assert rescued.finished[0]["gold_rows"] == 60


def test_hard_labels_are_votes_too() -> None:
    truth = np.random.default_rng(7).integers(0, 3, 500)
    batch = votes_of(truth, 3, [skilled(3, 0.8)] * 3)
    expected = planted.finish(labeler("abc", 3), batch).finished
    made = labeler("abc", 3)
    made.inputs["b"] = classes("b", planted.names(3), top_k=1)
    batch["b_ids"], batch["b_scores"] = batch["b_ids"][:, :1], batch["b_scores"][:, :1]
    assert planted.finish(made, batch).finished == expected


def test_the_law() -> None:
    truth = np.random.default_rng(8).integers(0, 3, 300)
    batch = votes_of(truth, 3, [skilled(3, 0.8)] * 3)
    batch["gold"] = np.where(truth == 0, truth, -1)
    check_statistic(labeler("abc", 3, gold=CHECKED).statistic(), planted.cut(batch, 41))


def test_it_keeps_the_rules() -> None:
    truth = np.random.default_rng(9).integers(0, 3, 100)
    batch = votes_of(truth, 3, [skilled(3, 0.8)] * 3)
    batch["gold"] = truth
    made = planted.finish(labeler("abc", 3, gold=CHECKED), batch)
    columns = [name for name in batch if name not in ("key", "gold")]
    samples = [
        {"__key__": f"k{row}", "checked": str(truth[row]), **{n: batch[n][row] for n in columns}} for row in range(6)
    ]
    check_labeler(made, samples, compute_batch=4)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="at least two families"):
        DawidSkeneParameters(judges=("a", "b"), families={"a": "x", "b": "x"})
    with pytest.raises(ValueError, match="at most 8 have a vote, got 9"):
        DawidSkeneParameters(judges=tuple("abcdefghi"))
    batch = votes_of(np.zeros(0, int), 3, [skilled(3, 0.8)] * 2)
    with pytest.raises(UsageError, match="no row to learn from"):
        planted.finish(labeler("ab", 3), batch)
    with pytest.raises(UsageError, match="at most 256 classes"):
        labeler("ab", 300).writes()
