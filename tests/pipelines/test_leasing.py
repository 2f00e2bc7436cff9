"""Leasing: a run keeps its lease, hears who stops it or took over, waits or refuses; publish wants every shard."""

import datetime as dt
import json
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases_of_photos import open_release, shas

from pipelines import run
from pipelines.command_line import main
from pipelines.leasing import IfBusy, kept, leased, obtain
from pipelines.loading import load
from pipelines.plan import make_job, plan
from pipelines.stopping import StopRequest
from relabel.errors import Refused, StorageError, StoreConflict
from relabel.releases.leases import StoreBusy, acquire, holders, release
from relabel.releases.partitions import Partition
from relabel.releases.receipts import Receipts
from relabel.releases.stops import ask_to_stop
from relabel.storage.local import LocalStore
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import UNAVAILABLE, FaultyStore
from relabel.testing.toy import dead_receipt

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lease_is_kept_as_long_as_the_block_lasts(store: ObjectStore) -> None:
    lease, stop = acquire(store, "run", seconds=1.5).lease, StopRequest()
    with kept(store, lease, stop):
        for _ in range(8):
            time.sleep(0.3)
            with pytest.raises(StoreBusy):
                acquire(store, "other", seconds=1.5)
    assert not stop.made
    assert holders(store) == []


def test_an_error_releases_it(store: ObjectStore) -> None:
    lease = acquire(store, "run", seconds=60.0).lease
    with pytest.raises(Refused), kept(store, lease, StopRequest()):
        raise Refused("no.")
    assert holders(store) == []


def test_a_stop_from_elsewhere_breaks_the_wait_for_an_event(store: ObjectStore) -> None:
    lease, stop = acquire(store, "run", seconds=0.6).lease, StopRequest()

    def events() -> Any:
        yield 1
        ask_to_stop(store, "run", "elsewhere", "today")
        time.sleep(30)
        yield 2

    begun = time.monotonic()
    with stop.heard(), kept(store, lease, stop):
        assert list(stop.until_stopped(events())) == [1]
    assert time.monotonic() - begun < 10
    assert stop.by == "`relabel stop` on elsewhere at today"
    stop.require_none_forbids()


def test_an_owner_hears_that_it_was_taken_over(store: ObjectStore) -> None:
    lease, stop = acquire(store, "old", seconds=0.6).lease, StopRequest()
    time.sleep(0.7)
    acquire(store, "new", seconds=60.0)
    with stop.heard(), kept(store, lease, stop):
        for _ in stop.until_stopped(iter(lambda: time.sleep(0.05), 0)):
            assert not stop.made
    with pytest.raises(StoreConflict, match="run new took over"):
        stop.require_none_forbids()
    assert [holder.lease.run_id for holder in holders(store)] == ["new"]


def test_an_owner_that_cannot_reach_its_store_ends_before_it_is_a_zombie(store: ObjectStore) -> None:
    lease, stop = acquire(store, "run", seconds=0.6).lease, StopRequest()
    gone = FaultyStore(store, 5, UNAVAILABLE)
    with kept(gone, lease, stop):
        wait_until(lambda: stop.made)
    with pytest.raises(StorageError, match="no heartbeat reached the store"):
        stop.require_none_forbids()
    [holder] = holders(store)  # its end could not be told either
    assert holder.lease == lease


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_does_not_go_on_where_the_thread_breaks(store: ObjectStore) -> None:
    class Broken(FaultyStore):
        """A defect, not a failed request."""

        def operate(self, operation: Any) -> Any:
            if operation.number == 2:
                raise ValueError("a defect")
            return super().operate(operation)

    lease, stop = acquire(store, "run", seconds=0.6).lease, StopRequest()
    with kept(Broken(store, -1, UNAVAILABLE), lease, stop):
        wait_until(lambda: stop.made)
    with pytest.raises(StorageError, match="keeps the lease broke"):
        stop.require_none_forbids()


