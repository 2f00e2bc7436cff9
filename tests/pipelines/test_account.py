"""The account of a run: stages sum to what slots are held, devices that die count, the bottleneck is the slowest."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import write_tar

from pipelines.account import Account
from pipelines.bottleneck import Load, find
from pipelines.cluster import Pool
from pipelines.command_line import main
from pipelines.costing import bill
from pipelines.finding import stores_below
from pipelines.job import ShardTask
from pipelines.loading import load
from pipelines.parts import Header
from pipelines.plan import make_job, plan
from pipelines.prices import Prices, cost_of, tell_cost
from pipelines.progress import Tally
from pipelines.projection import project
from pipelines.reading import read_parts
from pipelines.recipe import Recipe
from pipelines.recording import RunRecord
from pipelines.stages import Report, Stages, walls
from pipelines.standing import standing, tell_standing
from relabel.digests import seal
from relabel.errors import UsageError
from relabel.releases.leases import acquire
from relabel.releases.leases import release as release_lease
from relabel.releases.versions import ensure_store
from relabel.storage.opening import open_store


def recipe(folder: Path, shards: int = 1, rows: int = 6, **sections: Any) -> dict[str, Any]:
    """Texts for the labeler that takes its time."""
    for number in range(shards):
        write_tar(folder / "in" / f"{number}.tar", {f"{row}.txt": b"a text" for row in range(rows)})
    return {
        "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}},
        "steps": [{"unhurried": {"prepare_seconds": 0.02}}],
        "store": f"{folder}/store",
        "plugins": ["unhurried"],
        "resources": {"actors": 1, "compute_batch": 4},
        **sections,
    }


def summed(stages: dict[str, Any]) -> float:
    return sum(each["wall"] for each in stages.values())


def test_stages_sum_to_the_time_that_passed() -> None:
    begun = time.perf_counter()
    stages = Stages("reader", "read")
    time.sleep(0.02)
    with stages.in_("decode"):
        time.sleep(0.03)
        sum(range(200_000))
    first = stages.take()
    time.sleep(0.01)
    second = stages.take()
    passed = time.perf_counter() - begun
    told = [walls(each.seconds) for each in (first, second)]
    assert sum(sum(each.values()) for each in told) == pytest.approx(passed, rel=0.01)
    assert told[0]["decode"] >= 0.03
    assert 0 < first.seconds["decode"][1] < told[0]["decode"], "asleep it uses no CPU"
    assert [*told[1]] == ["read"]


def test_a_stage_that_is_shared_ends_with_the_last_inside() -> None:
    stages = Stages("device", "idle")
    with stages.shared("infer"):
        with stages.shared("infer"):
            time.sleep(0.01)
        time.sleep(0.02)
    time.sleep(0.01)
    told = walls(stages.take().seconds)
    assert told["infer"] == pytest.approx(0.03, abs=0.01)
    assert told["idle"] == pytest.approx(0.01, abs=0.005)


def test_a_reader_accounts_for_all_its_time(tmp_path: Path) -> None:
    job = make_job(load(recipe(tmp_path, resources={"part_rows": 2})))
    begun, reports = time.perf_counter(), list[Report]()
    for part in read_parts(job, ShardTask(plan(job).todo[0].task.shard)):
        reports += Header.from_json(part["header"][0].as_py()).usage
        time.sleep(0.05)  # whoever takes a part is slow
    passed = time.perf_counter() - begun - 0.05
    account = Account()
    account.add(reports)
    told = account.to_json()["slots"]["reader"]
    assert told["slots"] == 1
    assert summed(told["stages"]) == pytest.approx(passed, rel=0.05)
    assert told["stages"]["decode"]["wall"] == pytest.approx(6 * 0.02, rel=0.3)
    assert told["stages"]["wait"]["wall"] == pytest.approx(2 * 0.05, rel=0.3)


def report(name: str, began: float, kind: str = "device", **seconds: float) -> Report:
    return Report(kind, name, {stage: (each, 0.0) for stage, each in seconds.items()}, began)


def test_devices_are_held_as_long_as_the_graph_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    account = Account(Prices(device_hour=3600.0))
    epoch = time.time()
    with account.graph(pools=1, least=2, most=2, readers=1):
        now = 110.0
        account.add([report("m-1", epoch + 4, load=2.0, infer=3.0)], samples=8, dead=1)
        now = 120.0
        account.add([report("m-1", epoch + 4, infer=9.0)], samples=8)
        now = 130.0
        account.add([report("m-2", epoch + 25, load=2.0, infer=3.0)])
        now = 140.0
        account.add([report("m-3", epoch + 31, load=1.0, infer=8.0)])  # a third of two: m-1 has died
        now = 150.0
    told = account.to_json()
    device = told["slots"]["device"]
    assert device["held_seconds"] == pytest.approx(31 + 50 + 19, abs=0.1)
    assert summed(device["stages"]) == pytest.approx(device["held_seconds"], rel=0.001)
    assert device["stages"]["start"]["wall"] == pytest.approx(4 + 25, abs=0.1)
    assert device["stages"]["retry"]["wall"] == pytest.approx(31 - 4 - 14, abs=0.1), "what m-1 did not live to tell"
    assert told["cost"]["device_hours"] == pytest.approx(100 / 3600, rel=0.01)
    assert told["cost"]["usd"] == pytest.approx(100, rel=0.01)
    assert told["cost"]["usd_per_million"] == pytest.approx(100e6 / 15, rel=0.01)


def test_the_bottleneck_would_take_longest_alone() -> None:
    reader = Load("reader", "reader", 4, {"read": 2.0, "decode": 30.0}, 12.0)
    device = Load("device", "maps", 2, {"infer": 18.0, "load": 90.0}, 12.0)
    found = find([reader, device])
    assert found is not None
    assert (found.stage, found.load.of) == ("infer", "maps")
    assert str(found).startswith("the model of maps: 2 devices busy 75% of the time. Faster by: more actors")
    slower = find([reader.scaled(2.0), device])
    assert slower is not None
    assert slower.stage == "decode"
    assert find([]) is None


def test_a_projection_spreads_the_work_over_the_slots_to_come() -> None:
    loads = [
        Load("reader", "reader", 1, {"read": 100.0, "decode": 300.0}, 0.0),
        Load("device", "maps", 1, {"infer": 1000.0}, 0.0),
    ]
    pool = Pool(least=4, most=4, gpus=1.0, readers=8)
    found = project(loads, 10.0, 2_000_000, 5.0, pool, 1, Prices(device_hour=2.0, cpu_hour=0.1))
    assert found.seconds == pytest.approx(10 + 1000 / 4)
    assert found.bottleneck is not None
    assert found.bottleneck.stage == "infer"
    assert found.cost.device_hours == pytest.approx(4 * 260 / 3600)
    assert found.cost.usd == pytest.approx(4 * 260 / 3600 * 2 + (260 + 400) / 3600 * 0.1 + 5)
    assert found.cost.to_json()["usd_per_million"] == pytest.approx(found.cost.usd / 2, abs=1e-5)


def test_devices_without_gpus_are_actors_and_their_cpus_cost_once() -> None:
    cost = cost_of(Prices(cpu_hour=1.0), 7200.0, 0.0, 3600.0, [{"cost": "1.5"}, {"requests": 3}], 0)
    assert (cost.device_hours, cost.usd) == (2.0, 2.5)
    assert tell_cost(cost.to_json()) == "2 device-hours, 1 CPU-hours, $2.50"


def test_prices_and_owners_change_no_fingerprint(tmp_path: Path) -> None:
    plain = recipe(tmp_path)
    owned = {**plain, "prices": {"device_hour": 2.5}, "meta": {"team": "vision", "owner": "ada"}}
    assert make_job(load(owned)).fingerprint == make_job(load(plain)).fingerprint
    assert load(owned).meta.named == {"team": "vision", "owner": "ada"}
    with pytest.raises(ValueError, match="team"):
        Recipe.model_validate({**plain, "meta": {"team": "two words"}})


def a_record(**fields: Any) -> RunRecord:
    usage = {"cost": {"labels": 500_000, "device_hours": 2.0, "cpu_hours": 1.0, "usd": 5.0}}
    given = {
        "run_id": "r", "name": "maps", "store": "s", "partition": "", "host": "h", "meta": {"team": "vision"},
        "started": "2026-03-01T00:00:00+00:00", "updated": "2026-03-01T01:00:00+00:00", "state": "published",
        "error": "", "exit_code": 0, "release": 1, "progress": None, "usage": usage,
    }  # fmt: skip
    return RunRecord(**{**given, **fields})


def test_costs_are_summed_over_all_stores_below_a_prefix(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    killed = a_record(run_id="k", state="running", exit_code=None, started="2026-02-01T00:00:00+00:00")
    for name, records in {"a": [a_record(), killed], "deep/b": [a_record(meta={})]}.items():
        store = open_store(str(tmp_path / name))
        ensure_store(store, "0" * 32)
        for record in records:
            store.put(record.path, seal({"format": 1, **dataclasses.asdict(record)}))
    assert [*stores_below(str(tmp_path))] == [str(tmp_path / "a"), str(tmp_path / "deep" / "b")]
    found = bill(str(tmp_path), {}).to_json()
    assert {team: (each["runs"], each["failed"], each["usd"]) for team, each in found["sums"].items()} == {
        "vision": (2, 1, 10.0), "(none)": (1, 0, 5.0),
    }  # fmt: skip
    assert found["total"]["usd_per_million"] == pytest.approx(10.0)
    assert bill(str(tmp_path), {}, "store", "2026-02-15").total.runs == 2
    assert main(["cost", str(tmp_path), "--by", "recipe"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == [
        "maps", "3", "1", "1,500,000", "6", "3", "$15.00", "$10.00",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="2026-01-31"):
        bill(str(tmp_path), {}, since="yesterday")


def test_status_tells_a_run_that_died_from_one_that_works(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    lease = acquire(store, "alive").lease
    progress = Tally(10).to_json()
    for record in (a_record(run_id="dead", state="running"), a_record(run_id="alive", state="running")):
        told = dataclasses.replace(record, progress=progress, usage=Account().to_json())
        store.put(told.path, seal({"format": 1, **dataclasses.asdict(told)}))
    lines = [*tell_standing(standing(store))]
    assert lines[0] == "release   none yet"
    assert any(line.startswith("owner     run alive") for line in lines)
    assert any(line.startswith("progress  0 of 10 shards") for line in lines)
    died = next(line for line in lines if line.startswith("run "))
    assert died.endswith("it said nothing more; run again, it goes on")
    release_lease(store, lease)
    assert {each["run_id"]: each["state"] for each in standing(store).to_json()["runs"]} == {
        "dead": "died", "alive": "died",
    }  # fmt: skip
