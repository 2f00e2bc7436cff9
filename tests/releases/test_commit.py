"""Commit: exactly once, on top of whoever was first, and never with a hole."""

import concurrent.futures
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel.errors import Refused, StoreConflict, UsageError
from relabel.releases.commit import commit
from relabel.releases.erase import erase
from relabel.releases.segments import read_segments
from relabel.releases.verify import verify
from relabel.releases.versions import read_version, version_numbers, version_path
from relabel.releases.withdrawals import write_withdrawals
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import BY_NAME, FaultyStore, Operation

SHARDS = {"a.tar": 4, "b/c.tar": 3, "broken.tar": -1}


def test_the_first_version(make_job: Callable, store: ObjectStore) -> None:
    version = make_job(SHARDS).run()
    assert read_version(store, 1) == version
    assert (version.version, version.parent, version.parent_sha256, version.coverage) == (1, 0, "", 1.0)
    counts = version.counts
    assert (counts.shards, counts.dead_shards, counts.samples) == (3, 1, 7)
    assert (counts.ok, counts.dead, counts.filtered) == (3, 2, 2)
    assert counts.reasons == {"where": 2, "corrupt_image": 2, "truncated_shard": 1}
    assert [numerics["shards"] for numerics in version.numerics.values()] == [3]
    assert list(read_segments(store, version.segments)) == sorted(SHARDS)


def test_what_was_erased_meanwhile_is_a_conflict_and_not_a_loss(make_job: Callable, store: ObjectStore) -> None:
    job = make_job(SHARDS)
    job.run()
    late = make_job({**SHARDS, "d.tar": 3}, run_id="late")
    draft = late.draft(late.finish_all())
    write_withdrawals(store, {"a.tar": ["a.tar-0"]}, "asked for")
    assert erase(store, apply=True).deleted > 0
    with pytest.raises(StoreConflict, match=r"erased meanwhile.*Run again: nothing is labelled again"):
        commit(store, draft)
    assert version_numbers(store) == [1, 2]
    assert make_job({**SHARDS, "d.tar": 3}, run_id="next").run().counts.shards == 4


def test_nothing_new_publishes_nothing(make_job: Callable, store: ObjectStore) -> None:
    first = make_job(SHARDS).run()
    assert make_job(SHARDS, run_id="run-2").run() == first
    assert version_numbers(store) == [1]


def test_a_run_id_commits_once(make_job: Callable, store: ObjectStore) -> None:
    first = make_job(SHARDS).run()
    second = make_job({**SHARDS, "d.tar": 3}, run_id="run-2").run()
    assert make_job({**SHARDS, "e.tar": 3}, run_id="run-1").run() == first
    assert version_numbers(store) == [1, 2]
    assert second.parent == 1


def test_an_increment_writes_only_what_changed(make_job: Callable, store: ObjectStore) -> None:
    first = make_job(SHARDS).run()
    grown = make_job({**SHARDS, "d.tar": 5}, run_id="run-2").run()
    assert grown.segments[:1] == first.segments
    assert [segment.entries for segment in grown.segments] == [3, 1]
    changed = make_job({**SHARDS, "d.tar": 6}, run_id="run-3", etags={"d.tar": "new"}).run()
    assert read_segments(store, changed.segments)["d.tar"].rows == 6
    shrunk = make_job(SHARDS, run_id="run-4").run(removed=["d.tar"])
    assert "d.tar" not in read_segments(store, shrunk.segments)
    assert shrunk.content_digest == first.content_digest != changed.content_digest
    assert [verify(store, number, "full").problems for number in (1, 2, 3, 4)] == [[], [], [], []]


def test_a_new_teacher_starts_anew(make_job: Callable, store: ObjectStore) -> None:
    first = make_job(SHARDS).run()
    second = make_job({"a.tar": 4}, run_id="run-2", teacher="large").run()
    assert list(read_segments(store, second.segments)) == ["a.tar"]
    assert second.labels["label_map"].fingerprint != first.labels["label_map"].fingerprint
    assert verify(store, 2, "full").ok


