"""Revert: an older release published again, and what later runs make of it."""

import contextlib
import dataclasses
from collections.abc import Callable

import pytest

import relabel
from relabel.errors import Refused, StorageError, StoreConflict
from relabel.releases.commit import commit
from relabel.releases.receipts import Receipts
from relabel.releases.revert import revert
from relabel.releases.segments import read_segments
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.taken_back import refuse_taken_back, taken_back
from relabel.releases.verify import verify
from relabel.releases.versions import Version, read_version, version_numbers
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import FAULTS, Crash, Fault, FaultyStore
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft as toy_draft
from relabel.testing.toy import finish_shards, label, meaning
from relabel.testing.watch import Watch

STRIDE = len(FAULTS)
"""Between the operations that a fault strikes; other faults strike others."""
SHARDS = {"a.tar": 4, "b.tar": 3, "broken.tar": -1}


@pytest.fixture
def grown(make_job: Callable, store: ObjectStore) -> Version:
    """Release 1 of three shards, and release 2 with one more."""
    make_job(SHARDS).run()
    return make_job({**SHARDS, "c.tar": 5}, run_id="run-2").run()


def test_a_revert_is_a_new_release_of_the_old_labels(grown: Version, store: ObjectStore) -> None:
    first = read_version(store, 1)
    back = revert(store, 1)
    assert (back.version, back.parent, back.run_id) == (3, 2, "revert-v1-on-v2")
    assert back.content_digest == first.content_digest != grown.content_digest
    assert (back.counts, back.coverage, back.recipe, back.reverts) == (first.counts, 1.0, first.recipe, ((3, 1),))
    assert verify(store, 3, "full").problems == []
    assert relabel.open(store.url).release().number == 3


def test_reverting_again_changes_nothing(grown: Version, store: ObjectStore) -> None:
    back = revert(store, 1)
    assert revert(store, 1) == back == revert(store, 3)
    assert version_numbers(store) == [1, 2, 3]
    assert revert(store, 2).content_digest == grown.content_digest
    assert revert(store, 1).reverts == ((3, 1), (4, 2), (5, 1))


def test_a_release_that_is_gone_or_recalled_is_not_published_again(grown: Version, store: ObjectStore) -> None:
    opened = relabel.open(store.url)
    path = opened.release(1).entry("a.tar").data
    assert path is not None
    data = store.get(path.path)
    store.delete(path.path)
    with pytest.raises(Refused, match=rf"cannot be published again.*{path.path} is gone"):
        revert(store, 1)
    store.put(path.path, data)
    opened.recall(1, "wrong teacher")
    with pytest.raises(Refused, match="recalled.*wrong teacher"):
        revert(store, 1)
    assert version_numbers(store) == [1, 2]


@pytest.fixture
def replayed(make_job: Callable, store: ObjectStore) -> Version:
    """Release 1, and release 2 in which one shard was labelled again, with another outcome, under one fingerprint."""
    make_job(SHARDS).run()
    again = make_job({**SHARDS, "a.tar": 5}, run_id="run-2")
    again.label("a.tar", generation=1)
    return again.run()


def test_a_run_after_a_revert_finds_everything_done(replayed: Version, make_job: Callable, store: ObjectStore) -> None:
    """The receipts name the reverted labels again: what the replay made does not come back."""
    back = revert(store, 1)
    assert back.content_digest == read_version(store, 1).content_digest != replayed.content_digest
    nightly = make_job({**SHARDS, "d.tar": 3}, run_id="nightly")
    grown = nightly.run()
    entries = {shard: entry.rows for shard, entry in relabel.open(store.url).release().entries.items()}
    assert grown.version == 4
    assert entries == {"a.tar": 4, "b.tar": 3, "broken.tar": 0, "d.tar": 3}
    assert make_job({**SHARDS, "d.tar": 3}, run_id="next").run() == grown
    assert taken_back(store, grown).among(nightly.receipts.load().receipts.values()) == {}


def test_what_a_revert_took_back_is_known(grown: Version, make_job: Callable, store: ObjectStore) -> None:
    """Shards that the release did not have yet, and labels of another teacher."""
    nightly = make_job({**SHARDS, "c.tar": 5}, run_id="nightly")
    assert taken_back(store, grown).among(nightly.finish_all()) == {}
    back = revert(store, 1)
    found = taken_back(store, back).among(nightly.finish_all())
    assert found == {"c.tar": "release 3 went back to 1"}
    with pytest.raises(Refused, match=r"until these shards change, leave .*`relabel run RECIPE --bring-back`"):
        refuse_taken_back(found)
    new_bytes = make_job({**SHARDS, "c.tar": 6}, run_id="mended", etags={"c.tar": "new"})
    assert taken_back(store, back).among(new_bytes.finish_all()) == {}
    with pytest.raises(Refused, match="release 3 went back to 1"):
        nightly.run()
    # on purpose; from then on it is the latest and not taken back any more
    brought = commit(store, dataclasses.replace(nightly.draft(nightly.finish_all()), bring_back=True))
    assert taken_back(store, brought).among(nightly.finish_all()) == {}


