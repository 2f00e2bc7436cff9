"""label_prior: a planted bias is taken away, whatever the shards; temperature from gold."""

from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import UsageError
from relabel.labelers.class_reader import ClassSource
from relabel.labels.probabilities import softmax
from relabel.refiners.label_prior import LabelPrior, LabelPriorParameters
from relabel.testing import check_labeler, check_statistic

COUNT, ROWS = 4, 400
BIAS = np.array([3.0, 0.5, -1.0, -2.0])


def biased(sharpness: float = 1.0, noise: float = 0.4) -> tuple[dict[str, Any], np.ndarray]:
    """A model that knows the classes and likes the first best; the bias is larger than what it knows."""
    random = np.random.default_rng(5)
    truth = np.arange(ROWS) % COUNT
    logits = 1.5 * planted.one_hot(truth, COUNT) + random.normal(0, noise, (ROWS, COUNT)) + BIAS
    return {"key": planted.keys(ROWS), **planted.columns("said", softmax(logits * sharpness)), "gold": truth}, truth


def labeler(finished: Any = (), **parameters: Any) -> Any:
    made = LabelPrior(LabelPriorParameters(probabilities="said", **parameters))
    return planted.told(made, ["said"], COUNT, finished)


def best(made: Any, batch: Any) -> np.ndarray:
    return np.asarray(made(batch)["label_prior_ids"][:, 0])


def test_a_bias_is_taken_away() -> None:
    batch, truth = biased()
    raw = float((batch["said_ids"][:, 0] == truth).mean())
    corrected = float((best(planted.finish(labeler(), batch), batch) == truth).mean())
    assert raw < 0.5
    assert corrected > 0.9
    given = labeler(log_prior=tuple((BIAS - 7).tolist()))
    assert given.statistic() is None
    assert float((best(given, batch) == truth).mean()) > 0.9


def test_the_mean_of_what_comes_out_is_flat_and_rows_sum_to_one() -> None:
    batch, _ = biased()
    found = planted.finish(labeler(), batch)(batch)
    np.testing.assert_allclose(found["label_prior_scores"].sum(axis=1), 1, atol=1e-6)
    counts = np.bincount(found["label_prior_ids"][:, 0], minlength=COUNT)
    assert counts.min() > ROWS / COUNT * 0.8


@pytest.mark.parametrize("shards", [1, 16, 64])
def test_any_shards_in_any_order_give_the_same(shards: int) -> None:
    batch, truth = biased()
    ordered = planted.taken(batch, np.argsort(truth, kind="stable"))
    assert planted.finish(labeler(), ordered, shards, size=7).finished == planted.finish(labeler(), batch).finished


def test_temperature_undoes_overconfidence() -> None:
    batch, _ = biased(sharpness=4.0, noise=1.2)
    batch["gold"] = np.where(np.arange(ROWS) < 100, batch["gold"], -1)
    made = planted.finish(labeler(gold=ClassSource(field="topic")), batch)
    assert [result["rows"] for result in made.finished] == [ROWS, 100]
    assert 2 < made.finished[1]["temperature"] < 8
    plain = planted.finish(labeler(), batch)
    assert made(batch)["label_prior_scores"][:, 0].mean() < plain(batch)["label_prior_scores"][:, 0].mean()
    np.testing.assert_array_equal(best(made, batch), best(plain, batch))


def test_the_law() -> None:
    batch, _ = biased()
    some = planted.cut({name: values[:60] for name, values in batch.items()}, 13)
    made = labeler(gold=ClassSource(field="topic"))
    while (statistic := made.statistic()) is not None:
        check_statistic(statistic, some)
        made.finished = (*made.finished, statistic.finish(planted.sharded(statistic, batch, 1)))


def test_what_is_lacking_is_said() -> None:
    batch, _ = biased()
    with pytest.raises(UsageError, match="at least 20 samples with a true class, got 3"):
        planted.finish(
            labeler(gold=ClassSource(field="topic")), {**batch, "gold": np.where(np.arange(ROWS) < 3, 1, -1)}
        )
    with pytest.raises(UsageError, match="no sample to learn"):
        planted.finish(labeler(), {name: values[:0] for name, values in batch.items()})
    with pytest.raises(UsageError, match="log_prior must have 4 entries"):
        labeler(log_prior=(1.0, 2.0)).statistic()
    with pytest.raises(ValueError, match="finite"):
        LabelPriorParameters(log_prior=(0.0, float("-inf")))
    with pytest.raises(ValueError, match="one place"):
        ClassSource()


def test_it_keeps_the_rules() -> None:
    batch, _ = biased()
    made = planted.finish(labeler(gold=ClassSource(field="topic")), batch)
    samples = [
        {
            "__key__": f"row-{row}",
            "topic": planted.names(COUNT)[row % COUNT],
            **{name: batch[name][row] for name in ("said_ids", "said_scores")},
        }
        for row in range(5)
    ]
    check_labeler(made, samples, compute_batch=3)
