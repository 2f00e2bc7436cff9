"""Spending: exact to the last digit, in whatever order it is summed; budgets that flow evenly."""

import asyncio
import itertools
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.labelers.engines.pacing import Meter, Pace
from relabel.labelers.engines.spending import Spending, minus, money, plus

USES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=30)
PRICES = st.decimals(0, 1000, places=4)


@given(USES, PRICES, PRICES, st.randoms())
def test_parts_in_any_order_sum_to_the_same_cost(uses, prompt, completion, random):  # type: ignore[no-untyped-def]
    spending = Spending(prompt, completion)
    states = [spending.to_json()]
    for use in uses:
        spending.requests += 1
        spending.use(*use)
        states.append(spending.to_json())
    parts = [minus(later, earlier) for earlier, later in itertools.pairwise(states)]
    random.shuffle(parts)
    total: dict[str, int | str] = {}
    for part in parts:
        total = dict(plus(total, part))
    expected = sum(p * prompt + c * completion for p, c in uses) / Decimal(10**6)
    if uses:
        assert total == spending.to_json()
        assert Decimal(total["cost"]) == expected
    assert sum(spending.cost_of(*use) for use in uses) == expected


def test_a_float_would_not_do() -> None:
    spending = Spending(Decimal("0.1"), Decimal("0.2"))
    for _ in range(3_000_000 // 1000):
        spending.use(1000, 0)
    assert spending.to_json()["cost"] == "0.3"
    assert sum([1000 * 0.1 / 1e6] * 3000) != 0.3


@pytest.mark.parametrize(
    ("amount", "text"), [("0", "0"), ("12.50", "12.5"), ("1E-9", "0.000000001"), ("100", "100"), ("1E+3", "1000")]
)
def test_money_has_no_exponent(amount: str, text: str) -> None:
    assert money(Decimal(amount)) == text


def test_a_meter_spreads_evenly_and_keeps_no_minute_for_later() -> None:
    now = [0.0]
    meter = Meter(60.0, lambda: now[0])
    assert [meter.book(1.0) for _ in range(3)] == [0, 1, 2]
    now[0] = 100.0
    assert [meter.book(1.0) for _ in range(3)] == [100, 101, 102]


def test_a_meter_is_set_right_by_what_was_used() -> None:
    meter = Meter(600.0, lambda: 0.0)
    assert meter.book(100.0) == 0
    meter.correct(-50.0)
    assert meter.book(100.0) == pytest.approx(5)
    meter.correct(100.0)
    assert meter.book(1.0) == pytest.approx(25)


def test_what_was_not_sent_is_given_back() -> None:
    async def waits() -> list[float]:
        pace, found = Pace(60.0, 6000.0), []
        for _ in range(3):
            begun = time.monotonic()
            await pace.wait(100)
            found.append(time.monotonic() - begun)
            pace.give_back(100)
        return found

    assert max(asyncio.run(waits())) < 0.5, "each would wait a second for the one before"
