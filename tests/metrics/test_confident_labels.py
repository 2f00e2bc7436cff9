"""confident_labels: any number of classes per sample: the same cells as cleanlab, class by class."""

import json
import warnings
from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import BadSample, UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.contract import Column
from relabel.metrics.confident_learning import ConfidentLabels, ConfidentLabelsParameters
from relabel.testing import check_labeler, check_statistic

COUNT, ROWS = 4, 1500


def labeler(given: Any = None, **parameters: Any) -> Any:
    source = given or ClassSource(field="topics")
    made = ConfidentLabels(ConfidentLabelsParameters(probabilities="said", given=source, **parameters))
    return planted.told(made, ["said"], COUNT)


def batch_of(rows: int = ROWS) -> tuple[dict[str, Any], np.ndarray]:
    """A fair model's probability of every class, sets of classes with 8 % errors; and where these are."""
    random = np.random.default_rng(1)
    truth = random.random((rows, COUNT)) < 0.4
    wrong = random.random((rows, COUNT)) < 0.08
    probabilities = 1 / (1 + np.exp(-(4 * truth - 2 + random.normal(0, 1, (rows, COUNT)))))
    given = (truth ^ wrong).astype(np.int8)
    return {"key": planted.keys(rows), **planted.columns("said", probabilities), "given": given}, wrong


def test_cells_are_cleanlabs() -> None:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    batch, wrong = batch_of()
    made = planted.finish(labeler(), batch, shards=7)
    found = {name.removeprefix("confident_labels_"): values for name, values in made(batch).items()}
    given = [np.flatnonzero(row).tolist() for row in batch["given"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = find_multilabel_issues_per_class(given, made.read.dense(batch), n_jobs=1)
    np.testing.assert_array_equal(found["issues"], expected)
    np.testing.assert_array_equal(found["issue"], np.asarray(expected).any(axis=1))
    issues = found["issues"].astype(bool)
    assert (issues & wrong).sum() / wrong.sum() > 0.8
    assert (issues & wrong).sum() / issues.sum() > 0.6
    yes = made.read.dense(batch)
    np.testing.assert_allclose(found["quality"], np.where(batch["given"] > 0, yes, 1 - yes), atol=1e-6)


@pytest.mark.parametrize("shards", [1, 16, 64])
def test_shards_and_their_order_change_nothing(shards: int) -> None:
    batch, _ = batch_of()
    rows = np.argsort(batch["given"][:, 0], kind="stable")
    expected = planted.finish(labeler(), batch).finished
    assert planted.finish(labeler(), planted.taken(batch, rows), shards, size=23).finished == expected


@pytest.mark.parametrize(
    ("value", "marks"),
    [
        ("class 1, class 3", [0, 1, 0, 1]),
        ('["class 0"]', [1, 0, 0, 0]),
        ("[2, 3]", [0, 0, 1, 1]),
        ("[]", [0, 0, 0, 0]),
        ("", [-1, -1, -1, -1]),
        (b"3", [0, 0, 0, 1]),
    ],
)
def test_a_field_names_any_number_of_classes(value: Any, marks: list[int]) -> None:
    assert labeler().prepare({"__key__": "a", "topics": value})["given"].tolist() == marks


@pytest.mark.parametrize("value", ["[", "class 9", '[{"a": 1}]', "[[[["])
def test_other_fields_are_bad_samples(value: str) -> None:
    with pytest.raises(BadSample):
        labeler().prepare({"__key__": "a", "topics": value})


def test_rows_that_nothing_is_given_are_left_out() -> None:
    batch, _ = batch_of()
    hidden = np.arange(ROWS) % 3 == 0
    known = planted.finish(labeler(), planted.taken(batch, ~hidden)).finished
    batch["given"] = np.where(hidden[:, None], -1, batch["given"]).astype(np.int8)
    made = planted.finish(labeler(), batch)
    assert made.finished == known
    found = made(batch)
    assert (found["confident_labels_quality"][hidden] == -1).all()
    assert not found["confident_labels_issue"][hidden].any()


def test_lists_of_an_earlier_label() -> None:
    batch, _ = batch_of()
    expected = planted.finish(labeler(), batch).finished
    made = labeler(ClassSource(label="topics"))
    contract = made.inputs["said"].model_copy(
        update={"name": "topics", "columns": (Column(name="topics_ids", dtype="list:<i4"),), "top_k": None}
    )
    made.inputs["topics"] = contract
    batch["topics_ids"] = np.array([None] * ROWS, object)
    batch["topics_ids"][:] = [np.flatnonzero(row).tolist() for row in batch.pop("given")]
    assert planted.finish(made, batch).finished == expected
    made.inputs["topics"] = planted.told(made, ["topics"], COUNT).inputs["topics"]
    with pytest.raises(UsageError, match="reads lists of class ids"):
        made.writes()


def test_probabilities_of_a_model_that_saw_the_rows_are_refused() -> None:
    batch, _ = batch_of()
    batch |= planted.columns("said", 0.9 * batch["given"] + 0.05)
    with pytest.raises(UsageError, match="never saw the row"):
        planted.finish(labeler(), batch)


def test_the_law() -> None:
    batch, _ = batch_of(300)
    made = labeler()
    while (statistic := made.statistic()) is not None:
        check_statistic(statistic, planted.cut(batch, 70), partitions=100, max_bytes=12_000)
        made.finished = (*made.finished, statistic.finish(planted.sharded(statistic, batch, 1)))


def test_it_keeps_the_rules() -> None:
    batch, _ = batch_of()
    made = planted.finish(labeler(), batch)
    samples = [
        {
            "__key__": f"row-{row}",
            "topics": json.dumps(np.flatnonzero(batch["given"][row]).tolist()),
            **{name: batch[name][row] for name in ("said_ids", "said_scores")},
        }
        for row in range(6)
    ]
    check_labeler(made, samples, compute_batch=4)
