"""Withdrawals and erasure: rows that nobody is given any more, and files that hold them no longer."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

import relabel
from relabel.errors import (
    BadSample,
    Refused,
    StorageError,
    StoreConflict,
    StoreCorrupt,
    UnknownName,
    UsageError,
)
from relabel.releases.commit import commit
from relabel.releases.erase import erase
from relabel.releases.reachable import unreachable
from relabel.releases.receipts import Receipts
from relabel.releases.release import Store
from relabel.releases.revert import revert
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.unpublished import unpublished
from relabel.releases.verify import verify
from relabel.releases.versions import read_version, version_numbers
from relabel.releases.withdrawals import Samples, parts_of, read_withdrawals, write_withdrawals
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import FAULTS, Crash, Fault, FaultyStore, OperatedStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards, label, meaning, token_of
from relabel.testing.watch import WRITTEN_ONCE

SHARDS = {"a.tar": 5, "b/c.tar": 4, "broken.tar": -1}
STRIDE = 2 * len(FAULTS)
"""Between the operations that a fault strikes; other faults strike others."""
ROWS = ["filtered where", "dead corrupt_image", "ok", "ok", "ok"]


@pytest.fixture
def opened(make_job: Callable, store: ObjectStore) -> relabel.Store:
    """Two releases; the second has one shard more."""
    make_job({"a.tar": 5}).run()
    make_job(SHARDS, run_id="run-2").run()
    return relabel.open(store.url)


def states(release: relabel.Release, shard: str) -> list[str]:
    rows = release.table(shard, ["status", "reason"]).to_pylist()
    return [" ".join(filter(None, row.values())) for row in rows]


def test_a_withdrawn_row_keeps_its_place_and_loses_its_label(opened: relabel.Store) -> None:
    opened.withdraw({"a.tar": ["a.tar-1", "a.tar-3"]}, "asked by the owner")
    for number in (1, 2):
        release = opened.release(number)
        table = release.table("a.tar")
        assert states(release, "a.tar") == ["filtered where", "filtered withdrawn", "ok", "filtered withdrawn", "ok"]
        assert table["key"].to_pylist() == [f"a.tar-{row}" for row in range(5)]
        row = table.slice(3, 1).to_pylist()[0]
        assert {name for name, value in row.items() if value is not None} == {"key", "status", "reason"}
        assert table.slice(4, 1).to_pylist()[0]["label_map_ids"] is not None
        assert table.schema.metadata == release.table("a.tar", ["key"]).schema.metadata
        with pytest.raises(BadSample) as caught:
            release.get("a.tar", "a.tar-3")
        assert caught.value.reason == "withdrawn"
        assert [letter["key"] for letter in release.dead_letters() if letter["shard"] == "a.tar"] == []
    counts = opened.release(2).counts
    assert (counts.ok, counts.dead, counts.filtered) == (4, 1, 4)
    assert counts.reasons == {"corrupt_image": 1, "truncated_shard": 1, "where": 2, "withdrawn": 2}
    assert opened.release(2).version.counts.ok == 5


@pytest.mark.parametrize("samples", [{"a.tar": ["a.tar-1", "a.tar-3"]}, {"a.tar": None}])
def test_counts_of_an_older_release_are_those_of_its_rows(opened: relabel.Store, samples: Samples) -> None:
    """Whether the labels of withdrawn rows were erased or not; `version.counts` stays as it was published."""
    published = [opened.release(number).version.counts for number in (1, 2)]
    opened.withdraw(samples, "asked")
    before = [opened.release(number).counts for number in (1, 2)]
    open_before = opened.release(2)
    for apply in (False, True):
        opened.erase(apply)
        open_before.check_recall()
        assert [opened.release(number).counts for number in (1, 2)] == before
        assert open_before.counts == before[1]
    for number in (1, 2):
        release = opened.release(number)
        rows = Counter(state.partition(" ")[0] for shard in ("a.tar", "b/c.tar")[:number]
                       for state in states(release, shard))  # fmt: skip
        counts = release.counts
        assert {"ok": counts.ok, "dead": counts.dead, "filtered": counts.filtered} == {
            status: rows[status] for status in ("ok", "dead", "filtered")
        }
        assert release.version.counts == published[number - 1]


def test_a_shard_is_withdrawn_whole(opened: relabel.Store) -> None:
    opened.withdraw({"b/c.tar": None}, "licence")
    release = opened.release()
    assert states(release, "b/c.tar") == ["filtered withdrawn"] * 4
    assert release.counts.ok == 3
    assert {letter["shard"] for letter in release.dead_letters()} == {"a.tar", "broken.tar"}


def test_an_open_release_looks_again(opened: relabel.Store) -> None:
    release = opened.release(2)
    assert release.get("a.tar", "a.tar-2")["label_map"] is not None
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    release.check_recall()
    with pytest.raises(BadSample, match="withdrawn"):
        release.get("a.tar", "a.tar-2")


def test_an_open_release_survives_an_erasure(opened: relabel.Store) -> None:
    """A training job at work: the file that it knew is deleted between two reads."""
    release = opened.release(2)
    assert states(release, "b/c.tar") == ["filtered where", "dead corrupt_image", "ok", "ok"]
    opened.withdraw({"a.tar": ["a.tar-1", "a.tar-2"]}, "asked")
    opened.erase(apply=True)
    assert states(release, "a.tar") == ["filtered where", "filtered withdrawn", "filtered withdrawn", "ok", "ok"]
    assert {letter["shard"] for letter in release.dead_letters()} == {"b/c.tar", "broken.tar"}
    erased = opened.release().entry("a.tar").data
    assert erased is not None
    opened.objects.delete(erased.path)
    with pytest.raises(StoreCorrupt, match=rf"{erased.path} is gone"):
        release.table("a.tar")


def test_plain_files_are_refused_until_they_are_erased(opened: relabel.Store) -> None:
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    with pytest.raises(Refused, match=r"still hold withdrawn rows.*'a\.tar'.*relabel erase"):
        opened.release().files()
    assert len(opened.release().files(withdrawn=True)) == 2
    opened.erase(apply=True)
    for number in (1, 2, 3):
        files = opened.release(number).files()
        assert [state for path in files if "erased" in path for state in pq.read_table(path)["status"].to_pylist()] == [
            "filtered", "dead", "filtered", "ok", "ok",
        ]  # fmt: skip


def test_withdrawing_again_is_no_error_and_names_must_exist(opened: relabel.Store) -> None:
    ids = opened.withdraw({"a.tar": ["a.tar-2", "a.tar-1"]}, "asked")
    assert opened.withdraw({"a.tar": ["a.tar-1", "a.tar-2"]}, "asked") == ids
    assert len(list(opened.objects.list("withdrawals"))) == 1
    with pytest.raises(UnknownName, match=r"a\.tar-2"):
        opened.withdraw({"a.tar": ["a.tar-22"]}, "asked")
    with pytest.raises(UnknownName, match=r"a\.tar"):
        opened.withdraw({"a.taz": None}, "asked")
    opened.withdraw({"new.tar": ["x"]}, "asked", ahead=True)
    assert opened.withdrawn().holds("new.tar", "x")
    for samples, reason in (({}, "asked"), ({"a.tar": []}, "asked"), ({"a.tar": None}, " ")):
        with pytest.raises(UsageError, match="reason|nothing"):
            opened.withdraw(samples, reason)


def test_a_damaged_withdrawal_is_not_passed_over(opened: relabel.Store) -> None:
    [name] = opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    opened.objects.put(f"withdrawals/{name}.json", b"{}")
    with pytest.raises(StoreCorrupt, match=name):
        opened.release().table("a.tar")


def test_many_keys_are_several_objects(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.releases.withdrawals.KEYS_PER_OBJECT", 3)
    samples = {"a": list("abcdefg"), "b": ["x"], "c": None, "d": ["y", "z"]}
    parts = list(parts_of(samples))
    assert [sum(len(keys or [""]) for keys in part.values()) for part in parts] == [3, 3, 3, 2]
    write_withdrawals(store, samples, "asked")
    found = read_withdrawals(store)
    assert found.shards == {"c"}
    assert found.keys == {"a": set("abcdefg"), "b": {"x"}, "d": {"y", "z"}}


def test_an_erasure_leaves_no_label_in_any_file(opened: relabel.Store, make_job: Callable) -> None:
    before = {shard: opened.release().entry(shard) for shard in SHARDS}
    wanted = opened.release().table("a.tar").to_pylist()[4]
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    planned = opened.erase()
    assert (planned.rewritten, planned.deleted, planned.redacted) == (1, 0, (1, 2))
    assert len(planned.lying) == 1  # its dead letters are of another sample and stay
    assert verify(opened.objects, 2, "full").problems == []
    done = opened.erase(apply=True)
    assert (done.rewritten, done.deleted, done.lying) == (0, 1, ())
    release = opened.release()
    assert release.number == 3
    assert release.entry("a.tar").reasons == {"corrupt_image": 1, "where": 1, "withdrawn": 1}
    assert release.entry("b/c.tar") == before["b/c.tar"]
    assert release.table("a.tar").to_pylist()[4] == wanted
    assert release.counts == release.version.counts
    for number in (1, 2, 3):
        report = verify(opened.objects, number, "full")
        assert report.problems == []
        assert report.counts.get("redacted", 0) == (0 if number == 3 else 1)
        assert states(opened.release(number), "a.tar") == [*ROWS[:2], "filtered withdrawn", "ok", "ok"]
    again = make_job(SHARDS, run_id="nightly").run()
    assert again == release.version  # nothing is labelled anew


def test_an_erasure_that_is_repeated_changes_nothing(opened: relabel.Store) -> None:
    opened.withdraw({"a.tar": ["a.tar-1", "a.tar-2"]}, "asked")
    opened.withdraw({"zzz.tar": ["x"]}, "asked", ahead=True)
    opened.erase(apply=True)
    lying = {info.path for info in opened.objects.list("")}
    assert opened.erase(apply=True).rewritten == 0
    assert {info.path for info in opened.objects.list("")} == lying
    opened.withdraw({"a.tar": ["a.tar-4"]}, "asked, too")
    erased = opened.erase(apply=True)
    assert erased.release is not None
    assert (erased.release.version, erased.redacted) == (4, (1, 2, 3))
    for number in (1, 2, 3, 4):
        assert states(opened.release(number), "a.tar")[4] == "filtered withdrawn"
        assert verify(opened.objects, number, "full").problems == []
    assert next(iter(opened.release().dead_letters()))["shard"] == "b/c.tar"


def test_withdrawn_shards_leave_the_release(opened: relabel.Store) -> None:
    opened.withdraw({"b/c.tar": None}, "licence")
    erased = opened.erase(apply=True)
    assert erased.release is not None
    assert opened.release().shards == ["a.tar", "broken.tar"]
    assert states(opened.release(2), "b/c.tar") == ["filtered withdrawn"] * 4
    opened.withdraw({"a.tar": None, "broken.tar": None}, "licence")
    with pytest.raises(Refused, match="every shard.*relabel recall"):
        opened.erase()


def test_damage_to_what_stands_for_a_file_is_found(opened: relabel.Store) -> None:
    opened.withdraw({"a.tar": ["a.tar-1"]}, "asked")
    opened.erase(apply=True)
    entry = opened.release().entry("a.tar")
    assert entry.data is not None
    data = opened.objects.get(entry.data.path)
    opened.objects.put(entry.data.path, bytes([*data[:-1], data[-1] ^ 1]))
    for number in (1, 2):
        [problem] = verify(opened.objects, number, "full").problems
        assert (problem.object, "sha256" in problem.what) == (entry.data.path, True)


def test_what_an_erasure_wrote_is_no_open_work(opened: relabel.Store, make_job: Callable) -> None:
    """Of a teacher that is not the newest's the erased files are in no release, but stand for published ones."""
    make_job(SHARDS, run_id="large", teacher="large").run()
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    opened.erase(apply=True)
    assert unpublished(opened.objects) == {}
    late = make_job({**SHARDS, "d.tar": 4}, run_id="late")
    late.finish_all()
    assert {name: [each.shard for each in found] for name, found in unpublished(opened.objects).items()} == {
        late.meaning[:16]: ["d.tar"]
    }


