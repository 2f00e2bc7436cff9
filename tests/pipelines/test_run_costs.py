"""What real runs say of their time: slots add up, the planted bottleneck is named, records tell any machine."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar
from test_account import recipe, summed

from pipelines import run
from pipelines.command_line import main
from pipelines.loading import load
from pipelines.measuring import measure
from pipelines.outcome import Outcome
from pipelines.plan import make_job, plan
from pipelines.recording import read_records
from relabel.errors import TooManyDeadLetters
from relabel.storage.opening import open_store
from relabel.testing.proxy import Handler, Request, WireFault, answer_plainly, faulty_proxy
from relabel.testing.servers import S3Server

pytestmark = pytest.mark.usefixtures("ray_cluster")


def answer_late(handler: Handler, request: Request) -> None:
    time.sleep(0.6)
    answer_plainly(handler, request)


def check_sums(outcome: Outcome) -> dict[str, Any]:
    """Every slot's stages sum to what it was held, within 5 %; returns the usage."""
    usage = outcome.to_json()["usage"]
    assert {kind for kind, used in usage["slots"].items() if used["slots"]} == {"device", "reader", "writer", "driver"}
    for kind, used in usage["slots"].items():
        assert summed(used["stages"]) == pytest.approx(used["held_seconds"], rel=0.05), kind
    assert usage["slots"]["device"]["held_seconds"] == pytest.approx(usage["graph_seconds"], rel=0.05)
    assert usage["slots"]["driver"]["held_seconds"] == pytest.approx(usage["wall_seconds"], rel=0.05)
    return dict(usage)


def test_slow_decoding_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = recipe(tmp_path, 4, 16, steps=[{"unhurried": {"prepare_seconds": 0.08}}])
    measured = measure(plan(make_job(load(slow)))).to_json()
    assert measured["projected"]["bottleneck"]["stage"] == "decode"
    assert measured["samples"] == 64
    assert 80 <= measured["ms_per_sample"]["decode"] < 160, "as planted, and what a busy machine adds"
    usage = check_sums(run(slow))
    assert usage["bottleneck"]["stage"] == "decode"
    assert 64 * 0.08 <= usage["slots"]["reader"]["stages"]["decode"]["wall"] < 2 * 64 * 0.08


def test_a_slow_model_is_named_and_owners_are_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = recipe(
        tmp_path, 4, 16, steps=[{"unhurried": {"label_seconds": 0.2}}], name="slow",
        prices={"device_hour": 3.6}, meta={"team": "vision", "owner": "ada"},
    )  # fmt: skip
    measured = measure(plan(make_job(load(slow)))).to_json()
    assert measured["projected"]["bottleneck"]["stage"] == "infer"
    outcome = run(slow)
    usage = check_sums(outcome)
    assert (usage["bottleneck"]["stage"], usage["bottleneck"]["of"]) == ("infer", "unhurried")
    device = usage["slots"]["device"]["stages"]
    assert 16 * 0.2 <= device["infer"]["wall"] < 2 * 16 * 0.2
    assert device["check"]["wall"] >= 0.2, "samples that are labelled once more are no inference"
    assert usage["cost"]["usd"] == pytest.approx(3.6 * usage["graph_seconds"] / 3600, rel=0.01)
    assert usage["cost"]["labels"] == 64

    release = open_release(slow["store"]).version
    assert release.meta == {"team": "vision", "owner": "ada"}
    assert release.usage["bottleneck"]["stage"] == "infer"
    for receipt in outcome.receipts.values():
        assert 0.8 <= json.loads(receipt.usage)["infer"][0] < 1.6

    [record], damaged = read_records(open_store(slow["store"]))
    assert damaged == []
    assert (record.state, record.release, record.exit_code) == ("published", 1, 0)
    capfd.readouterr()
    assert main(["status", slow["store"]]) == 0
    told = capfd.readouterr().out
    assert "release   1 of" in told
    assert "no run is at work" in told
    assert "published release 1 (exit 0)" in told
    assert main(["cost", str(tmp_path), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["sums"]["vision"]["usd"] == pytest.approx(usage["cost"]["usd"], rel=0.2)
    assert main(["cost", str(tmp_path), "--by", "recipe", "--since", "2126-01-01", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["sums"] == {}
    assert main(["cost", str(tmp_path / "in")]) == 2


def test_slow_storage_is_named(tmp_path: Path, s3_root: str, seaweed: S3Server) -> None:
    with faulty_proxy(seaweed) as proxy:
        slow = recipe(tmp_path, 4, 16, steps=["unhurried"])
        store = open_store(s3_root)
        for tar in sorted((tmp_path / "in").glob("*.tar")):
            store.put(f"in/{tar.name}", tar.read_bytes())
        options = {"endpoint_url": proxy.server.endpoint}
        slow["source"] = {"path": f"{s3_root}/in/*.tar", "fields": {"text": "txt"}, "storage_options": options}
        proxy.arm(WireFault("late", answer_late), 0, 10**6)
        measured = measure(plan(make_job(load(slow))), 1).to_json()
        assert measured["projected"]["bottleneck"]["stage"] == "read"
        usage = check_sums(run(slow))
    assert usage["bottleneck"]["stage"] == "read"


def test_the_canary_foretells_the_rest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = [{"unhurried": {"label_seconds": 0.2}}]
    outcome = run(recipe(tmp_path, 8, 8, steps=steps, gate={"canary": 0.25}, prices={"device_hour": 1.0}))
    usage = outcome.to_json()["usage"]
    assert usage["projected"]["bottleneck"]["stage"] == "infer"
    infer = 6 * 2 * 0.2
    steady = usage["projected"]["seconds"] - usage["projected"]["startup_seconds"]
    assert infer - 0.11 <= steady < 2 * infer, "both are told to a tenth of a second"
    assert usage["projected"]["cost"]["labels"] == 48
    lines = [json.loads(each) for each in capfd.readouterr().err.splitlines() if each.startswith("{")]
    assert [each["seconds"] for each in lines if each["event"] == "projected"] == [usage["projected"]["seconds"]]
    assert {each["run_id"] for each in lines if each["event"] == "progress"} == {outcome.plan.run_id}


def test_a_run_that_fails_says_so_to_every_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELABEL_LOG", "json")
    bad = recipe(tmp_path, 2, 4)
    for number in range(12):
        write_tar(tmp_path / "in" / f"bad{number}.tar", {"a.txt": b"x"}).write_bytes(b"no tar at all" * 100)
    with pytest.raises(TooManyDeadLetters):
        run(bad)
    shards = [json.loads(each) for each in capfd.readouterr().err.splitlines() if '"event": "shard"' in each]
    assert {each["shard"] for each in shards if each["status"] == "ok"} <= {"0.tar", "1.tar"}
    assert all(each["run_id"] and each["time"] for each in shards)
    [record], _ = read_records(open_store(bad["store"]))
    assert (record.state, record.exit_code) == ("failed", 4)
    assert main(["status", bad["store"], "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["runs"][0]["error"].startswith("TooManyDeadLetters: ")
    assert told["unpublished"]["dead_shards"] > 0
    store = open_store(bad["store"])
    assert read_records(store)[0][0] == dataclasses.replace(record)
    store.put("runs/torn.json", b"{")
    assert main(["status", bad["store"]]) == 0
    assert "warning" in capfd.readouterr().out