def test_an_erasure_brings_nothing_back(grown: Version, make_job: Callable, store: ObjectStore) -> None:
    """The receipt of a shard that was taken back names what stands for its file now."""
    back = revert(store, 1)
    opened, nightly = relabel.open(store.url), make_job({**SHARDS, "c.tar": 5}, run_id="nightly")
    for row in (2, 3):
        opened.withdraw({"c.tar": [f"c.tar-{row}"], "a.tar": [f"a.tar-{row}"]}, "asked", ahead=True)
        newest = opened.erase(apply=True).release
        receipts = nightly.finish_all()
        assert {receipt.shard for receipt in receipts if receipt.run_id.startswith("erase")} == {"a.tar", "c.tar"}
        assert taken_back(store, newest).among(receipts) == {"c.tar": f"release {back.version} went back to 1"}


def test_another_teacher_is_taken_back_whole(make_job: Callable, store: ObjectStore) -> None:
    make_job(SHARDS).run()
    large = make_job(SHARDS, run_id="run-2", teacher="large")
    large.run()
    back = revert(store, 1)
    assert back.labels == read_version(store, 1).labels
    assert set(taken_back(store, back).among(large.finish_all())) == {"a.tar", "b.tar"}


def test_a_recall_takes_back_what_the_latest_release_does_not_hold(
    grown: Version, store: ObjectStore, make_job: Callable
) -> None:
    relabel.open(store.url).recall(2, "c.tar is of another data set")
    receipts = make_job({**SHARDS, "c.tar": 5}).finish_all()
    found = taken_back(store, grown).among(receipts)
    assert found == {"c.tar": "release 2 is recalled: c.tar is of another data set"}


def test_a_release_on_older_receipts_than_the_newest(make_job: Callable, store: ObjectStore) -> None:
    """A replay died before its commit, then an erasure published: the receipts name the erasure's files again."""
    job = make_job({"a.tar": 4, "b.tar": 4})
    job.run()
    for shard in job.shards:
        again = make_job({shard: 5}, run_id="replay").label(shard, generation=1)
        assert again.rows == 5
    opened = relabel.open(store.url)
    opened.withdraw({shard: [f"{shard}-2"] for shard in job.shards}, "asked")
    opened.erase(apply=True)
    make_job({"a.tar": 5, "b.tar": 5}, run_id="next").run()
    back = revert(store, 2)
    assert (back.version, back.content_digest) == (4, read_version(store, 2).content_digest)
    named = {receipt.data for receipt in job.receipts.load().receipts.values()}
    assert named == {entry.data for entry in opened.release(2).entries.values()}
    assert make_job(job.shards, run_id="last").run() == back


def test_a_run_planned_before_the_revert_does_not_undo_it(
    replayed: Version, make_job: Callable, store: ObjectStore
) -> None:
    late = make_job({**SHARDS, "a.tar": 5, "d.tar": 3}, run_id="late", parent=2)
    receipts = late.finish_all()
    revert(store, 1)
    version = commit(store, late.draft(receipts))
    assert {shard: entry.rows for shard, entry in read_segments(store, version.segments).items()} == {
        "a.tar": 4, "b.tar": 3, "broken.tar": 0, "d.tar": 3,
    }  # fmt: skip


def test_what_was_to_be_brought_back_before_a_later_revert_stays(
    grown: Version, make_job: Callable, store: ObjectStore
) -> None:
    late = make_job({**SHARDS, "c.tar": 5}, run_id="late")
    draft = dataclasses.replace(late.draft(late.finish_all()), bring_back=True)
    revert(store, 1)
    with pytest.raises(StoreConflict, match="release 3 of .* went back to 1 after run late was planned"):
        commit(store, draft)
    assert version_numbers(store) == [1, 2, 3]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_operation_fails_in_every_way(fault: Fault) -> None:
    """A revert that dies anywhere is repeated: one release more, whole, with receipts that name its labels."""
    with one_request_at_a_time():
        start = MemoryStore()
        first = finish_shards(start, "run-0", {"a.tar": "0"}, "small")
        commit(start, toy_draft("run-0", 0, first, "small"))
        receipts = finish_shards(start, "run-1", {"a.tar": "0", "b.tar": "0"}, "small")
        commit(start, toy_draft("run-1", 1, receipts, "small"))
        other = label(start, "run-2", "a.tar", "1", "small")
        fields = {name: getattr(other, name) for name in ("data", "dead_letters", "summary")}
        again = dataclasses.replace(receipts[0], generation=1, **fields)
        Receipts(start, meaning("small")).finish(again)
        commit(start, toy_draft("run-2", 2, [again, receipts[1]], "small"))
        wanted = read_version(start, 2).content_digest
        for at in range(FAULTS.index(fault), count_operations(start), STRIDE):
            store = start.copy()
            watch = Watch(store)
            faulty = FaultyStore(store, at, fault, delay=at % 5)
            with contextlib.suppress(Crash, StorageError, StoreConflict, Refused):
                revert(faulty, 2)
            faulty.at = -1
            version = until_done(faulty)
            faulty.land_all()
            watch.check()
            assert (version.content_digest, version_numbers(store)) == (wanted, [1, 2, 3, 4])
            newest = Receipts(store, meaning("small")).load().receipts
            assert newest[receipts[0].token].data == receipts[0].data


def count_operations(start: MemoryStore) -> int:
    counted = FaultyStore(start.copy())
    revert(counted, 2)
    return counted.num_operations


def until_done(store: FaultyStore) -> Version:
    """A late write of the first try may land between two steps of the second; the third is undisturbed."""
    for _ in range(2):
        with contextlib.suppress(StorageError, StoreConflict, Refused):
            return revert(store, 2)
    return revert(store, 2)
