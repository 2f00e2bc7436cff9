"""Collect: garbage goes in two steps; what a release, a receipt or an unfinished run needs never does."""

import pytest

from relabel.digests import seal
from relabel.errors import Refused, StoreCorrupt, UnknownName, UsageError
from relabel.releases.collect import DAY_SECONDS, apply_plan, drop_plan, plan_collect, plan_names
from relabel.releases.commit import commit
from relabel.releases.leases import acquire, beat, holders, release
from relabel.releases.partitions import Partition
from relabel.releases.reachable import unreachable
from relabel.releases.receipts import Receipts
from relabel.releases.segments import entry_of, write_segments
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.verify import verify
from relabel.releases.versions import FORMAT, version_numbers
from relabel.testing.faults import OperatedStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards, label, meaning, token_of

GRACE = 7.0 * DAY_SECONDS
SOURCE = {"a.tar": "0", "b.tar": "0", "broken.tar": "0"}


@pytest.fixture
def store() -> MemoryStore:
    """One release; a receipt that is not published; what a lost attempt, a dead commit and a dead run left.

    A run is at work.
    """
    store = MemoryStore()
    acquire(store, "open", seconds=100 * GRACE)
    commit(store, draft("run", 0, finish_shards(store, "run", SOURCE, "small"), "small"))
    label(store, "open", "d.tar", "0", "small")
    label(store, "lost", "a.tar", "0", "small")
    write_segments(store, [entry_of(receipt) for receipt in finish_shards(store, "dead", {"e.tar": "0"}, "large")])
    done, unfinished = (token_of(shard, "0")[:32] for shard in ("a.tar", "f.tar"))
    folder = f"parts/{meaning('small')[:16]}"
    for token in (done, unfinished):
        store.put(f"{folder}/{token}-g0000-by256/0000000000-2-{'0' * 32}.parquet", b"part")
    store.put("notes.txt", b"a person's own")
    return store


def test_a_plan_deletes_nothing_and_names_only_garbage(store: MemoryStore) -> None:
    store.now += GRACE
    before = {info.path for info in store.list("")}
    plan = plan_collect(store)
    names = [info.path for info in plan.objects]
    assert {info.path for info in store.list("")} - before == {f"gc/{plan.id}.json"}
    assert [name.split("/")[0] for name in names] == ["data", "data", "parts", "segments"]
    assert all("lost" in name for name in names[:2])
    assert token_of("a.tar", "0")[:32] in names[2]


def test_parts_of_nobody_are_garbage(store: MemoryStore) -> None:
    """Of a replay whose generation has a receipt; and of all shards once no run is at work and the grace is over."""
    folder = f"parts/{meaning('small')[:16]}"
    replayed, later = (
        f"{folder}/{token_of('a.tar', '0')[:32]}-g{generation:04d}-by256-only-{'0' * 16}/0000000000-2-{'0' * 32}.arrow"
        for generation in (0, 1)
    )
    for path in (replayed, later):
        store.put(path, b"part")
    parts = {info.path for info in store.list("parts")}
    unfinished = next(path for path in parts if token_of("f.tar", "0")[:32] in path)
    assert parts - unreachable(store).keys() == {later, unfinished}
    [holder] = holders(store)
    release(store, holder.lease)
    assert parts <= unreachable(store).keys()
    assert plan_collect(store).objects == ()  # a run that was stopped may go on
    store.now += GRACE
    assert parts <= {info.path for info in plan_collect(store).objects}


def test_both_must_be_older_than_the_grace(store: MemoryStore) -> None:
    assert (plan_collect(store).id, len(plan_collect(store).young)) == ("", 4)
    store.now += GRACE
    plan = plan_collect(store)
    with pytest.raises(Refused, match=r"old; it may be applied when it is 7 days old"):
        apply_plan(store, plan.id)
    assert plan_collect(store).id == plan.id
    store.now += GRACE
    done = apply_plan(store, plan.id)
    assert done.deleted == plan.objects
    assert unreachable(store) == {}
    assert store.exists("notes.txt")
    assert verify(store, 1, "full").problems == []
    with pytest.raises(UnknownName, match="plan"):
        apply_plan(store, plan.id)


def test_what_was_written_again_or_is_gone_is_no_error(store: MemoryStore) -> None:
    store.now += GRACE
    plan = plan_collect(store)
    store.now += GRACE
    lost = [info.path for info in plan.objects if "lost" in info.path]
    store.put(plan.objects[2].path, b"part")
    store.delete(plan.objects[3].path)
    done = apply_plan(store, plan.id)
    assert [info.path for info in done.deleted] == lost
    assert (done.young, done.gone) == ((plan.objects[2].path,), 1)


def test_a_commit_does_not_stand_on_what_a_plan_names(store: MemoryStore) -> None:
    """A run that died before it published left a segment; the same run again would take it for its own."""
    again = draft("again", 1, finish_shards(store, "again", {"e.tar": "0"}, "large"), "large")
    store.now += GRACE
    plan = plan_collect(store)
    assert any(info.path.startswith("segments/") for info in plan.objects)
    with pytest.raises(Refused, match=rf"named by the plan {plan.id}.*--drop {plan.id}"):
        commit(store, again)
    assert version_numbers(store) == [1]
    drop_plan(store, plan.id)
    assert plan_names(store) == []
    assert commit(store, again).version == 2
    assert verify(store, 2, "full").problems == []


