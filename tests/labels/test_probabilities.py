"""Probabilities: a label's columns as a matrix and back, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.errors import BadSample, UsageError
from relabel.labels.contract import LabelContract
from relabel.labels.kinds import classes, scores
from relabel.labels.probabilities import Probabilities, best_first, distribution, log_softmax, mean, softmax

NAMES = ("a", "b", "c", "d")
FULL = classes("said", NAMES, top_k=4)


def rows_of(ids: list[list[int]], values: list[list[float]], name: str = "said") -> dict[str, np.ndarray]:
    return {f"{name}_ids": np.array(ids, np.uint16), f"{name}_scores": np.array(values, np.float32)}


def test_a_full_distribution_is_read_by_class_id() -> None:
    read = Probabilities(FULL)
    rows = rows_of([[2, 0, 3, 1], [0, 1, 2, 3]], [[0.5, 0.25, 0.125, 0.125], [1, 0, 0, 0]])
    np.testing.assert_array_equal(read.dense(rows), [[0.25, 0.125, 0.5, 0.125], [1, 0, 0, 0]])
    np.testing.assert_allclose(read.logs(rows)[1], [0, *[np.log(1e-12)] * 3])
    assert read.best(rows).tolist() == [2, 0]


@pytest.mark.parametrize("domain", ["log_probability", "logit"])
def test_logarithms_are_normalised(domain: str) -> None:
    contract = FULL.model_copy(update={"score_domain": domain})
    read = Probabilities(contract)
    rows = rows_of([[3, 0, 1, 2]], [[-1.0, -2.0, -30.0, -300.0]])
    np.testing.assert_allclose(read.dense(rows).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(read.logs(rows)), read.dense(rows))
    assert read.logs(rows)[0, 3] - read.logs(rows)[0, 2] == 299
    shifted = {**rows, "said_scores": rows["said_scores"] + np.float32(64)}
    np.testing.assert_allclose(read.dense(shifted), read.dense(rows), atol=1e-6)


def test_the_best_classes_alone_are_read_only_where_that_was_asked_for() -> None:
    two = classes("said", NAMES, top_k=2)
    rows = rows_of([[1, 3]], [[0.5, 0.25]])
    with pytest.raises(UsageError, match="has the 2 best of 4 classes"):
        Probabilities(two)
    np.testing.assert_allclose(Probabilities(two, "even").dense(rows), [[0.125, 0.5, 0.125, 0.25]])
    logs = two.model_copy(update={"score_domain": "log_probability"})
    rows["said_scores"] = np.log(rows["said_scores"])
    np.testing.assert_allclose(Probabilities(logs, "even").dense(rows), [[0.125, 0.5, 0.125, 0.25]], rtol=1e-6)
    with pytest.raises(UsageError, match="all are needed"):
        Probabilities(two.model_copy(update={"score_domain": "logit"}), "even")


@pytest.mark.parametrize(
    "contract",
    [scores("said", "ids", "scores"), classes("said", NAMES, 4, "cosine"), FULL.model_copy(update={"classes": None})],
)
def test_other_labels_are_refused(contract: LabelContract) -> None:
    with pytest.raises(UsageError, match="expected to give probabilities of classes"):
        Probabilities(contract)


@pytest.mark.parametrize("ids", [[0, 1, 1, 2], [0, 1, 2, 4]])
def test_a_row_that_breaks_its_contract_is_a_bad_sample(ids: list[int]) -> None:
    with pytest.raises(BadSample, match="must be different classes below 4"):
        Probabilities(FULL).dense(rows_of([[0, 1, 2, 3], ids], [[0.25] * 4] * 2))


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5))
def test_what_is_written_is_read(matrix: list[list[float]]) -> None:
    dense = np.array(matrix, np.float64)
    columns = best_first(dense)
    assert (np.diff(columns["scores"], axis=1) <= 0).all()
    contract = distribution("said", Probabilities(FULL).classes)
    assert [column.name for column in contract.columns] == ["said_ids", "said_scores"]
    assert contract == FULL
    rows = {f"said_{name}": values for name, values in columns.items()}
    np.testing.assert_array_equal(Probabilities(contract).dense(rows), dense)


def test_ties_go_to_the_lower_id() -> None:
    assert best_first(np.array([[0.2, 0.4, 0.4, 0.0]]))["ids"].tolist() == [[1, 2, 0, 3]]


def test_softmax_and_mean() -> None:
    logits = np.array([[0.0, 1000.0], [-3.0, -3.0]])
    np.testing.assert_allclose(softmax(logits), [[0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(log_softmax(logits)[0], [-1000, 0])
    np.testing.assert_allclose(mean([softmax(logits), np.full((2, 2), 0.5)]), [[0.25, 0.75], [0.5, 0.5]])
    assert softmax(np.zeros((0, 3))).shape == (0, 3)
