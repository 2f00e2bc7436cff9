"""confident_learning: the same rows as cleanlab, whatever the shards; planted errors; what it refuses."""

import warnings
from typing import Any

import numpy as np
import planted_labels as planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel.errors import UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.probabilities import softmax
from relabel.metrics.confident_joint import calibrated, rounded, wrong
from relabel.metrics.confident_learning import ConfidentLearning, ConfidentLearningParameters
from relabel.testing import check_labeler, check_statistic


def labeler(count: int, finished: Any = (), **parameters: Any) -> Any:
    source = ClassSource(field="topic")
    made = ConfidentLearning(ConfidentLearningParameters(probabilities="said", given=source, **parameters))
    return planted.told(made, ["said"], count, finished)


def planted_batch(rows: int, count: int, seed: int, skew: bool = False) -> tuple[dict[str, Any], np.ndarray]:
    """A fair model's probabilities and labels of which 20 % are wrong; also the true classes."""
    random = np.random.default_rng(seed)
    weights = np.arange(1, count + 1) ** (2.0 if skew else 0.0)
    truth = random.choice(count, rows, p=weights / weights.sum())
    logits = 3 * planted.one_hot(truth, count) + random.normal(0, 1.2, (rows, count))
    given = np.where(random.random(rows) < 0.2, (truth + random.integers(1, count, rows)) % count, truth)
    batch = {"key": planted.keys(rows), **planted.columns("said", softmax(logits)), "given": given}
    return batch, truth


