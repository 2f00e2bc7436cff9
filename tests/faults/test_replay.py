"""Replay: what is dead is labelled again, all else keeps its bytes; a replay may die anywhere and be repeated."""

import contextlib
import dataclasses
import functools
import io
import os
import tarfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import store_run
from store_run import PART_ROWS, Length, StoreJob, label, labelled_parts, make_run, replay, run, write_source

from pipelines.account import Account
from pipelines.dead_commands import open_records, release_records
from pipelines.leasing import leased
from pipelines.plan import plan
from pipelines.recipe import Recipe
from pipelines.replay import keep_unpublished, plan_replay
from pipelines.stopping import StopRequest
from pipelines.writing import write_part
from relabel.errors import Refused, RelabelError, StoreCorrupt, TooManyDeadLetters, UnknownName
from relabel.releases.erase import erase
from relabel.releases.leases import StoreBusy, acquire, release
from relabel.releases.recalls import write_recall
from relabel.releases.receipts import Receipts
from relabel.releases.release import Release, Store
from relabel.releases.revert import revert
from relabel.releases.stored import LIST_FROM, one_request_at_a_time
from relabel.releases.unpublished import unpublished
from relabel.releases.verify import verify
from relabel.releases.withdrawals import write_withdrawals
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import BY_NAME, Crash, FaultyStore, OperatedStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.watch import Watch

SAMPLES = {"clean.tar": 4, "one.tar": 2, "two.tar": 5}
"""Of 1, 2 and 3 parts; see `source`."""
DEAD = {"one.tar": {"1"}, "two.tar": {"1", "4"}}


@pytest.fixture(autouse=True)
def in_order(request: pytest.FixtureRequest) -> None:
    ordered = one_request_at_a_time()
    ordered.__enter__()
    request.addfinalizer(lambda: ordered.__exit__(None, None, None))


@pytest.fixture(autouse=True)
def unmended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Length, "mended", False)


def mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what was dead can be labelled; what a label means is the same."""
    monkeypatch.setattr(Length, "mended", True)


def write_shard(path: Path, texts: list[bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for row, data in enumerate(texts):
            info = tarfile.TarInfo(f"{row}.txt")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for shard, rows in SAMPLES.items():
        bad = DEAD.get(shard, set())
        write_shard(folder / shard, [b"bad" if str(row) in bad else b"x" * (row + 5) for row in range(rows)])
    return folder


@pytest.fixture
def store(source: Path) -> MemoryStore:
    """With release 1, in which three samples are dead."""
    store = MemoryStore()
    assert run(make_run(source, store, "first")).published
    return store


def digests(release: Release) -> dict[str, str]:
    return {name: entry.data.sha256 for name, entry in release.entries.items() if entry.data is not None}


def labelled_whole(source: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """What a run makes of the source where nothing is wrong."""
    mend(monkeypatch)
    store = MemoryStore()
    run(make_run(source, store, "whole"))
    return Store(store).release()


def check_sums(store: ObjectStore, job: StoreJob) -> None:
    """Rows in = labelled + dead + filtered, of every receipt there ever was, and every reason is counted."""
    for receipt in Receipts(store, job.fingerprint).load().receipts.values():
        assert receipt.rows == receipt.ok + receipt.dead + receipt.filtered
        assert sum(receipt.reasons.values()) == receipt.dead + receipt.filtered


def test_repaired_shards_are_those_that_labelling_all_gives(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Store(store).release()
    assert (before.counts.samples, before.counts.dead) == (11, 3)
    mend(monkeypatch)
    job = make_run(source, store, "again")
    done = replay(job)
    assert (done.samples, done.repaired_samples, dict(done.dead), done.other_numerics) == (3, 3, {}, 0)
    assert done.outcome.published
    after, whole = Store(store).release(), labelled_whole(source, monkeypatch)
    assert digests(after) == digests(whole)
    assert after.content_digest == whole.content_digest
    assert after.version.summary == whole.version.summary != before.version.summary
    assert after.entries["clean.tar"] == before.entries["clean.tar"]
    assert [after.entries[name].generation for name in SAMPLES] == [0, 1, 1]
    assert verify(store, "latest", "full").problems == []
    check_sums(store, job)

    again = run(make_run(source, store, "nightly"))
    assert (again.labelled, again.published) == (0, False)
    second = replay(make_run(source, store, "third"), release=1)
    assert (second.samples, second.outcome.published, len(second.outcome.plan.done)) == (0, False, 2)
    assert len(Store(store).history()) == 2
    assert list(store.list("parts")) == []


def test_only_those_of_one_reason(source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mend(monkeypatch)
    assert replay(make_run(source, store, "a"), reason="timed_out").outcome.plan.todo == []
    with pytest.raises(UnknownName, match="did you mean 'corrupt_image'"):
        replay(make_run(source, store, "b"), reason="corupt_image")
    assert replay(make_run(source, store, "c"), reason="corrupt_image").repaired_samples == 3


def test_what_is_dead_again_counts_its_attempts(source: Path, store: MemoryStore) -> None:
    before = {letter["key"]: letter for letter in Store(store).release().dead_letters()}
    assert {letter["attempts"] for letter in before.values()} == {1}
    for turn in range(2, 4):
        done = replay(make_run(source, store, f"turn-{turn}"))
        assert (done.samples, done.repaired_samples, dict(done.dead)) == (3, 0, {"corrupt_image": 3})
        letters = list(Store(store).release().dead_letters())
        assert {letter["attempts"] for letter in letters} == {turn}
        assert {letter["detail"] for letter in letters} == {"says so itself"}
        assert [letter["row"] for letter in letters] == [1, 1, 4]
    assert run(make_run(source, store, "nightly")).published is False


def test_other_labels_are_refused(source: Path, store: MemoryStore) -> None:
    job = make_run(source, store, "other")
    fields = {**job.recipe.to_json(), "source": {"path": f"{source}/*.tar", "where": [{"field": "txt", "ne": "abc"}]}}
    other = dataclasses.replace(job, recipe=Recipe.model_validate(fields))
    with pytest.raises(Refused, match=r"release 1 .* holds other labels .*where"):
        plan_replay(other, "latest")
    with pytest.raises(UnknownName, match="latest"):
        plan_replay(make_run(source, store), 7)


def test_changed_lost_and_gone_shards_are_left_to_a_run(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(source / "three.tar", [b"fine", b"bad"])
    run(make_run(source, store, "second"))
    mend(monkeypatch)
    (source / "one.tar").unlink()
    write_shard(source / "two.tar", [b"bad", b"new bytes"] * 400)
    lost = Store(store).release().entries["three.tar"].data
    assert lost is not None
    store.delete(lost.path)
    done = replay(make_run(source, store, "replay"))
    words = " ".join(done.outcome.plan.warnings)
    assert "one.tar is gone from the source" in words
    assert "two.tar has changed since; a run labels it anew" in words
    assert "three.tar has lost its output" in words
    assert (done.samples, done.outcome.published) == (0, False)
    assert run(make_run(source, store, "nightly")).release.counts.dead == 0  # type: ignore[union-attr]


def test_other_bytes_behind_an_unchanged_size_and_time(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "one.tar"
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b"xxxxx", b"yyyyy"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    mend(monkeypatch)
    job = make_run(source, store, "replay")
    assert job.recipe.resources.part_rows == PART_ROWS
    with pytest.raises(Refused, match=r"one\.tar holds other samples .*--check-content"):
        replay(job)
    assert len(Store(store).history()) == 1


@pytest.fixture
def broken_source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "broken")


def test_dead_shards_are_read_again(broken_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    run(make_run(broken_source, store, "first"))
    again = replay(make_run(broken_source, store, "again"))
    assert (again.shards, again.repaired_shards, dict(again.dead)) == (1, 0, {"truncated_shard": 1, "corrupt_image": 2})
    [letter] = [letter for letter in Store(store).release().dead_letters() if "key" not in letter]
    assert (letter["shard"], letter["attempts"]) == ("broken.tar", 2)
    mend(monkeypatch)
    only = replay(make_run(broken_source, store, "only"), reason="truncated_shard")
    assert (only.shards, only.samples) == (1, 0)


def test_a_shard_that_cannot_be_read_any_more_loses_no_label(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "two.tar"
    times, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:512] + b"\xff" * (len(data) - 512))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    mend(monkeypatch)
    done = replay(make_run(source, store, "replay"))
    assert (done.samples, done.repaired_samples, dict(done.dead)) == (3, 1, {"corrupt_image": 2})
    assert Store(store).release().entries["two.tar"].ok == 3


def test_of_what_no_release_holds(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run that was refused: mend, replay what it finished, run again."""
    store = MemoryStore()
    strict: dict[str, Any] = {"dead_letters": {"max_fraction": 0.0, "allow": 2}}
    with pytest.raises(RelabelError, match="3 of 11 samples are dead letters"):
        run(make_run(source, store, "refused", **strict))
    [(fingerprint, receipts)] = unpublished(store).items()
    assert make_run(source, store).fingerprint.startswith(fingerprint)
    assert [receipt.shard for receipt in receipts] == sorted(SAMPLES)
    mend(monkeypatch)
    done = replay(make_run(source, store, "open", **strict), release=None)
    assert (done.repaired_samples, done.outcome.release) == (3, None)
    release = run(make_run(source, store, "after", **strict)).release
    assert release is not None
    assert (release.counts.ok, release.version) == (11, 1)
    assert unpublished(store) == {}
    assert replay(make_run(source, store, "none"), release=None).outcome.plan.todo == []