def test_heartbeats_survive_an_import_in_another_thread(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", types.ModuleType("aiohttp"))  # as it is while it is being imported
    lease, stop = acquire(store, "run", seconds=0.6).lease, StopRequest()
    with kept(store, lease, stop):
        time.sleep(0.4)
    assert not stop.made


def test_a_failed_heartbeat_is_tried_again(store: ObjectStore) -> None:
    class OnceGone(FaultyStore):
        """Three requests fail, those after them work."""

        def operate(self, operation: Any) -> Any:
            self.at = operation.number if 3 <= operation.number < 6 else -1
            return super().operate(operation)

    lease, stop = acquire(store, "run", seconds=3.0).lease, StopRequest()
    failing = OnceGone(store, -1, UNAVAILABLE)
    with kept(failing, lease, stop):
        wait_until(lambda: failing.num_operations > 12)
    assert not stop.made
    assert holders(store) == []


def text_recipe(tmp_path: Path, **sections: Any) -> Path:
    """A recipe over four shards of texts, which no weights are needed to plan."""
    folder = tmp_path / "texts"
    if not folder.exists():
        import tarfile

        folder.mkdir()
        (tmp_path / "0.txt").write_text("5")
        for shard in range(4):
            with tarfile.open(folder / f"{shard}.tar", "w") as archive:
                archive.add(tmp_path / "0.txt", "0.txt")
    path = tmp_path / "texts.yaml"
    path.write_text(yaml.safe_dump({
        "source": {"path": f"{folder}/*.tar"},
        "steps": [{"counted": {"log": str(tmp_path)}}],
        "plugins": [str(Path(__file__).parent.parent / "chaos" / "counted.py")],
        "store": str(tmp_path / "store"),
        "resources": {"actors": 1, "lease_seconds": 3},
        **sections,
    }))  # fmt: skip
    return path


@pytest.mark.usefixtures("forget_plugins")
def test_a_run_waits_refuses_or_takes_over(
    tmp_path: Path, store: ObjectStore, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(load(text_recipe(tmp_path)))
    first = acquire(store, "first", seconds=60.0).lease
    for mode in (IfBusy.TAKE_OVER, IfBusy.REFUSE):
        with pytest.raises(StoreBusy, match="run first"):
            obtain(store, job, Partition(), mode)
    timer = threading.Timer(0.8, release, (store, first))
    timer.start()
    second = obtain(store, job, Partition(), IfBusy.WAIT)
    timer.join()
    assert json.loads(capfd.readouterr().err.splitlines()[0])["for"][0]["run_id"] == "first"
    assert (second.taken_over, second.lease.seconds) == ((), 3.0)
    with pytest.raises(StoreBusy, match="is held by"):
        obtain(store, job, Partition(), IfBusy.REFUSE)
    third = obtain(store, job, Partition(), IfBusy.WAIT)  # until it has expired
    assert third.taken_over == (second.lease,)


@pytest.mark.usefixtures("forget_plugins")
def test_a_replay_refuses_as_a_run_does(tmp_path: Path, store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = text_recipe(tmp_path)
    job = make_job(load(recipe))
    shard = plan(job).todo[0].task.shard
    fields = {name: getattr(shard, name) for name in ("size", "etag", "token")}
    unread = {"shard": shard.name, "fingerprint": job.fingerprint, "generation": 0, "run_id": "run", "attempt": ""}
    Receipts(store, job.fingerprint).finish(dead_receipt({**fields, **unread}))
    acquire(store, "silent", seconds=0.2)
    time.sleep(0.3)
    assert main(["replay", str(recipe), "--open", "--if-busy", "refuse"]) == 5
    assert "is held by an expired lease" in capsys.readouterr().err
    assert [holder.lease.run_id for holder in holders(store)] == ["silent"]


@pytest.mark.usefixtures("forget_plugins")
def test_a_plan_is_made_again_where_another_run_was_at_work(tmp_path: Path, store: ObjectStore) -> None:
    job, plans = make_job(load(text_recipe(tmp_path))), []

    def make_plan() -> Any:
        if not plans:  # while the first plan is made, another run comes and goes
            release(store, acquire(store, "other").lease)
        plans.append(plan(job))
        return plans[-1]

    with leased(job, make_plan, StopRequest()) as (todo, lease):
        assert todo is plans[1]
        assert lease == 2
    with leased(job, make_plan, StopRequest()) as (todo, lease):
        assert todo is plans[2]
        assert lease == 3
    assert holders(store) == []


@pytest.mark.usefixtures("forget_plugins")
def test_partitions_are_published_once_all_are_labelled(
    tmp_path: Path, recipe: Make, photo_labels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = recipe()
    path = tmp_path / "photos.yaml"
    path.write_text(yaml.safe_dump(wanted))
    first = run(wanted, partition=Partition(1, 2))
    assert first.release is None
    assert 0 < first.labelled == len(first.plan.wanted) < len(first.plan.shards)
    capfd.readouterr()  # progress
    assert main(["publish", str(path)]) == 3
    told = capfd.readouterr().err
    assert f"{first.open_shards} of {len(first.plan.shards)} shards are open" in told
    assert "At work now: no run" in told
    second = run(wanted, partition=Partition(2, 2))
    assert second.labelled == first.open_shards
    capfd.readouterr()
    assert main(["publish", str(path), "--json"]) == 0
    published = json.loads(capfd.readouterr().out)
    assert (published["release"], published["published"], published["labelled"]) == (1, True, 0)
    assert main(["publish", str(path)]) == 0
    assert "nothing to do: release 1" in capfd.readouterr().out
    assert shas(open_release(str(photo_labels))) == shas(open_release(wanted["store"]))
    assert holders(open_store(wanted["store"])) == []


def test_runs_and_stop_tell_who_is_at_work(
    tmp_path: Path, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "store")
    assert main(["runs", url]) == 2
    release(store, acquire(store, "past").lease)
    assert main(["runs", url]) == 0
    assert "no run is at work" in capsys.readouterr().out
    assert main(["stop", url]) == 0
    lease = acquire(store, "alive-run", Partition(1, 2), 60.0).lease
    acquire(store, "dead-run", Partition(2, 2), 0.1)
    time.sleep(0.2)
    assert main(["runs", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [words.split()[:3] for words in lines[-2:]] == [["2", "alive-run", "1/2"], ["3", "dead-run", "2/2"]]
    assert "alive" in lines[-2].split()
    assert "expired" in lines[-1]
    assert main(["stop", url, "past"]) == 2
    assert "alive-run, dead-run" in capsys.readouterr().err
    assert main(["stop", url, "alive-run"]) == 0
    assert f"process {lease.pid}" in capsys.readouterr().out
    assert main(["runs", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["run_id"], each["asked_to_stop"], each["expired"]) for each in found] == [
        ("alive-run", True, False), ("dead-run", False, True),
    ]  # fmt: skip
    assert dt.datetime.fromisoformat(found[0]["created"]).tzinfo is not None
    assert main(["stop", url]) == 0
    assert "asked run dead-run to stop, but it was silent" in capsys.readouterr().out


def test_log_shows_fences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(str(tmp_path / "store"))
    acquire(store, "old", seconds=0.1)
    time.sleep(0.2)
    acquire(store, "new")
    assert main(["log", store.url]) == 0
    assert "run new (lease 2) took the store over from run old (lease 1)" in capsys.readouterr().out
    assert main(["log", store.url, "--json"]) == 0
    assert [(each["kind"], each["number"]) for each in json.loads(capsys.readouterr().out)] == [("fence", 1)]