def asked(made: Any, batch: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and given classes, as the metric sees them."""
    answers = made.questions.answers(batch)
    return answers.probabilities, answers.given


def cleanlab_mask(made: Any, batch: dict[str, Any]) -> np.ndarray:
    """On the very same numbers: what the label's columns hold."""
    from cleanlab.filter import find_label_issues

    probabilities, known = asked(made, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(find_label_issues(known, probabilities, filter_by="prune_by_noise_rate", n_jobs=1))


@pytest.mark.parametrize(("rows", "count", "skew"), [(4929, 5, False), (3000, 12, True), (300, 2, False)])
def test_the_mask_is_cleanlabs(rows: int, count: int, skew: bool) -> None:
    from cleanlab.count import compute_confident_joint, get_confident_thresholds

    batch, truth = planted_batch(rows, count, rows, skew)
    made = planted.finish(labeler(count), batch, shards=4)
    found = made(batch)["confident_learning_issue"]
    np.testing.assert_array_equal(found, cleanlab_mask(made, batch))
    assert found.sum() > rows / 10
    probabilities, known = asked(made, batch)
    thresholds = get_confident_thresholds(known, probabilities)
    np.testing.assert_allclose(made.finished[0]["thresholds"], thresholds, rtol=0, atol=1e-9)
    joint = np.zeros((count, count), int)
    for one, other, number in made.finished[1]["joint"]:
        joint[one, other] = number
    np.testing.assert_array_equal(joint, compute_confident_joint(known, probabilities))
    planted_errors = known != truth
    assert (found & planted_errors).sum() / planted_errors.sum() > 0.6
    assert (found & planted_errors).sum() / found.sum() > 0.6


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(20, 90))
def test_small_and_odd_tables_too(seed: int, count: int, rows: int) -> None:
    """Classes of one row and of none, joints that need rounding, diagonals that rounding empties."""
    random = np.random.default_rng(seed)
    given_ids = np.minimum(random.integers(0, count, rows), random.integers(0, count, rows))
    given_ids[:2] = [0, 1]
    batch = {
        "key": planted.keys(rows),
        **planted.columns("said", softmax(random.normal(0, 2, (rows, count)))),
        "given": given_ids,
    }
    made = planted.finish(labeler(count), batch, shards=3, size=5)
    np.testing.assert_array_equal(made(batch)["confident_learning_issue"], cleanlab_mask(made, batch))


@pytest.mark.parametrize("shards", [1, 16, 64])
@pytest.mark.parametrize("order", ["shuffled", "by class"])
def test_shards_and_their_order_change_nothing(shards: int, order: str) -> None:
    batch, _ = planted_batch(900, 5, 1)
    expected = planted.finish(labeler(5), batch)
    rows = np.random.default_rng(2).permutation(900) if order == "shuffled" else np.argsort(batch["given"])
    found = planted.finish(labeler(5), planted.taken(batch, rows), shards, size=31)
    assert found.finished == expected.finished
    assert found.fingerprint() == expected.fingerprint()


def test_ties_are_broken_by_the_keys_hash_and_never_exceed_the_counts() -> None:
    """Every row is one of four: all margins of a cell tie."""
    random = np.random.default_rng(4)
    truth = random.integers(0, 2, 400)
    given_ids = np.where(random.random(400) < 0.2, 1 - truth, truth)
    probabilities = np.where(planted.one_hot(truth, 2) > 0, 0.9, 0.1)
    unsure = random.random(400) < 0.3
    probabilities[unsure] = np.where(planted.one_hot(truth[unsure], 2) > 0, 0.6, 0.4)
    batch = {"key": planted.keys(400), **planted.columns("said", probabilities), "given": given_ids}
    made = planted.finish(labeler(2), batch, shards=5)
    issues = made(batch)["confident_learning_issue"]
    expected = cleanlab_mask(made, batch)
    for one in range(2):
        assert issues[given_ids == one].sum() == expected[given_ids == one].sum()
    other = planted.finish(labeler(2, seed=1), batch, shards=5)(batch)["confident_learning_issue"]
    assert other.sum() == issues.sum()
    assert (other != issues).any()


def test_rows_without_a_given_class_are_left_out() -> None:
    batch, _ = planted_batch(600, 4, 6)
    hidden = np.arange(600) % 5 == 0
    known = planted.finish(labeler(4), planted.taken(batch, ~hidden))
    batch["given"] = np.where(hidden, -1, batch["given"])
    made = planted.finish(labeler(4), batch)
    assert made.finished == known.finished
    found = {name.removeprefix("confident_learning_"): values[hidden] for name, values in made(batch).items()}
    assert (found["quality"] == -1).all()
    assert (found["margin"] == -1).all()
    assert (found["given"] == -1).all()
    assert not found["issue"].any()
    assert (found["guess"] >= 0).all()


def test_scores_are_those_of_the_paper() -> None:
    batch, _ = planted_batch(300, 3, 7)
    made = planted.finish(labeler(3), batch)
    found = {name.removeprefix("confident_learning_"): values for name, values in made(batch).items()}
    probabilities, known = asked(made, batch)
    own = probabilities[np.arange(300), known]
    others = np.where(planted.one_hot(known, 3) > 0, -1, probabilities).max(axis=1)
    np.testing.assert_allclose(found["quality"], own, rtol=1e-6)
    np.testing.assert_allclose(found["margin"], (own - others + 1) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found["guess"], probabilities.argmax(axis=1))
    assert (found["margin"][found["issue"]] < 0.5).all()
    rates = made.finished[1]
    assert 0.1 < np.mean(rates["wrong_of_given"]) < 0.3
    assert 0.1 < np.mean(rates["lost_of_true"]) < 0.3


def test_probabilities_of_a_model_that_saw_the_rows_are_refused() -> None:
    batch, _ = planted_batch(2000, 4, 8)
    batch |= planted.columns("said", 0.9 * planted.one_hot(batch["given"], 4) + 0.025)
    with pytest.raises(UsageError, match=r"given one for 100.00% of 2000 rows.*fold_out"):
        planted.finish(labeler(4), batch)
    made = planted.finish(labeler(4, max_agreement=1), batch)
    assert not made(batch)["confident_learning_issue"].any()
    with pytest.raises(UsageError, match="no row with a given class"):
        planted.finish(labeler(4), {**batch, "given": np.full(2000, -1)})


def test_the_law() -> None:
    batch, _ = planted_batch(600, 4, 9)
    made = labeler(4)
    while (statistic := made.statistic()) is not None:
        check_statistic(statistic, planted.cut(batch, 170), max_bytes=12_000)
        made.finished = (*made.finished, statistic.finish(planted.sharded(statistic, batch, 1)))
    assert len(made.finished) == 3


def test_it_keeps_the_rules() -> None:
    batch, _ = planted_batch(400, 4, 10)
    made = planted.finish(labeler(4), batch)
    samples = [
        {"__key__": f"row-{row}", "topic": str(batch["given"][row]), **{n: batch[n][row] for n in batch if "said" in n}}
        for row in range(6)
    ]
    check_labeler(made, samples, compute_batch=4)


def test_a_given_class_may_be_a_label() -> None:
    batch, _ = planted_batch(400, 4, 11)
    parameters = ConfidentLearningParameters(probabilities="said", given="topic")  # type: ignore[arg-type]
    assert parameters.given == ClassSource(label="topic")
    made = planted.told(ConfidentLearning(parameters), ["said", "topic"], 4)
    assert made.reads == ("said", "topic")
    labels = {**batch, **planted.columns("topic", planted.one_hot(batch.pop("given"), 4))}
    assert planted.finish(made, labels).finished == planted.finish(labeler(4), planted_batch(400, 4, 11)[0]).finished
    made.inputs["topic"] = planted.told(made, ["topic"], 3).inputs["topic"]
    with pytest.raises(UsageError, match="the same classes in the same order"):
        made.writes()


def test_rounding_keeps_the_sum() -> None:
    assert rounded(np.array([0.5, 0.5, 0.5, 0.5])).sum() == 2
    assert rounded(np.array([1.4, 1.4, 1.2])).tolist() == [1, 2, 1]
    assert rounded(np.array([2.6, 2.6, 0.8])).tolist() == [2, 3, 1] or rounded(np.array([2.6, 2.6, 0.8])).sum() == 6
    joint = calibrated(np.array([[0, 9], [0, 4]]), np.array([10, 4]))
    assert joint.sum(axis=1).tolist() == [10, 4]
    assert wrong(np.array([[0, 3], [1, 4]]), np.array([3, 5])).tolist() == [[0, 2], [1, 0]]
    assert wrong(np.array([[0, 1], [1, 4]]), np.array([1, 5])).tolist() == [[0, 0], [1, 0]]
