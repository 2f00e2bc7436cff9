"""Distributions: the same for every partition of the numbers, and how far quantiles are off."""

import itertools
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.digests import canonical_json
from relabel.labels.distribution import (
    LAST,
    LEAST,
    MOST,
    UNITS,
    Distribution,
    bins_of,
    distribution,
    edges,
    from_state,
    merged,  # fmt: skip
)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def found(numbers: list[float], whole: bool = False) -> Distribution:
    made = distribution(np.array(numbers, np.float64), whole)
    assert made is not None
    return made


@given(st.lists(floats, min_size=1, max_size=40), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_partition_in_any_order_is_the_same_to_the_last_byte(
    numbers: list[float], parts: int, chance: random.Random
) -> None:
    whole = found(numbers)
    chance.shuffle(numbers)
    cut = [numbers[start::parts] for start in range(parts) if numbers[start::parts]]
    chance.shuffle(cut)
    again = merged([found(each) for each in cut])
    assert canonical_json(again.state()) == canonical_json(whole.state())
    assert merged([merged([found(each)]) for each in cut]) == again
    assert from_state(json.loads(canonical_json(whole.state()))) == whole


def test_hand_computed() -> None:
    made = found([0.25, -1.0, 0.25, 3.0])
    assert (made.count, made.total, made.least, made.most) == (4, int(2.5 * UNITS), -UNITS, 3 * UNITS)
    assert (made.mean, made.smallest, made.largest) == (0.625, -1.0, 3.0)
    assert made.bins == {-(1 + 16 * 10): 1, 1 + 16 * 8: 2, 1 + 16 * 11 + 8: 1}
    assert made.to_json()["quantiles"]["0.5"] == pytest.approx(0.25, rel=1 / 16)


@given(floats)
def test_a_number_lies_between_the_edges_of_its_bin(number: float) -> None:
    [index] = bins_of(np.array([number])).tolist()
    low, high = edges(index)
    assert low <= number <= high
    assert abs(index) <= LAST
    if 2.0**LEAST <= abs(number) < 2.0**MOST:
        assert (high - low) <= min(abs(low), abs(high)) / 16
        assert (low <= number < high) if number > 0 else (low < number <= high)


def test_bins_follow_each_other_without_gaps() -> None:
    ends = [edges(index) for index in range(-LAST, LAST + 1)]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ends))
    assert (ends[0][0], ends[-1][1]) == (-math.inf, math.inf)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", ["normal", "uniform", "skewed", "huge"])
def test_quantiles_are_off_by_less_than_a_sixteenth(name: str, share: float) -> None:
    chance = np.random.default_rng(0)
    numbers = {
        "normal": chance.normal(0.3, 0.05, 5_000), "uniform": chance.uniform(-1, 1, 5_000),
        "skewed": chance.gamma(2, 0.1, 5_000), "huge": chance.normal(0, 1e5, 5_000),
    }[name]  # fmt: skip
    exact = float(np.quantile(numbers, share))
    assert found(numbers.tolist()).quantile(share) == pytest.approx(exact, rel=1 / 16, abs=2.0**LEAST)


@given(st.lists(st.integers(-32, 32), min_size=1, max_size=30), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_small_whole_numbers_are_exact(numbers: list[int], share: float) -> None:
    ordered = sorted(numbers)
    quantile = found([float(each) for each in numbers], whole=True).quantile(share)
    rank = share * (len(ordered) - 1)
    assert quantile in {ordered[math.floor(rank)], ordered[math.ceil(rank)]}


def test_zeros_are_zero_and_ends_are_known() -> None:
    assert found([0.0] * 9 + [0.5]).quantile(0.5) == 0.0
    assert found([-3e30] * 3).quantile(0.5) == pytest.approx(-3e30)
    assert found([-3e30, 1.0, 3e30]).quantile(0.0) <= -(2.0**MOST)


def test_what_is_not_finite_is_left_out() -> None:
    assert found([math.nan, 1.0, math.inf, -math.inf]).count == 1
    assert distribution(np.array([math.nan])) is None
    assert distribution(np.array([])) is None


def test_sums_have_no_limit() -> None:
    largest = float(np.finfo(np.float32).max)
    made = merged([found([largest] * 3), found([-1.0])])
    assert made.total == 3 * int(largest) * UNITS - UNITS
    assert from_state(json.loads(json.dumps(made.state()))) == made
    double = float(np.finfo(np.float64).max)
    assert found([double, -double, 1.0]).count == 3