def test_shards_with_equal_files_are_not_mixed_up() -> None:
    store = MemoryStore()
    [first] = finish_shards(store, "run", {"a.tar": "0"}, "small")
    assert first.data is not None
    copied = dataclasses.replace(first.data, path="data/run/b.tar.parquet")
    store.put(copied.path, store.get(first.data.path))
    second = dataclasses.replace(first, shard="b.tar", token=token_of("b.tar", "0"), data=copied, dead_letters=None)
    Receipts(store, first.fingerprint).finish(second)
    commit(store, draft("run", 0, [first, second], "small"))
    write_withdrawals(store, {"a.tar": ["a.tar-2"], "b.tar": ["a.tar-2"]}, "asked")
    erase(store, apply=True)
    entries = Store(store).release().entries
    assert {shard: entry.token for shard, entry in entries.items()} == {"a.tar": first.token, "b.tar": second.token}
    assert [entry.dead_letters for entry in entries.values()] == [first.dead_letters, None]
    assert entries["a.tar"].outcome == entries["b.tar"].outcome
    assert verify(store, 2, "full").problems == []


def test_what_was_never_published_is_erased() -> None:
    """Files that only an older receipt names: its shard was labelled again before anything was published."""
    store = MemoryStore()
    older = label(store, "night", "a.tar", "0", "small")
    newest = label(store, "replay", "a.tar", "0", "small", generation=1)
    commit(store, draft("replay", 0, [newest], "small"))
    write_withdrawals(store, {"a.tar": ["a.tar-1", "a.tar-2"]}, "asked")
    assert erase(store, apply=True).deleted == 4
    assert [each.path for each in older.objects() if store.exists(each.path)] == []
    assert unreachable(store) == {}
    assert verify(store, 2, "full").problems == []


