"""Leases and fences: one owner at a time, judged by the server's clock; whoever was taken over publishes nothing."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from relabel.digests import seal, unseal
from relabel.errors import RelabelError, StoreConflict, UnknownName, UsageError
from relabel.releases.commit import commit
from relabel.releases.fences import Fence
from relabel.releases.leases import (
    Acquired,
    StoreBusy,
    acquire,
    beat,
    holders,
    lease_names,
    left_unpublished,
    release,
    taken_over_by,
)
from relabel.releases.partitions import WHOLE, Partition, parse_partition
from relabel.releases.release import Store
from relabel.releases.stops import ask_to_stop, find_stop
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.tags import write_tag
from relabel.releases.verify import verify
from relabel.releases.versions import (
    Version,
    read_sequence,
    read_version,
    sequence_numbers,
    version_numbers,
    version_path,
)
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import FAULTS, Crash, Fault, FaultyStore, OperatedStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards
from relabel.testing.watch import Watch

SECONDS = 60.0


def publish(
    store: ObjectStore, run_id: str, shards: str, lease: int | None = None, parent: int | None = None
) -> Version:
    """A release of one shard per letter of `shards`."""
    numbers = version_numbers(store)
    known = numbers[-1] if numbers else 0
    made = finish_shards(store, run_id, {f"{letter}.tar": "0" for letter in shards}, "small")
    return commit(store, draft(run_id, known if parent is None else parent, made, "small", lease=lease))


def taken_over(store: MemoryStore) -> tuple[Acquired, Acquired]:
    """An owner that fell asleep, and who took over."""
    old = acquire(store, "old", seconds=SECONDS)
    store.now += SECONDS + 1
    return old, acquire(store, "new", seconds=SECONDS)


def test_a_live_owner_is_named_and_not_taken_over() -> None:
    store = MemoryStore()
    lease = acquire(store, "first", seconds=SECONDS).lease
    store.now += 45
    with pytest.raises(StoreBusy) as caught:
        acquire(store, "second", seconds=SECONDS)
    told = str(caught.value)
    assert caught.value.exit_code == 5
    for word in ("run first", lease.host, f"process {lease.pid}", lease.created, "last heartbeat 4", "expires in 1"):
        assert word in told, told
    assert "relabel stop" in told
    assert "--if-busy wait" in told
    assert sequence_numbers(store) == []


def test_a_heartbeat_keeps_a_lease_and_its_end_frees_the_store() -> None:
    store = MemoryStore()
    first = acquire(store, "first", seconds=SECONDS).lease
    for _ in range(3):
        store.now += SECONDS - 5
        beat(store, first)
    with pytest.raises(StoreBusy):
        acquire(store, "second", seconds=SECONDS)
    [holder] = holders(store)
    assert (holder.lease, holder.expired) == (first, False)
    assert holder.held_seconds > 2 * SECONDS > holder.silent_seconds
    release(store, first)
    assert holders(store) == []
    second = acquire(store, "second", seconds=SECONDS)
    assert (second.lease.number, second.taken_over) == (2, ())
    assert sequence_numbers(store) == []
    assert not store.exists(first.beat_path)


def test_an_expired_lease_is_taken_over_behind_a_fence() -> None:
    store = MemoryStore()
    old, new = taken_over(store)
    assert new.taken_over == (old.lease,)
    assert taken_over_by(store, old.lease) == "new"
    assert taken_over_by(store, new.lease) is None
    [fence] = read_sequence(store)
    assert isinstance(fence, Fence)
    assert (fence.lease, fence.fenced, fence.release) == (2, {1: "old"}, 0)
    release(store, old.lease)
    assert taken_over_by(store, old.lease) == "new"
    assert [holder.lease for holder in holders(store)] == [new.lease]


def test_only_a_run_that_published_nothing_since_leaves_work() -> None:
    store = MemoryStore()
    assert not left_unpublished(store)
    first = acquire(store, "first", seconds=SECONDS).lease
    assert not left_unpublished(store)  # it is at work
    store.now += SECONDS + 1
    assert left_unpublished(store)
    release(store, first)
    assert left_unpublished(store)
    publish(store, "first", "ab")
    assert not left_unpublished(store)
    time.sleep(1.1)  # times of leases and versions are whole seconds
    release(store, acquire(store, "second", seconds=SECONDS).lease)
    assert left_unpublished(store)


def test_strict_takes_nothing_over() -> None:
    store = MemoryStore()
    acquire(store, "old", seconds=SECONDS)
    store.now += SECONDS + 1
    with pytest.raises(StoreBusy, match=r"expired lease: run old .*--if-busy take-over"):
        acquire(store, "new", seconds=SECONDS, take_over=False)
    assert sequence_numbers(store) == []


def test_an_owner_that_slept_publishes_nothing() -> None:
    store = MemoryStore()
    old, new = taken_over(store)
    with pytest.raises(StoreConflict, match=r"run new \(lease 2\) took the store over from run old \(lease 1\)"):
        publish(store, "old", "ab", old.lease.number)
    version = publish(store, "new", "abc", new.lease.number)
    assert (version.version, version.parent, version.fences, version.lease) == (2, 0, (1,), 2)
    with pytest.raises(StoreConflict):
        publish(store, "old", "abd", old.lease.number)
    assert [type(entry) for entry in read_sequence(store)] == [Fence, Version]


def test_a_fence_that_cannot_be_read_lets_only_the_newest_lease_publish() -> None:
    store = MemoryStore()
    old, new = taken_over(store)
    publish(store, "new", "ab", new.lease.number)
    store.put(version_path(1), store.get(version_path(1))[:-9])
    with pytest.raises(StoreConflict, match=r"v0000000001.json is a fence that cannot be read, and lease 1 of run old"):
        publish(store, "old", "abd", old.lease.number)
    assert publish(store, "newer", "abc", new.lease.number).version == 3
    assert publish(store, "without a lease", "abd").version == 4


class Interposed(OperatedStore):
    """Somebody else gets in right before the first create of a version file."""

    def __init__(self, inner: ObjectStore, other: Any) -> None:
        super().__init__(inner)
        self.other: Any = other

    def operate(self, operation: Operation) -> Any:
        if operation.kind == "create" and operation.path.startswith("versions/") and self.other:
            other, self.other = self.other, None
            other()
        return operation.apply()


def test_a_commit_that_lands_before_the_fence_counts() -> None:
    store = MemoryStore()
    old = acquire(store, "old", seconds=SECONDS)
    store.now += SECONDS + 1
    between = Interposed(store, lambda: publish(store, "old", "ab", old.lease.number))
    new = acquire(between, "new", seconds=SECONDS)
    first, fence = read_sequence(store)
    assert isinstance(first, Version)
    assert isinstance(fence, Fence)
    assert (first.run_id, fence.number, fence.release) == ("old", 2, 1)
    version = publish(store, "new", "abc", new.lease.number)
    assert (version.version, version.parent, version.fences) == (3, 1, (2,))
    assert verify(store, 3, "full").problems == []


def test_a_fence_that_lands_before_the_commit_refuses_it() -> None:
    store = MemoryStore()
    old = acquire(store, "old", seconds=SECONDS)

    def take_over() -> None:
        store.now += SECONDS + 1
        acquire(store, "new", seconds=SECONDS)

    with pytest.raises(StoreConflict, match="fence"):
        publish(Interposed(store, take_over), "old", "ab", old.lease.number)
    assert version_numbers(store) == []


def test_two_that_find_the_store_free_get_one_lease() -> None:
    store = MemoryStore()

    class LateListing(OperatedStore):
        """A listing from before the other one's lease."""

        def operate(self, operation: Operation) -> Any:
            return [] if operation.kind == "list" and operation.number < 4 else operation.apply()

    acquire(store, "first", seconds=SECONDS)
    with pytest.raises(StoreBusy, match="run first"):
        acquire(LateListing(store), "second", seconds=SECONDS)
    assert len(lease_names(store)) == 1


