"""Planted labels: classes that are known, judges of known skill, and the batches in which operators see them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relabel.labelers.labeler import Labeler
from relabel.labels.kinds import classes
from relabel.labels.probabilities import best_first

Batches = list[dict[str, Any]]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


def told(labeler: Labeler[Any], labels: Sequence[str], count: int, finished: Sequence[Mapping[str, Any]] = ()) -> Any:
    """A labeler that knows of labels with `count` classes, all their scores and names; made anew."""
    made = type(labeler)(labeler.parameters, labeler.label)
    made.inputs = {label: classes(label, names(count), top_k=count) for label in labels}
    made.input_names = dict.fromkeys(labels, names(count))
    made.finished = tuple(dict(result) for result in finished)
    return made


def columns(label: str, dense: np.ndarray) -> dict[str, np.ndarray]:
    """Of a label of kind `classes` with all its scores."""
    return {f"{label}_{suffix}": values for suffix, values in best_first(dense).items()}


def one_hot(ids: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[ids]


def keys(rows: int) -> np.ndarray:
    return np.array([f"row-{row}" for row in range(rows)])


def cut(batch: Mapping[str, Any], size: int) -> Batches:
    rows = len(next(iter(batch.values())))
    return [{name: values[at : at + size] for name, values in batch.items()} for at in range(0, rows, size)]


def sharded(statistic: Any, batch: Mapping[str, Any], shards: int, size: int = 256) -> Any:
    """The state of a batch's rows, in so many shards, each in batches of `size`, merged one after the other."""
    total = statistic.empty()
    for shard in cut(batch, max(1, -(-len(batch["key"]) // shards))):
        state = statistic.empty()
        for part in cut(shard, size):
            state = statistic.update(state, part)
        total = statistic.merge(total, state)
    return total


def finish(labeler: Any, batch: Mapping[str, Any], shards: int = 1, size: int = 256) -> Any:
    """The labeler with all its statistics, as a pipeline makes them."""
    while (statistic := labeler.statistic()) is not None:
        labeler.finished = (*labeler.finished, statistic.finish(sharded(statistic, batch, shards, size)))
    return labeler


def taken(batch: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    return {name: np.asarray(values)[rows] for name, values in batch.items()}


def noisy(truth: np.ndarray, count: int, skill: float, seed: int) -> np.ndarray:
    """A judge's probabilities: right with probability `skill`, and then surer than when it is wrong."""
    random = np.random.default_rng(seed)
    wrong = (truth + random.integers(1, count, len(truth))) % count
    said = np.where(random.random(len(truth)) < skill, truth, wrong)
    sure = np.where(said == truth, random.uniform(0.5, 0.98, len(truth)), random.uniform(0.4, 0.85, len(truth)))
    dense = np.repeat(((1 - sure) / (count - 1))[:, None], count, axis=1)
    dense[np.arange(len(truth)), said] = sure
    return dense