class Reads(OperatedStore):
    """Counts what is read of each object."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.counts: Counter[str] = Counter()

    def operate(self, operation: Operation) -> object:
        self.counts[f"{operation.kind} {operation.path}"] += 1
        return super().operate(operation)


def test_an_erasure_reads_segments_once_however_many_releases_share_them() -> None:
    store = MemoryStore()
    shards = [f"{number}.tar" for number in range(6)]
    for number in range(len(shards)):
        receipts = finish_shards(store, f"run-{number}", dict.fromkeys(shards[: number + 1], "0"), "small")
        commit(store, draft(f"run-{number}", number, receipts, "small"))
    write_withdrawals(store, {"1.tar": ["1.tar-2"]}, "asked")
    reads = Reads(store)
    assert erase(reads).redacted == (2, 3, 4, 5, 6)
    segments = {name: count for name, count in reads.counts.items() if name.startswith("get segments/")}
    assert len(segments) == len(shards)
    assert sum(segments.values()) <= 3 * len(shards)  # for the newest release, for all of them, and by the commit


def test_a_milestone_stays_partial() -> None:
    """However many of its shards are withdrawn, and when it is published again."""
    store = MemoryStore()
    receipts = finish_shards(store, "run", {f"{number}.tar": "0" for number in range(9)}, "small")
    milestone = dataclasses.replace(draft("run.m1", 0, receipts, "small"), num_source_shards=10, coverage=0.9)
    commit(store, milestone)
    write_withdrawals(store, {f"{number}.tar": None for number in range(6)}, "licence")
    erased = erase(store).release
    assert erased is not None
    assert (erased.version, erased.counts.shards, erased.coverage, erased.partial) == (2, 3, 0.9, True)
    kept = finish_shards(store, "night", {f"{number}.tar": "0" for number in range(6, 10)}, "small")
    assert commit(store, draft("night", 2, kept, "small")).coverage == 1
    assert (revert(store, 2).version, read_version(store, 4).coverage) == (4, 0.9)


def test_nothing_is_built_on_a_recalled_release(opened: relabel.Store) -> None:
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked")
    opened.recall(2, "wrong")
    with pytest.raises(Refused, match="recalled.*relabel revert"):
        opened.erase()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_operation_fails_in_every_way(fault: Fault) -> None:
    """An erasure that dies anywhere is repeated: afterwards no file holds the labels, and every release verifies."""
    with one_request_at_a_time():
        start = MemoryStore()
        source = {"a.tar": "0", "b.tar": "0"}
        commit(start, draft("run", 0, finish_shards(start, "run", source, "small"), "small"))
        write_withdrawals(start, {"a.tar": ["a.tar-2"]}, "asked")
        counted = FaultyStore(start.copy())
        erase(counted, apply=True)
        for at in range(FAULTS.index(fault), counted.num_operations, STRIDE):
            store = start.copy()
            faulty = FaultyStore(store, at, fault, delay=at % 5)
            with contextlib.suppress(Crash, StorageError, StoreConflict, Refused):
                erase(faulty, apply=True)
            faulty.at = -1
            with contextlib.suppress(StorageError, StoreConflict, Refused):
                erase(faulty, apply=True)
            faulty.land_all()
            erased = erase(store, apply=True)
            assert (erased.lying, version_numbers(store)) == ((), [1, 2])
            for number in (1, 2):
                assert verify(store, number, "full").problems == []
                assert Store(store).release(number).table("a.tar")["status"].to_pylist()[2] == "filtered"
            changed = [each for each in store.changes if each.before and WRITTEN_ONCE.fullmatch(each.path)]
            assert [each.path for each in changed if each.after != each.before] == []
            newest = read_version(store, 2)
            loaded = Receipts(store, meaning("small")).load().receipts.values()
            assert {receipt.data for receipt in loaded} == {
                entry.data for entry in Store(store).release().entries.values()
            }
            assert newest.counts.filtered == 3
