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
from pipelines.opening import open_source
from pipelines.plan import make_job, plan
from pipelines.results import Results
from pipelines.seen import Seen, tell_seen, with_seen
from pipelines.stopping import StopRequest
from relabel.errors import StorageError, StoreCorrupt, UsageError
from relabel.releases.partitions import WHOLE, Partition
from relabel.statistics.statistic import to_bytes
from relabel.storage.objects import ObjectStore
from relabel.testing.memory import MemoryStore
from relabel.testing.telling import Mean

ALL = Seen(shards=1, ok=1)


def pending(tmp_path: Path, **resources: Any) -> Job:
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", {"0.txt": b"word"})
    return make_job(
        load({
            "source": {"path": f"{tmp_path}/in/*.tar", "fields": {"text": "txt"}}, "steps": ["tell", "deviate"],
            "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"], "resources": resources,
        })
    )  # fmt: skip


def state(length: int, seen: Seen = ALL) -> bytes:
    statistic = Mean("length", None)
    found = statistic.update(statistic.empty(), {"length": np.array([length])})
    return to_bytes(with_seen(found, seen))


def gathered(job: Job, monkeypatch: pytest.MonkeyPatch, build: Any, partition: Partition = WHOLE) -> Results:
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
    gathering.gather(job, results, StopRequest(), contextlib.nullcontext, Account(), partition)
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


@pytest.mark.parametrize("ends_first", [False, True])
def test_partitions_that_start_together_gather_their_own_shards_and_take_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_first: bool
) -> None:
    job, begun = pending(tmp_path), list[list[str]]()

    def build(store: ObjectStore, wanted: Any, shards: Any) -> None:
        """As the other partition does meanwhile, which leaves its states, or ends first."""
        begun.append([shard.name for shard in shards])
        for shard in open_source(job.source).shards():
            store.put(gathering.state_path(wanted, shard), state(4))
        if ends_first:
            Results(job.recipe.store).put(wanted, {"mean": 4.0, "count": 3}, "rows")
            for info in [*store.list("states")]:
                store.delete(info.path)

    one = Partition(1, 2)
    gathered(job, monkeypatch, build, one)
    own = [f"{number}.tar" for number in range(3) if one.holds(f"{number}.tar")]
    assert 0 < len(own) < 3
    assert begun == [own]
    assert make_job(job.recipe).labelers[1].finished == ({"mean": 4.0, "count": 3},)


def test_a_result_counts_what_it_saw_and_what_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = iter([Seen(shards=1, ok=5, dead=2, filtered=1), Seen(shards=1, dead_shards=1), Seen(shards=1, ok=4)])
    job = pending(tmp_path)

    def build(store: ObjectStore, wanted: Any, shards: Any) -> None:
        for shard in shards:
            store.put(gathering.state_path(wanted, shard), state(4, next(rows)))

    gathered(job, monkeypatch, build)
    [found] = make_job(job.recipe).results["deviate"]
    assert Seen(**found["seen"]) == Seen(shards=3, dead_shards=1, ok=9, dead=2, filtered=1)
    assert tell_seen(found) == "mean of 9 samples of 2 shards; not seen: 1 shards, 2 dead samples, 1 filtered"
    [warning] = plan(make_job(job.recipe)).warnings
    assert "lacks 1 of 3 shards, which could not be read, and 2 of 11 samples" in warning


def test_states_that_do_not_tell_their_rows_are_refused() -> None:
    store, statistic = MemoryStore(), Mean("length", None)
    store.put("states/0.npz", to_bytes(statistic.empty()))
    with pytest.raises(StoreCorrupt, match=r"states/0.npz does not tell of which rows it was made"):
        gathering.merged(store, statistic, ["states/0.npz"])


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
        found, seen = gathering.merged(store, statistic, paths)
        assert statistic.finish(found) == {"mean": 14.5, "count": 30}
        assert seen == Seen(shards=30, ok=30)


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
        assert statistic.finish(gathering.merged(store, statistic, paths)[0]) == {"mean": 1.0, "count": 300}
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(listener)


def test_a_cluster_without_the_devices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pending(tmp_path, gpus=1)
    assert job.pending is not None
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    with pytest.raises(UsageError, match="the cluster has 0: lower"):
        gathering.build(job, job.pending, open_source(job.source).shards())
