"""Damaged history: an old version that is damaged or gone holds up neither readers nor the next commit."""

from typing import Any

import pytest

from relabel.errors import StoreCorrupt
from relabel.releases.commit import commit
from relabel.releases.receipts import Receipt
from relabel.releases.release import Store
from relabel.releases.tags import read_tag, write_tag
from relabel.releases.verify import verify
from relabel.releases.versions import Version, version_numbers, version_path
from relabel.testing.faults import BY_NAME, TORN_CREATE, Crash, FaultyStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards


def receipts(store: MemoryStore, count: int) -> list[Receipt]:
    return finish_shards(store, "run", {f"{number}.tar": "0" for number in range(count)}, "small")


def publish(store: MemoryStore, count: int, parent: int) -> Version:
    return commit(store, draft(f"run-{count}", parent, receipts(store, count), "small"))


@pytest.fixture
def store() -> MemoryStore:
    """Three versions of one, two and three shards."""
    store = MemoryStore()
    for number in range(3):
        publish(store, number + 1, number)
    return store


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "gone"])
def test_an_old_version_holds_nobody_up(store: MemoryStore, number: int, gone: bool) -> None:
    if gone:
        store.delete(version_path(number))
    else:
        store.put(version_path(number), b"{}")
    assert len(Store(store).release("latest").shards) == 3
    assert publish(store, 4, 3).version == 4
    assert publish(store, 4, 4).version == 4
    problems = verify(store, 4).problems
    assert {problem.object for problem in problems} == {version_path(number)}


def test_the_version_that_was_planned_against_must_be_whole(store: MemoryStore) -> None:
    store.put(version_path(3), b"{}")
    with pytest.raises(StoreCorrupt, match="v0000000003"):
        publish(store, 4, 3)
    assert version_numbers(store) == [1, 2, 3]


def test_what_was_published_meanwhile_must_be_whole(store: MemoryStore) -> None:
    """It may be this very run's; planned again, the run is on top of it."""
    wanted = draft("late", 1, receipts(store, 4), "small")
    store.put(version_path(2), b"{}")
    with pytest.raises(StoreCorrupt, match="v0000000002"):
        commit(store, wanted)
    assert publish(store, 4, 3).version == 4


def test_a_run_id_commits_once_beyond_a_damaged_version(store: MemoryStore) -> None:
    store.put(version_path(1), b"{}")
    assert commit(store, draft("run-2", 3, receipts(store, 4), "small")).version == 2


def test_half_a_version_is_never_named(store: MemoryStore) -> None:
    """A body that was cut off is no parent and gets no tag."""
    truncated = BY_NAME["truncated body"]
    for at in range(40):
        other = store.copy()
        faulty = FaultyStore(other, at, truncated)
        wanted = draft("next", 3, receipts(other, 4), "small")
        try:
            commit(faulty, wanted)
        except StoreCorrupt:
            assert faulty.struck is not None
        for number in version_numbers(other):
            assert verify(other, number, "full").problems == []
    with pytest.raises(StoreCorrupt):
        write_tag(FaultyStore(store, 0, truncated), "best", 3)
    write_tag(store, "best", 3)
    assert read_tag(store, "best") == 3


class TornVersions(FaultyStore):
    """A server that breaks the one promise: a create of a version that is cut short."""

    def operate(self, operation: Operation) -> Any:
        if operation.kind == "create" and operation.path.startswith("versions/"):
            return TORN_CREATE.strike(self, operation)
        return super().operate(operation)


def test_a_torn_version_is_no_release(store: MemoryStore) -> None:
    """Nobody can publish on such a server; what can be promised is that nothing torn is taken for a release."""
    with pytest.raises(Crash):
        commit(TornVersions(store), draft("torn", 3, receipts(store, 4), "small"))
    with pytest.raises(StoreCorrupt, match="v0000000004"):
        Store(store).release("latest")
    with pytest.raises(StoreCorrupt, match="v0000000004"):
        publish(store, 4, 3)
    assert len(Store(store).release(3).shards) == 3