def test_partitions_work_side_by_side() -> None:
    store = MemoryStore()
    first = acquire(store, "first", Partition(1, 2), SECONDS).lease
    acquire(store, "second", Partition(2, 2), SECONDS)
    for other in (WHOLE, Partition(1, 2), Partition(2, 3)):
        with pytest.raises(StoreBusy):
            acquire(store, "third", other, SECONDS)
    store.now += SECONDS + 1
    third = acquire(store, "third", Partition(1, 2), SECONDS)
    assert third.taken_over == (first,)
    assert sequence_numbers(store) == []  # a partition never publishes: nothing to fence


def test_partitions_share_shards_out() -> None:
    names = [f"{number}.tar" for number in range(200)]
    for count in (1, 2, 5):
        shares = [[name for name in names if Partition(index + 1, count).holds(name)] for index in range(count)]
        assert sorted(itertools.chain(*shares)) == sorted(names)
        assert all(shares)
    every = [Partition(index + 1, count) for count in range(1, 7) for index in range(count)]
    many = [str(number) for number in range(400)]
    held = {one: {name for name in many if one.holds(name)} for one in every}
    for one, other in itertools.product(every, every):
        assert one.overlaps(other) == bool(held[one] & held[other]), (one, other)
    assert parse_partition("3/4") == Partition(3, 4)
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError, match="1/4"):
            parse_partition(wrong)


