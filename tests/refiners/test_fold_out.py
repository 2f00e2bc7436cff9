"""fold_out: no model judges a row that it learned from, nor a copy of it; the same models from any shards."""

from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import BadSample, UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.kinds import embedding
from relabel.labels.probabilities import Probabilities
from relabel.refiners.fold_out import FoldOut, FoldOutParameters
from relabel.testing import check_labeler, check_statistic

COUNT, ROWS, FEATURES = 3, 600, 16
TOPIC = ClassSource(field="topic")


def batch_of(rows: int = ROWS, noise: float = 0.7) -> dict[str, Any]:
    random = np.random.default_rng(2)
    truth = np.arange(rows) % COUNT
    vectors = planted.one_hot(truth, FEATURES) + random.normal(0, noise, (rows, FEATURES))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return {"key": planted.keys(rows), "embed_text_vector": unit, "given": truth}


def labeler(dtype: Any = "<f4", **parameters: Any) -> Any:
    made = FoldOut(FoldOutParameters(given=TOPIC, classes=planted.names(COUNT), **parameters))
    made.inputs = {"embed_text": embedding("embed_text", FEATURES, dtype)}
    return made


def test_a_row_is_judged_by_models_that_never_saw_its_label() -> None:
    """Labels that mean nothing can be learned by heart, and by nothing else."""
    batch = batch_of(noise=1.0)
    batch["given"] = np.random.default_rng(3).integers(0, COUNT, ROWS)
    made = planted.finish(labeler(strength=1e4), batch)
    accuracy = float((made(batch)["fold_out_ids"][:, 0] == batch["given"]).mean())
    assert abs(accuracy - 1 / COUNT) < 0.06
    assert made.finished[0]["accuracy"] == pytest.approx(accuracy, abs=1e-9)


def test_classes_are_learned() -> None:
    batch = batch_of(noise=0.2)
    made = planted.finish(labeler(), batch)
    found = made(batch)
    assert (found["fold_out_ids"][:, 0] == batch["given"]).mean() > 0.97
    np.testing.assert_allclose(Probabilities(made.writes()).dense(found).sum(axis=1), 1, atol=1e-6)
    assert np.bincount(found["fold_out_fold"], minlength=5).min() > ROWS / 5 * 0.75


@pytest.mark.parametrize("shards", [1, 16, 64])
def test_shards_and_their_order_change_nothing(shards: int) -> None:
    batch = batch_of()
    ordered = planted.taken(batch, np.argsort(batch["given"], kind="stable"))
    expected = planted.finish(labeler(sample=300), batch).finished
    assert expected[0]["rows"] == 300
    assert planted.finish(labeler(sample=300), ordered, shards, size=19).finished == expected


def test_copies_of_a_text_lie_in_one_fold() -> None:
    batch = batch_of()
    copies = {**batch, "key": np.array([f"copy of {key}" for key in batch["key"]])}
    folds = [planted.finish(labeler(), batch)(each)["fold_out_fold"] for each in (batch, copies)]
    np.testing.assert_array_equal(*folds)


def test_a_group_may_be_a_field() -> None:
    made = labeler(group="text")
    assert made.wants == ("topic", "text")
    texts = ["A goal!", "a  GOAL! ", "Another", b"a goal!", None]
    prepared = [made.prepare({"__key__": f"k{row}", "text": said}) for row, said in enumerate(texts)]
    groups = [int(each["group"]) for each in prepared]
    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups)) == 3
    batch = {**batch_of(60), "group": np.arange(60, dtype=np.uint64) // np.uint64(2)}
    found = planted.finish(made, batch)(batch)["fold_out_fold"]
    np.testing.assert_array_equal(found, np.arange(60) // 2 % 5)
    with pytest.raises(BadSample, match="1000001 characters"):
        made.prepare({"__key__": "k", "text": "x" * 1_000_001})


def test_rows_without_a_class_are_judged_and_not_learned_from() -> None:
    batch = batch_of()
    hidden = np.arange(ROWS) % 4 == 0
    known = planted.finish(labeler(), planted.taken(batch, ~hidden))
    made = planted.finish(labeler(), {**batch, "given": np.where(hidden, -1, batch["given"])})
    assert made.finished == known.finished
    assert made(batch)["fold_out_ids"].shape == (ROWS, COUNT)


def test_two_classes_and_classes_that_are_absent() -> None:
    batch = batch_of(noise=0.2)
    batch["given"] = np.minimum(batch["given"], 1)
    found = planted.finish(labeler(), batch)(batch)
    dense = Probabilities(labeler().writes()).dense(found)
    assert (found["fold_out_ids"][:, 0] == batch["given"]).mean() > 0.97
    assert dense[:, 2].max() < 1e-6
    with pytest.raises(UsageError, match="at least two classes"):
        planted.finish(labeler(), {**batch, "given": np.zeros(ROWS, int)})


def test_half_precision_vectors_are_taken_as_they_are() -> None:
    batch = batch_of()
    batch["embed_text_vector"] = batch["embed_text_vector"].astype(np.float16)
    made = planted.finish(labeler("<f2"), batch)
    assert made.finished[0]["accuracy"] > 0.5


def test_the_classes_may_come_from_a_label() -> None:
    parameters = FoldOutParameters(given=ClassSource(label="topic"))
    made = planted.told(FoldOut(parameters), ["topic"], COUNT)
    made.inputs["embed_text"] = embedding("embed_text", FEATURES)
    batch = batch_of()
    labels = {**batch, **planted.columns("topic", planted.one_hot(batch.pop("given"), COUNT))}
    assert planted.finish(made, labels).finished == planted.finish(labeler(), batch_of()).finished
    assert made.class_names() == planted.names(COUNT)
    assert made.writes() == labeler().writes()
    made.inputs["embed_text"] = made.inputs["topic"]
    with pytest.raises(UsageError, match="Name a label of kind embedding"):
        made.writes()
    with pytest.raises(ValueError, match="give `classes`"):
        FoldOutParameters(given=TOPIC)


def test_the_law() -> None:
    check_statistic(labeler(sample=40).statistic(), planted.cut(batch_of(90), 17), max_bytes=5000, partitions=100)


def test_keys_that_occur_twice_break_no_law() -> None:
    batch = batch_of(30)
    batch["key"] = np.array([f"k{row // 3}" for row in range(30)])
    check_statistic(labeler(sample=20).statistic(), planted.cut(batch, 7), max_bytes=5000, partitions=40)


def test_it_keeps_the_rules() -> None:
    batch = batch_of()
    made = planted.finish(labeler(group="text"), {**batch, "group": np.arange(ROWS, dtype=np.uint64)})
    samples = [
        {
            "__key__": f"k{row}",
            "topic": f"class {row % 3}",
            "text": f"text {row}",
            "embed_text_vector": batch["embed_text_vector"][row],
        }
        for row in range(6)
    ]
    check_labeler(made, samples, compute_batch=4)
