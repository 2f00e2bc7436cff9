"""Run budgets: what a run may cost, and how much of what is labelled it may label once more."""

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import write_tar

from pipelines import run
from pipelines.account import Account
from pipelines.gatekeeper import refusals
from pipelines.loading import load
from pipelines.meter import Meter
from pipelines.plan import make_job, plan
from pipelines.recipe import Recipe
from pipelines.stopping import StopRequest
from relabel.errors import OverBudget, Refused, UsageError

SECONDS_PER_HOUR = 3600


def recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    return {
        "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}}, "store": str(folder / "store"),
        "steps": ["tell"], "plugins": ["relabel.testing.telling"], "resources": {"actors": 1, "compute_batch": 4},
        **sections,
    }  # fmt: skip


def add_shards(folder: Path, *names: str, word: str = "one") -> None:
    for name in names:
        write_tar(folder / "in" / name, {f"{row}.txt": word.encode() for row in range(6)})


def metered(**sections: Any) -> tuple[Meter, StopRequest]:
    stop = StopRequest()
    plain = {"source": {"path": "in/*.tar"}, "steps": ["tell"], "store": "unused", **sections}
    recipe = Recipe.model_validate(plain)
    return Meter(recipe, stop, Account(recipe.prices)), stop


def test_device_hours_are_those_held() -> None:
    meter, stop = metered(budget={"device_hours": 2 / SECONDS_PER_HOUR})
    with meter.holding(), meter.account.graph(1, 4, 4, 1):
        deadline = time.monotonic() + 20
        while not stop.made and time.monotonic() < deadline:
            time.sleep(0.05)
    assert stop.made
    assert "device hours" in stop.by
    assert meter.account.cost().device_hours * SECONDS_PER_HOUR >= 2
    with pytest.raises(
        OverBudget, match=r"budget is spent .*2 of 5 shards finished.*Run the same command again"
    ) as caught:
        meter.require_within("2 of 5 shards finished")
    assert caught.value.exit_code == 4


def test_money_is_devices_and_services() -> None:
    meter, stop = metered(budget={"usd": 3}, prices={"device_hour": 0})
    meter.account.spend({"caption": {"requests": 3, "cost": "1.5"}, "judge": {"cost": "1.25"}})
    with meter.holding(), meter.account.graph(1, 1, 1, 1):
        time.sleep(0.6)
        assert not stop.made
        meter.account.spend({"judge": {"cost": "0.5"}})
        deadline = time.monotonic() + 20
        while not stop.made and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "3.25 of 3 USD" in stop.by
    assert meter.account.cost().usd == pytest.approx(float(Decimal("3.25")))


def test_without_a_budget_nothing_stops() -> None:
    meter, stop = metered()
    with meter.holding(), meter.account.graph(1, 10**9, 10**9, 1):
        time.sleep(0.6)
    assert not stop.made
    meter.require_within("")


def test_money_needs_a_price() -> None:
    with pytest.raises(UsageError, match=r"budget\.usd needs prices\.device_hour"):
        load({"source": {"path": "in/*.tar"}, "steps": ["mask"], "store": "s", "budget": {"usd": 1}})


def test_a_run_stops_at_its_budget_and_goes_on(tmp_path: Path, ray_cluster: None) -> None:
    add_shards(tmp_path, *(f"{number}.tar" for number in range(3)))
    with pytest.raises(OverBudget, match=r"0\.00\d* of .* device hours"):
        run(recipe(tmp_path, budget={"device_hours": 0.1 / SECONDS_PER_HOUR}))
    outcome = run(recipe(tmp_path, budget={"device_hours": 10}))
    assert outcome.published


def test_a_large_recompute_is_refused_unless_it_is_accepted(tmp_path: Path, ray_cluster: None) -> None:
    add_shards(tmp_path, *(f"{number}.tar" for number in range(5)))
    limited = recipe(tmp_path, max_recompute="10%")
    assert run(limited).published
    add_shards(tmp_path, "new.tar")
    assert run(limited).published, "what is new is no recompute"
    add_shards(tmp_path, "0.tar", "1.tar", word="two")
    [told] = refusals(plan(make_job(load(limited))))
    assert "max_recompute allows 10.0%" in told
    with pytest.raises(Refused, match=r"33\.3% of the shards .*\(2 changed bytes\); max_recompute allows 10\.0%"):
        run(limited)
    assert run(limited, accept_recompute=True).labelled == 2