def test_segments_are_compacted(make_job: Callable, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.releases.commit.MAX_SEGMENTS", 4)
    shards: dict[str, int] = {}
    for number in range(6):
        shards[f"{number}.tar"] = 3
        version = make_job(dict(shards), run_id=f"run-{number}").run()
        assert len(version.segments) == number % 4 + 1
        assert version.counts.shards == number + 1
    assert verify(store, "latest", "default").ok


def test_content_digest_says_what_is_in_it(make_job: Callable, tmp_path: Path) -> None:
    here = make_job(SHARDS).run()
    elsewhere = make_job(SHARDS, run_id="other", store=open_store(str(tmp_path / "elsewhere"))).run()
    assert here.content_digest == elsewhere.content_digest
    for other in ({**SHARDS, "a.tar": 5}, {**SHARDS, "d.tar": 3}, {"a.tar": 4}, {**SHARDS, "a.tar": -1}):
        store = open_store(str(tmp_path / str(other)))
        assert make_job(other, store=store).run().content_digest != here.content_digest
    store = open_store(str(tmp_path / "large"))
    assert make_job(SHARDS, store=store, teacher="large").run().content_digest != here.content_digest


def test_data_that_is_gone_is_not_published(make_job: Callable, store: ObjectStore) -> None:
    job = make_job(SHARDS)
    receipts = job.finish_all()
    store.delete(receipts[0].data.path)
    with pytest.raises(Refused, match=receipts[0].data.path):
        commit(store, job.draft(receipts))
    assert version_numbers(store) == []
    assert job.run().version == 1
    assert read_segments(store, read_version(store, 1).segments)["a.tar"].generation == 1


def test_nothing_at_all_is_not_published(make_job: Callable, store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="nothing to publish"):
        make_job({}).run()
    with pytest.raises(UsageError, match="version 7"):
        make_job(SHARDS, parent=7).run()


def test_a_loser_rebases(make_job: Callable, store: ObjectStore) -> None:
    base = make_job(SHARDS).run()
    ours = make_job({**SHARDS, "d.tar": 3}, run_id="ours", parent=1).finish_all()
    make_job({**SHARDS, "e.tar": 3}, run_id="theirs").run()
    version = commit(store, make_job({**SHARDS, "d.tar": 3}, run_id="ours", parent=1).draft(ours))
    assert version.version == 3
    assert set(read_segments(store, version.segments)) == {*SHARDS, "d.tar", "e.tar"}
    assert version.segments[0] == base.segments[0]
    assert verify(store, 3, "full").ok


def test_another_result_for_the_same_shard_is_a_conflict(make_job: Callable, store: ObjectStore) -> None:
    make_job(SHARDS).run()
    ours = make_job(SHARDS, run_id="ours", etags={"a.tar": "ours"}, parent=1)
    receipts = ours.finish_all()
    make_job(SHARDS, run_id="theirs", etags={"a.tar": "theirs"}).run()
    with pytest.raises(StoreConflict, match=r"a\.tar"):
        commit(store, ours.draft(receipts))
    assert version_numbers(store) == [1, 2]


def test_the_same_result_is_no_conflict(make_job: Callable, store: ObjectStore) -> None:
    ours = make_job(SHARDS, run_id="ours", parent=0)
    receipts = ours.finish_all()
    theirs = make_job(SHARDS, run_id="theirs").run()
    assert commit(store, ours.draft(receipts)) == theirs


def test_other_labels_are_a_conflict(make_job: Callable, store: ObjectStore) -> None:
    ours = make_job(SHARDS, run_id="ours", parent=0)
    receipts = ours.finish_all()
    make_job(SHARDS, run_id="theirs", teacher="large").run()
    with pytest.raises(StoreConflict, match="other labels"):
        commit(store, ours.draft(receipts))


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_many_committers_lose_no_update(
    make_job: Callable, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    store = open_store(str(tmp_path / "many") if kind == "local" else request.getfixturevalue("s3_root"))

    def publish(number: int) -> list[int]:
        jobs = [
            make_job({f"{number}-{turn}.tar": 3}, run_id=f"run-{number}-{turn}", store=store, parent=0)
            for turn in range(3)
        ]
        return [job.run().version for job in jobs]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        numbers = sorted(itertools.chain.from_iterable(pool.map(publish, range(4))))
    assert numbers == list(range(1, 13))
    assert set(read_segments(store, read_version(store, 12).segments)) == {
        f"{number}-{turn}.tar" for number in range(4) for turn in range(3)
    }
    assert verify(store, 12, "full").ok


def test_a_lost_acknowledgement_is_recognised(make_job: Callable, store: ObjectStore) -> None:
    job = make_job(SHARDS)
    draft = job.draft(job.finish_all())

    class FaultyOnce(FaultyStore):
        """Fails the first create of a version file."""

        def operate(self, operation: Operation) -> Any:
            if operation.path == version_path(1) and operation.kind == "create" and self.at < 0:
                self.at = operation.number
            return super().operate(operation)

    for fault in ("own write reported as conflict", "conflict with nothing landed"):
        version = commit(FaultyOnce(store, -1, BY_NAME[fault]), draft)
        assert version == read_version(store, 1)
        assert version_numbers(store) == [1]
        store.delete(version_path(1))
