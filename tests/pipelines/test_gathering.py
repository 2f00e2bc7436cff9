"""Gathering beside others: states that another run cleared up, states too large to hold at once, no such device."""

import contextlib
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from releases_of_photos import write_tar

from pipelines import gathering
from pipelines.account import Account
from pipelines.cluster import Pool
from pipelines.job import Job
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.results import Results
from pipelines.stopping import StopRequest
from relabel.errors import StorageError, UsageError
from relabel.statistics.statistic import to_bytes
from relabel.storage.objects import ObjectStore
from relabel.testing.memory import MemoryStore
from relabel.testing.telling import Mean


def pending(tmp_path: Path, **resources: Any) -> Job:
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", {"0.txt": b"word"})
    return make_job(
        load({
            "source": {"path": f"{tmp_path}/in/*.tar", "fields": {"text": "txt"}}, "steps": ["tell", "deviate"],
            "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"], "resources": resources,
        })
    )  # fmt: skip


def state(length: int) -> bytes:
    statistic = Mean("length", None)
    return to_bytes(statistic.update(statistic.empty(), {"length": np.array([length])}))


def gathered(job: Job, monkeypatch: pytest.MonkeyPatch, build: Any) -> Results:
    """By shards that are all as long; `build` gets the store and what to write."""
    results = Results(job.recipe.store)
    assert job.pending is not None
    results.tell(job.labelers[1], 1, job.selection)
    monkeypatch.setattr(
        gathering, "build", lambda job, wanted, shards: ((job.open_store(), wanted, shards), Pool(0, 0, 0.0))
    )

    def events(told: Any) -> Any:
        build(*told)
        yield from ("[]" for _ in told[2])

    monkeypatch.setattr(gathering, "events", events)
    gathering.gather(job, results, StopRequest(), contextlib.nullcontext, Account())
    return results


def test_the_states_of_a_run_that_was_slower_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of partitions, which start together and all gather the same."""
    job = pending(tmp_path)

    def build(store: ObjectStore, wanted: Any, shards: Any) -> None:
        for shard in shards:
            store.put(gathering.state_path(wanted, shard), state(4))
        Results(job.recipe.store).put(wanted, {"mean": 4.0, "count": 3}, "rows")  # the faster one ends
        store.delete(gathering.state_path(wanted, shards[0]))

    results = gathered(job, monkeypatch, build)
    labeler = make_job(job.recipe).labelers[1]
    assert labeler.finished == ({"mean": 4.0, "count": 3},)
    assert [*results.store.list("states")] == []
    assert len([*results.store.list("statistics")]) == 1


def test_states_that_vanish_are_made_again_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, begun = pending(tmp_path), list[int]()

    def build(store: ObjectStore, wanted: Any, shards: Any) -> None:
        begun.append(len(shards))
        for shard in shards:
            store.put(gathering.state_path(wanted, shard), state(4))
        if len(begun) == 1:
            store.delete(gathering.state_path(wanted, shards[1]))

    gathered(job, monkeypatch, build)
    assert begun == [3, 1]
    with pytest.raises(StorageError, match="vanished 5 times"):
        gathered(pending(tmp_path / "other"), monkeypatch, lambda store, wanted, shards: None)


def test_all_states_are_merged_whatever_fits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, paths = MemoryStore(), [f"states/{number:03}.npz" for number in range(30)]
    for number, path in enumerate(paths):
        store.put(path, state(number))
    for most in (1, 40, 1 << 20):
        monkeypatch.setattr(gathering, "MERGED_BYTES", most)
        statistic = Mean("length", None)
        assert statistic.finish(gathering.merged(store, statistic, paths)) == {"mean": 14.5, "count": 30}


def test_states_are_parsed_in_one_thread() -> None:
    """Whatever listens to the garbage collector (hypothesis does) lets Python 3.11 change threads inside `ast`."""
    store, statistic = MemoryStore(), Mean("length", None)
    paths = [f"states/{number}.npz" for number in range(300)]
    for path in paths:
        store.put(path, state(1))
    threshold = gc.get_threshold()
    gc.callbacks.append(listener := lambda phase, info: sum(range(20)))
    gc.set_threshold(5)
    try:
        assert statistic.finish(gathering.merged(store, statistic, paths)) == {"mean": 1.0, "count": 300}
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(listener)


def test_a_cluster_without_the_devices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pending(tmp_path, gpus=1)
    assert job.pending is not None
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    with pytest.raises(UsageError, match="the cluster has 0: lower"):
        gathering.build(job, job.pending, gathering.open_source(job.source).shards())