def test_a_damaged_lease_only_expires() -> None:
    store = MemoryStore()
    lease = acquire(store, "old", seconds=SECONDS).lease
    store.put(lease.path, b"{}")
    with pytest.raises(StoreBusy, match="damaged lease"):
        acquire(store, "new", seconds=SECONDS)
    store.now += 130
    assert acquire(store, "new", seconds=SECONDS).lease.number == 2


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_on_a_real_clock(kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    root = str(tmp_path / "store") if kind == "local" else request.getfixturevalue("s3_root")
    store = open_store(root)
    old = acquire(store, "old", seconds=3.0).lease
    time.sleep(2)
    beat(store, old)
    time.sleep(2)
    with pytest.raises(StoreBusy, match="run old"):
        acquire(store, "new", seconds=3.0)
    time.sleep(3.2)
    new = acquire(store, "new", seconds=3.0).lease
    with pytest.raises(StoreConflict, match="took the store over"):
        publish(store, "old", "a", old.number)
    assert publish(store, "new", "ab", new.number).version == 2
    release(store, new)
    assert holders(store) == []
    assert acquire(store, "third", seconds=3.0).taken_over == ()
    assert verify(store, "latest", "full").problems == []


@pytest.fixture
def fenced() -> MemoryStore:
    """Release 1, a fence, release 3, two fences; the newest number is 5."""
    store = MemoryStore()
    publish(store, "one", "a")
    _, new = taken_over(store)
    publish(store, "new", "ab", new.lease.number)
    for _ in range(2):
        store.now += SECONDS + 1
        acquire(store, "later", seconds=SECONDS)
    return store


class Reads(OperatedStore):
    """Counts the version files that are read."""

    num_reads = 0

    def operate(self, operation: Operation) -> Any:
        self.num_reads += operation.kind == "get" and operation.path.startswith("versions/")
        return operation.apply()


def test_readers_pass_fences_over(fenced: MemoryStore) -> None:
    assert sequence_numbers(fenced) == [1, 2, 3, 4, 5]
    reads = Reads(fenced)
    assert version_numbers(reads) == [1, 3]
    assert reads.num_reads == 1
    store = Store(fenced)
    assert store.release("latest").number == 3
    assert [version.version for version in store.history()] == [1, 3]
    for number in (1, 3):
        assert verify(fenced, number, "full").problems == []
    for number in (2, 5):
        with pytest.raises(UnknownName, match=f"Number {number} is a fence, not a release: run"):
            store.release(number)
        with pytest.raises(UnknownName, match="fence"):
            verify(fenced, number)
        with pytest.raises(UnknownName, match="fence"):
            store.tag("best", number)
    with pytest.raises(UnknownName, match="unknown release '6'"):
        store.release(6)
    write_tag(fenced, "best", 3)
    assert store.release("best").number == 3


def test_a_commit_without_a_lease_goes_on_top_of_fences(fenced: MemoryStore) -> None:
    version = publish(fenced, "somebody", "abc")
    assert (version.version, version.parent, version.fences, version.lease) == (6, 3, (2, 4, 5), None)
    assert publish(fenced, "rebased", "abd", parent=1).version == 7
    assert verify(fenced, 7, "full").problems == []


def test_verify_names_a_damaged_and_a_changed_fence(fenced: MemoryStore) -> None:
    publish(fenced, "somebody", "abc")
    path = version_path(4)
    whole = fenced.get(path)
    fields = unseal(whole, path)
    for wrong in (b"{}", seal({**fields, "created": "yesterday"}), seal({**fields, "release": 1}), None):
        if wrong is None:
            fenced.delete(path)
        else:
            fenced.put(path, wrong)
        assert path in {problem.object for problem in verify(fenced, 6).problems}
        fenced.put(path, whole)
    assert verify(fenced, 6).problems == []


def test_a_store_of_the_format_before_leases_goes_on() -> None:
    store = MemoryStore()
    publish(store, "one", "a")
    fields = unseal(store.get(version_path(1)), "")
    old = {name: value for name, value in fields.items() if name not in ("fences", "lease")}
    store.put(version_path(1), seal({**old, "format": 1}))
    assert read_version(store, 1).fences == ()
    _, new = taken_over(store)
    assert publish(store, "new", "ab", new.lease.number).version == 3
    assert verify(store, 3, "full").problems == []


def test_a_stop_is_asked_once() -> None:
    store = MemoryStore()
    assert find_stop(store, "run") is None
    assert ask_to_stop(store, "run", "here", "now") == {"run_id": "run", "host": "here", "created": "now"}
    assert ask_to_stop(store, "run", "there", "later")["host"] == "here"
    assert find_stop(store, "run") == {"run_id": "run", "host": "here", "created": "now"}
    assert find_stop(store, "other") is None


def work(store: ObjectStore, run_id: str) -> Version:
    """A run under a lease, from its first request to its last."""
    lease = acquire(store, run_id, seconds=SECONDS).lease
    beat(store, lease)
    version = publish(store, run_id, "ab", lease.number)
    release(store, lease)
    return version


def once_expired(memory: MemoryStore, faulty: FaultyStore) -> Version:
    """The next run, once nobody holds the store; a lease that lands late may make it wait once more."""
    memory.now += SECONDS + 1
    try:
        return work(faulty, "next")
    except StoreBusy:
        faulty.land_all()
        memory.now += SECONDS + 1
        return work(faulty, "next")


def expired() -> MemoryStore:
    """A store whose lease somebody held until he died."""
    store = MemoryStore()
    acquire(store, "dead", seconds=SECONDS)
    store.now += SECONDS + 1
    return store


def struck_by(fault: Fault) -> range:
    """The requests of a run that takes over: every other one, of every other fault the others."""
    probe = FaultyStore(expired())
    work(probe, "ours")
    return range(FAULTS.index(fault) % 2, probe.num_operations, 2)


def test_the_readme_says_how_many_cases(root: Path) -> None:
    with one_request_at_a_time():
        requests = {number for fault in FAULTS[:2] for number in struck_by(fault)}
        cases = sum(len(struck_by(fault)) for fault in FAULTS)
    said = f"`test_leases.py`: {len(requests)} requests x {len(FAULTS)} faults, every other pair, {cases} cases"
    assert said in (root / "README.md").read_text(encoding="utf-8"), said


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_requests_of_an_owner_fail(fault: Fault) -> None:
    """A run that takes over is hit at every other request; whoever comes after its lease expired finishes."""
    with one_request_at_a_time():
        start = expired()
        struck = 0
        for at in struck_by(fault):
            memory = start.copy()
            watch = Watch(memory)
            faulty = FaultyStore(memory, at, fault, delay=at % 7)
            try:
                work(faulty, "ours")
            except (Crash, RelabelError):
                watch.check()
            struck += faulty.struck is not None
            faulty.at = -1
            version = once_expired(memory, faulty)
            faulty.land_all()
            watch.check()
            assert {version.run_id} <= {"ours", "next"}
            assert len(version_numbers(memory)) == 1
            assert holders(memory) == []
            assert verify(memory, "latest", "full").problems == []
        assert struck