def test_parts_of_a_run_at_work_are_not_deleted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is finished, so nothing is to replay; the parts are the live run's, which holds the lease."""
    store = MemoryStore()
    live = make_run(source, store, "live", shards="two.tar")
    parts = labelled_parts(live, plan(live).todo[0].task)
    write_part(live, store, parts[0])
    job = make_run(source, store, "replay", shards="two.tar")
    make_plan = functools.partial(plan_replay, job, None)
    owner = acquire(store, "live")
    with pytest.raises(StoreBusy, match="live"), leased(job, make_plan, StopRequest()):
        pass
    release(store, owner.lease)
    with leased(job, make_plan, StopRequest()) as (todo, lease):
        assert (lease, len(todo.redone), list(todo.todo)) == (2, 1, [])
        keep_unpublished(todo, {}, Account())
    assert list(store.list("parts")) == []


@pytest.mark.parametrize("died", [False, True])
def test_what_was_taken_back_is_not_repaired_into_a_release(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, died: bool
) -> None:
    """Also where a replay labelled it before the revert, and published nothing."""
    monkeypatch.setattr(store_run, "_parts", {})
    write_shard(source / "late.tar", [b"fine", b"bad"])
    run(make_run(source, store, "second"))
    mend(monkeypatch)
    if died:
        job = make_run(source, store, "died")
        assert len(list(label(job, plan_replay(job, 2)))) == 3
    revert(store, 1)
    done = replay(make_run(source, store, "replay"), release=2)
    assert done.outcome.plan.warnings == ["late.tar was taken back (release 3 went back to 1) and stays so."]
    assert Store(store).release().shards == sorted(SAMPLES)
    assert Store(store).release().counts.dead == 0


def test_nothing_is_published_on_top_of_a_recalled_release(source: Path, store: MemoryStore) -> None:
    write_recall(store, 1, "of another data set")
    with pytest.raises(Refused, match=r"release 1 .* is recalled \(of another data set\).*`relabel revert`"):
        plan_replay(make_run(source, store), 1)


def test_what_is_withdrawn_and_erased_is_listed_no_more(source: Path, store: MemoryStore) -> None:
    opened = Store(store)
    opened.withdraw({"two.tar": ["4"]}, "asked")
    for turn in range(2):
        for listed in (release_records(store, "1"), release_records(store, "latest")):
            places = [(letter["shard"], letter["key"]) for letter in listed.letters(None)]
            assert places == [("one.tar", "1"), ("two.tar", "1")], turn
            assert listed.counts(None) == [("samples", "corrupt_image", 2)]
        opened.erase(apply=True)
    strict: dict[str, Any] = {"dead_letters": {"max_fraction": 0.0, "allow": 0}}
    write_shard(source / "new.tar", [b"bad", b"bad"])
    with pytest.raises(TooManyDeadLetters):
        run(make_run(source, store, "refused", **strict))
    opened.withdraw({"new.tar": ["0"]}, "asked", ahead=True)
    assert [letter["key"] for letter in open_records(store).letters(None) if letter["shard"] == "new.tar"] == ["1"]


