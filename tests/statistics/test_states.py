"""The states that statistics are made of: hashes, exact sums, the n first of every cell."""

import fractions

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.errors import StoreCorrupt, UsageError
from relabel.statistics.hashes import key_hashes, shares
from relabel.statistics.statistic import fixed_point, from_bytes, to_bytes
from relabel.statistics.sums import fine, mean_of
from relabel.statistics.top import Top, ordered, unordered

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


def test_hashes_are_those_of_every_machine_and_differ_by_purpose_and_seed() -> None:
    assert key_hashes(["a", "b"], "x").tolist() == [16169335805165925601, 16430018068663941730]
    assert len({int(key_hashes(["a"], purpose, seed)[0]) for purpose in "xy" for seed in range(3)}) == 6
    assert key_hashes([], "x").tolist() == []


def test_shares_are_evenly_spread() -> None:
    found = shares(key_hashes([f"k{row}" for row in range(20_000)], "audit"))
    assert (found >= 0).all()
    assert (found < 1).all()
    np.testing.assert_allclose(np.histogram(found, 10, (0, 1))[0] / 20_000, 0.1, atol=0.01)


@given(numbers)
def test_fine_sums_are_exact_to_the_last_digits(values: list[float]) -> None:
    high, low = fine(np.array(values, np.float64))
    assert (low >= 0).all()
    exact = sum((fractions.Fraction(value) for value in values), fractions.Fraction(0))
    mean = mean_of(int(high.sum()), int(low.sum()), len(values))
    assert abs(mean - float(exact / len(values))) <= 2.0**-48 + abs(mean) * 1e-15


def test_fixed_point_is_cut_where_it_would_overflow() -> None:
    assert fixed_point(np.array([1e30, -1e30, 0.25])).tolist() == [2**48, -(2**48), 2**22]


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=20))
def test_ordered_integers_keep_order_and_value(values: list[float]) -> None:
    array = np.array(values, np.float64)
    found = ordered(array)
    np.testing.assert_array_equal(unordered(found), array)
    order = np.argsort(array, kind="stable")
    assert (np.diff(found[order].astype(object)) >= 0).all()
    assert ordered(np.array([-0.0]))[0] == ordered(np.array([0.0]))[0]


def test_top_keeps_the_largest_of_every_cell_as_sorting_all_of_them_does() -> None:
    random = np.random.default_rng(3)
    cells, hashes = random.integers(0, 5, 500), random.integers(0, 2**63, 500).astype(np.uint64)
    values = random.integers(0, 8, 500) / 8  # many ties
    top = Top(np.array([3, 0, 40, 1, 500]) * np.array([1, 1, 1, 1, 0]))
    state = top.empty()
    for at in range(0, 500, 7):
        state = top.update(state, cells[at : at + 7], values[at : at + 7], hashes[at : at + 7])
    for cell, limit in enumerate(top.limits):
        rows = sorted((-value, hashed) for value, hashed, c in zip(values, hashes, cells, strict=True) if c == cell)
        kept = state["cells"] == cell
        found = zip(-unordered(state["numbers"][kept]), state["hashes"][kept], strict=True)
        assert list(found) == rows[:limit]
    assert [cut[0] for cut in top.cuts(state)] == [0, 2, 3]
    with pytest.raises(UsageError, match="changed between the passes"):
        Top(np.array([3, 0, 40, 1, 500])).cuts(state)


def test_bytes_that_are_no_state_are_told() -> None:
    state = {"b": np.arange(3), "a": np.zeros((), np.int64)}
    assert to_bytes(state) == to_bytes(dict(reversed(state.items())))
    for damaged in (b"", b"PK", to_bytes(state)[:-30]):
        with pytest.raises(StoreCorrupt, match="Delete it"):
            from_bytes(damaged, "statistics/x.npz")
