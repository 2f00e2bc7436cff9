"""Confident joint: how many rows of each given class truly belong to each class (Northcutt et al., arXiv 1911.00068).

Plain arithmetic on counts; `confident_learning` counts the rows.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

Joint = Int64[np.ndarray, "given true"]
LEAST_THRESHOLD = 2e-6
MARGIN = 1e-6
"""A probability this far below its threshold reaches it, and one this far below the largest counts as the largest."""
NEVER = 2.0
"""The threshold of a class that nothing was given."""


def confident(
    probabilities: Float64[np.ndarray, "rows classes"], thresholds: Float64[np.ndarray, "rows classes"]
) -> Int64[np.ndarray, " rows"]:
    """The class whose threshold a row reaches; of several, the row's most probable class; -1 where there is none."""
    reached = probabilities >= thresholds - MARGIN
    several = reached.sum(axis=1) > 1
    found = np.where(several, probabilities.argmax(axis=1), reached.argmax(axis=1))
    return np.asarray(np.where(reached.any(axis=1), found, -1))


def holds(
    probabilities: Float64[np.ndarray, "rows classes"], given: Int64[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Whether the given class is the most probable one, if only up to MARGIN."""
    raised = probabilities.copy()
    raised[np.arange(len(given)), given] += MARGIN
    return np.asarray(raised.argmax(axis=1) == given)


def calibrated(counts: Joint, given: Int64[np.ndarray, " classes"]) -> Joint:
    """The counts of the confident rows, scaled to all rows: each row of the table sums to its class's rows.

    Every class holds at least one row that is right.
    """
    table = counts.astype(np.float64)
    np.fill_diagonal(table, np.maximum(table.diagonal(), 1))
    table = (table.T / table.sum(axis=1) * given).T
    table = table / max(float(table.sum()), 1e-100) * given.sum()
    return np.stack([rounded(row) for row in table])


def rounded(row: Float64[np.ndarray, " classes"]) -> Int64[np.ndarray, " classes"]:
    """Whole numbers with the row's (rounded) sum: where rounding missed it, those it moved most the other way give."""
    whole = row.round()
    while missing := int(row.sum().round() - whole.sum()):
        step = 1 if missing > 0 else -1
        nearest = np.argsort(row - whole)[::-step]
        whole[nearest[: abs(missing)]] += step
    return whole.astype(np.int64)


def wrong(joint: Joint, given: Int64[np.ndarray, " classes"]) -> Joint:
    """How many rows of a given class (first axis) are taken for another (second): the joint without its diagonal.

    A class of one row loses none, and of every other at least one stays.
    """
    right = np.maximum(joint.diagonal(), 1)
    shares = np.maximum(np.count_nonzero(joint, axis=1) - 1, 1)
    left = joint - ((right - joint.diagonal()) / shares)[:, None]
    found = np.maximum(left, 0).astype(np.int64)
    np.fill_diagonal(found, 0)
    found[given <= 1] = 0
    return np.asarray(found)


def noise_rates(joint: Joint) -> dict[str, list[float]]:
    """Per class: the share of what was given it that is wrong, and of what truly is it the share given to others."""
    right = joint.diagonal()
    of_given, of_true = np.maximum(joint.sum(axis=1), 1), np.maximum(joint.sum(axis=0), 1)
    return {"wrong_of_given": (1 - right / of_given).tolist(), "lost_of_true": (1 - right / of_true).tolist()}
