"""Retirements: old releases are let go, their history and whatever another release holds stay."""

import pytest

from relabel.errors import Recalled, RecallWarning, Refused
from relabel.releases.collect import DAY_SECONDS, apply_plan, plan_collect, planner
from relabel.releases.commit import commit
from relabel.releases.release import Store
from relabel.releases.retirements import read_retired, retire
from relabel.releases.revert import revert
from relabel.releases.verify import verify
from relabel.storage.objects import ObjectStore
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards, label

GRACE = 7.0 * DAY_SECONDS


def publish(store: ObjectStore, number: int, source: dict[str, str]) -> None:
    receipts = finish_shards(store, f"run-{number}", source, "small")
    gone = ["c.tar"] if "c.tar" not in source else []
    commit(store, draft(f"run-{number}", number - 1, receipts, "small", gone))


@pytest.fixture
def store() -> MemoryStore:
    """Four releases: `a` changes every night, `b` never, `c` goes after the second."""
    store = MemoryStore()
    for number in range(1, 5):
        source = {"a.tar": str(number), "b.tar": "0", **({"c.tar": "0"} if number < 3 else {})}
        publish(store, number, source)
    store.now += GRACE
    return store


def data_of(store: ObjectStore, number: int) -> dict[str, str]:
    release = Store(store).release(number, recalled="ignore")
    return {name: entry.data.path for name, entry in release.entries.items() if entry.data}


def collected(store: MemoryStore) -> set[str]:
    plan = plan_collect(store)
    store.now += GRACE
    return {info.path for info in apply_plan(store, plan.id).deleted} if plan.id else set()


def test_only_what_no_kept_release_holds_is_deleted(store: MemoryStore) -> None:
    assert collected(store) == set()
    before = {number: data_of(store, number) for number in range(1, 5)}
    assert retire(store, 2) == [1, 2]
    assert retire(store, 2) == []
    gone = {path for path in collected(store) if path.endswith(".parquet")}
    assert gone == {before[1]["a.tar"], before[2]["a.tar"], before[1]["c.tar"]}
    for number in (3, 4):
        assert verify(store, number, "full").problems == []
        assert data_of(store, number) == before[number]
    assert [version.version for version in Store(store).history()] == [1, 2, 3, 4]


def test_a_retired_release_says_so(store: MemoryStore) -> None:
    retire(store, 2)
    with pytest.raises(Refused, match=r"release 2 of memory was retired: the last 2 are kept"):
        Store(store).release(2)
    with pytest.raises(Refused, match="was retired"):
        revert(store, 1)
    with pytest.raises(Refused, match="was retired"):
        Store(store).tag("late", 1)
    collected(store)
    with pytest.raises(Refused, match="was retired"):
        Store(store).release(2, recalled="ignore").table("a.tar")
    report = verify(store, 2, "full")
    assert (report.problems, report.counts["retired"]) == ([], 1)
    assert Store(store).release(3).number == 3


def test_a_training_job_hears_of_it_while_the_files_are_there(store: MemoryStore) -> None:
    tagged = Store(store).release(1, recalled="error")
    warned, strict = Store(store).release(2), Store(store).release(2, recalled="error")
    deaf = Store(store).release(2, recalled="ignore")
    Store(store).tag("golden", 1)
    retire(store, 2)
    deaf.check_recall()
    tagged.check_recall()
    with pytest.warns(RecallWarning, match=r"release 2 of memory was retired: the last 2 are kept.*newer one"):
        warned.check_recall()
    assert warned.table("a.tar").num_rows
    with pytest.raises(Refused, match="release 2 of memory was retired"):
        strict.check_recall()
    Store(store).recall(2, "wrong as well")
    with pytest.raises(Recalled, match="wrong as well"):
        strict.check_recall()


def test_what_has_a_tag_stays(store: MemoryStore) -> None:
    Store(store).tag("golden", 1)
    held = set(data_of(store, 1).values())
    assert retire(store, 1) == [2, 3]
    assert not collected(store) & held
    assert verify(store, 1, "full").problems == []
    assert Store(store).release("golden").number == 1


def test_what_a_channel_means_now_stays(store: MemoryStore) -> None:
    for number, release in enumerate((1, 2), 1):
        assert Store(store).promote(release, "prod", "ada").number == number
    assert retire(store, 1) == [1, 3]
    assert not collected(store) & set(data_of(store, 2).values())


def test_recalled_releases_do_not_count(store: MemoryStore) -> None:
    Store(store).recall(4, "wrong")
    assert retire(store, 1) == [1, 2]
    assert Store(store).release().number == 3
    Store(store).recall(3, "as well")
    assert read_retired(store) == {1, 2}
    with pytest.raises(Refused, match="every release of memory is recalled"):
        Store(store).release()


def test_what_was_labelled_and_not_published_stays(store: MemoryStore) -> None:
    retire(store, 1)
    receipt = label(store, "open", "d.tar", "0", "small")
    store.now += GRACE
    assert receipt.data is not None
    assert receipt.data.path not in collected(store)


def test_a_shard_that_comes_back_is_labelled_again(store: MemoryStore) -> None:
    before = data_of(store, 1)["c.tar"]
    retire(store, 1)
    assert before in collected(store)
    publish(store, 5, {"a.tar": "4", "b.tar": "0", "c.tar": "0"})
    assert data_of(store, 5)["c.tar"] != before
    assert verify(store, 5, "full").problems == []


def test_a_shard_that_comes_back_before_it_was_deleted_holds_the_plan_up(store: MemoryStore) -> None:
    retire(store, 1)
    plan = plan_collect(store, by="nightly")
    assert planner(store, plan.id) == "nightly"
    with pytest.raises(Refused, match=rf"named by the plan {plan.id}"):
        publish(store, 5, {"a.tar": "4", "b.tar": "0", "c.tar": "0"})