class AppliedMidway(OperatedStore):
    """Once a commit has found the segment that a dead run left, somebody applies the plan that names it."""

    plan = ""

    def operate(self, operation: Operation) -> object:
        found = super().operate(operation)
        if self.plan and operation.kind == "get" and operation.path.startswith("segments/"):
            plan, self.plan = self.plan, ""
            apply_plan(self.inner, plan)
        return found


def test_a_plan_that_is_applied_during_a_commit_counts(store: MemoryStore) -> None:
    again = draft("again", 1, finish_shards(store, "again", {"e.tar": "0"}, "large"), "large")
    store.now += GRACE
    midway = AppliedMidway(store)
    midway.plan = plan_collect(store).id
    store.now += GRACE
    with one_request_at_a_time(), pytest.raises(Refused, match=r"named by the plan .* nothing was published"):
        commit(midway, again)
    assert (midway.plan, plan_names(store), version_numbers(store)) == ("", [], [1])
    assert commit(store, again).version == 2
    assert verify(store, 2, "full").problems == []


def test_a_damaged_plan_says_how_to_give_it_up(store: MemoryStore) -> None:
    store.now += GRACE
    plan = plan_collect(store)
    path = f"gc/{plan.id}.json"
    store.put(path, store.get(path)[:-9])
    again = draft("again", 1, finish_shards(store, "again", {"z.tar": "0"}, "small"), "small")
    works = (lambda: commit(store, again), lambda: plan_collect(store), lambda: apply_plan(store, plan.id))
    for work in works:
        with pytest.raises(StoreCorrupt, match=rf"{path}.*--drop {plan.id}"):
            work()
    drop_plan(store, plan.id)
    assert commit(store, again).version == 2
    with pytest.raises(UnknownName, match="plan"):
        drop_plan(store, plan.id)


def test_clock_objects_and_heartbeats_of_ended_leases_are_collected() -> None:
    """What processes left that died while they asked for the time, and an owner that beat after its end."""
    store = MemoryStore()
    ended = acquire(store, "one", Partition(1, 2)).lease
    open_one = acquire(store, "two", Partition(2, 2)).lease
    release(store, ended)
    for lease in (ended, open_one):
        beat(store, lease)
    clocks = [f"leases/clock/{number * 32}" for number in "01"]
    for path in clocks:
        store.put(path, b"now")
    store.now += GRACE
    plan = plan_collect(store)
    store.now += GRACE
    deleted = {info.path for info in apply_plan(store, plan.id).deleted}
    assert {path for path in deleted if path.startswith(("gc", "leases"))} == {*clocks, ended.beat_path}
    assert store.exists(open_one.beat_path)


def test_a_day_is_the_least(store: MemoryStore) -> None:
    for work in (plan_collect, lambda store, grace: apply_plan(store, "x", grace)):
        with pytest.raises(UsageError, match=r"at least 24 hours, got 1\.0"):
            work(store, 3600.0)
    plan = plan_collect(store, 0.0, force=True)
    assert len(apply_plan(store, plan.id, 0.0, force=True).deleted) == 4


@pytest.mark.parametrize("folder", ["versions", "segments", "receipts"])
def test_nothing_is_collected_where_a_root_is_damaged(store: MemoryStore, folder: str) -> None:
    paths = [info.path for info in store.list(folder) if "fold" not in info.path]
    path = next(path for path in paths if path not in unreachable(store))
    newest = Receipts(store, meaning("small"))
    if folder == "receipts":
        path = newest.path(token_of("d.tar", "0"), 0)
    store.put(path, store.get(path)[:-3])
    with pytest.raises(Refused, match=rf"{path}.*nothing is collected"):
        plan_collect(store)


def test_a_newer_format_is_not_collected_for(store: MemoryStore) -> None:
    store.put("redactions/x.json", seal({"format": FORMAT + 1, "objects": []}))
    with pytest.raises(Refused, match="pip install --upgrade"):
        plan_collect(store)


class Collected(OperatedStore):
    """Before each operation of a job somebody collects, with no grace at all, what is neither segment nor card."""

    def operate(self, operation: Operation) -> object:
        for path in unreachable(self.inner):
            if not path.startswith(("segments/", "cards/")):
                self.inner.delete(path)
        return super().operate(operation)


def test_receipts_protect_a_running_job_without_any_grace() -> None:
    """What has a receipt stays at every moment; what has none yet may be lost, and the shard is labelled again."""
    with one_request_at_a_time():
        store = MemoryStore()
        receipts = finish_shards(store, "run", SOURCE, "small")
        collected = Collected(store)
        assert (
            commit(collected, draft("run", 0, finish_shards(collected, "run", SOURCE, "small"), "small")).version == 1
        )
        assert all(store.exists(each.path) for receipt in receipts for each in receipt.objects())
        assert verify(store, 1, "full").problems == []
        slow = finish_shards(collected, "next", {**SOURCE, "z.tar": "0"}, "small")
        with pytest.raises(Refused, match="Run again"):  # collected between its write and its receipt
            commit(collected, draft("next", 1, slow, "small"))
        again = finish_shards(store, "again", {**SOURCE, "z.tar": "0"}, "small")
        assert commit(collected, draft("again", 1, again, "small")).version == 2
        assert verify(store, 2, "full").problems == []