@pytest.mark.parametrize("release", [None, 1])
def test_withdrawn_samples_hold_a_replay_up_until_they_are_erased(
    source: Path, monkeypatch: pytest.MonkeyPatch, release: int | None
) -> None:
    store = MemoryStore()
    strict: dict[str, Any] = {"dead_letters": {"max_fraction": 0.0, "allow": 0 if release is None else 3}}
    with pytest.raises(TooManyDeadLetters, match="until `relabel erase STORE`") if release is None else nullcontext():
        run(make_run(source, store, "first", **strict))
    mend(monkeypatch)
    # Samples that are fine and dead, and one that the shard does not hold.
    write_withdrawals(store, {"two.tar": ["0", "4", "none"], "one.tar": ["none"]}, "asked")
    done = replay(make_run(source, store, "early", **strict), release)
    assert done.outcome.plan.warnings == [
        f"two.tar holds withdrawn samples: `relabel erase {store.url}` first, then replay it."
    ]
    assert done.repaired_samples == 1
    erase(store, apply=True)
    done = replay(make_run(source, store, "again", **strict), release)
    assert (done.repaired_samples, done.outcome.plan.warnings) == (1, [])
    newest = run(make_run(source, store, "after", **strict)).release
    assert newest is not None
    assert (newest.counts.ok, newest.counts.reasons) == (9, {"withdrawn": 2})
    assert verify(store, "latest", "full").problems == []


def test_a_source_that_is_withdrawn_whole_says_so(source: Path) -> None:
    store = MemoryStore()
    one: dict[str, Any] = {"dead_letters": {"max_fraction": 0.0, "allow": 0}}
    with pytest.raises(TooManyDeadLetters):
        run(make_run(source, store, "first", shards="one.tar", **one))
    write_withdrawals(store, {"one.tar": ["0", "1"]}, "licence")
    erase(store)
    with pytest.raises(Refused, match=r"every sample of the source \(2\) is withdrawn"):
        run(make_run(source, store, "second", shards="one.tar", **one))


def test_a_plan_lists_outputs_once_however_many_shards_there_are(source: Path) -> None:
    for number in range(LIST_FROM // 2):  # each with a label shard and a file of dead letters
        write_shard(source / f"more-{number:03}.tar", [b"fine", b"bad"])
    store = Recorder(MemoryStore())
    run(make_run(source, store, "first"))
    store.kinds.clear()
    assert len(plan_replay(make_run(source, store, "again"), 1).todo) == LIST_FROM // 2 + len(DEAD)
    assert store.kinds.count("head") < len(DEAD)


def test_numerics_that_differ_are_told(source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mend(monkeypatch)
    monkeypatch.setattr(Length, "numerics", lambda self: {"device": "another"})
    monkeypatch.setattr(store_run, "_parts", {})
    assert replay(make_run(source, store, "again")).other_numerics == 2
    version = Store(store).release().version
    assert sorted(kind.get("mixed") is not None for kind in version.numerics.values()) == [False, True]


class Recorder(OperatedStore):
    """Remembers the kinds of what was asked."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.kinds: list[str] = []

    def operate(self, operation: Operation) -> object:
        self.kinds.append(operation.kind)
        return super().operate(operation)


@pytest.mark.parametrize("name", ["crash after", "torn write", "lost acknowledgement", "late landing"])
def test_a_replay_that_dies_at_any_write_is_repeated(
    source: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = labelled_whole(source, monkeypatch).content_digest
    recorder, fault = Recorder(store.copy()), BY_NAME[name]
    replay(make_run(source, recorder, "undisturbed"))
    struck = [number for number, kind in enumerate(recorder.kinds) if kind in fault.strikes]
    assert len(struck) > 5
    for number in struck:
        memory = store.copy()
        watch = Watch(memory)
        faulty = FaultyStore(memory, number, fault, delay=number % 5)
        job = make_run(source, faulty, "ours")
        with contextlib.suppress(Crash, RelabelError):
            replay(job)
        assert faulty.struck is not None
        watch.check()
        faulty.at = -1
        with contextlib.suppress(StoreCorrupt):  # a torn part is removed at its first sight
            replay(dataclasses.replace(job, run_id="again"))
        done = replay(dataclasses.replace(job, run_id="once more"))
        faulty.land_all()
        watch.check()
        assert done.outcome.release is not None
        assert done.outcome.release.content_digest == whole, number
        assert verify(memory, "latest", "full").problems == []
        check_sums(memory, job)
        assert plan(make_run(source, memory, "nightly")).todo == []
