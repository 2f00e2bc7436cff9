"""hash_sample: exactly so many, whatever the partition, every row with the same chance, and the texts of those."""

from typing import Any

import numpy as np
import planted_labels as planted
import pytest

from relabel.errors import UsageError
from relabel.selectors.hash_sample import HashSample, HashSampleParameters
from relabel.testing import check_labeler, check_statistic

ROWS = 2000


def batch_of(rows: int = ROWS) -> dict[str, Any]:
    texts = np.array([f"text {row} " + "é" * (row % 7) for row in range(rows)])
    return {"key": planted.keys(rows), "text": texts}


def labeler(**parameters: Any) -> Any:
    return HashSample(HashSampleParameters(**{"samples": 100, **parameters}))


@pytest.mark.parametrize("shards", [1, 16, 64])
def test_so_many_are_chosen_and_the_same_ones(shards: int) -> None:
    batch = batch_of()
    made = planted.finish(labeler(), planted.taken(batch, np.arange(ROWS)[::-1]), shards)
    found = made(batch)
    assert found["hash_sample_selected"].sum() == 100
    np.testing.assert_array_equal(
        found["hash_sample_selected"], planted.finish(labeler(), batch)(batch)["hash_sample_selected"]
    )
    assert found["hash_sample_inclusion_prob"][0] == np.float32(0.05)
    assert (
        planted.finish(labeler(seed=1), batch)(batch)["hash_sample_selected"] != found["hash_sample_selected"]
    ).any()


def test_of_few_rows_all_are_chosen() -> None:
    batch = batch_of(30)
    found = planted.finish(labeler(), batch)(batch)
    assert found["hash_sample_selected"].all()
    assert (found["hash_sample_inclusion_prob"] == 1).all()


def test_the_chosen_are_spread_evenly() -> None:
    batch = batch_of()
    counts = np.zeros(ROWS)
    for seed in range(60):
        counts += planted.finish(labeler(samples=400, seed=seed), batch)(batch)["hash_sample_selected"]
    assert counts.mean() == pytest.approx(12)
    assert counts.var() == pytest.approx(60 * 0.2 * 0.8, rel=0.15), "as of independent draws"


def test_the_texts_of_the_chosen_come_along_capped() -> None:
    batch = batch_of(50)
    made = planted.finish(labeler(samples=5, text=True, max_chars=8), batch, shards=3)
    chosen = made(batch)["hash_sample_selected"]
    assert sorted(made.finished[0]["texts"]) == sorted(str(text)[:8] for text in batch["text"][chosen])
    assert made.finished[0]["rows"] == 50
    with pytest.raises(UsageError, match="no sample to choose from"):
        planted.finish(labeler(), batch_of(0))


@pytest.mark.parametrize("text", [False, True])
def test_it_keeps_the_law_of_statistics(text: bool) -> None:
    statistic = labeler(text=text, samples=40).statistic()
    assert statistic is not None
    check_statistic(statistic, planted.cut(batch_of(600), 30), partitions=100)


@pytest.mark.parametrize("text", [False, True])
def test_it_keeps_the_rules_of_labelers(text: bool) -> None:
    made = planted.finish(labeler(text=text, samples=2), batch_of(5))
    fresh = HashSample(made.parameters)
    fresh.finished = made.finished
    check_labeler(fresh, [{"__key__": f"row-{row}", "text": f"text {row}"} for row in range(5)])
