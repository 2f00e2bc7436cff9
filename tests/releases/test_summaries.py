"""Summaries of releases: added up at every commit, whoever publishes; recomputed where rows go; checked by verify."""

import dataclasses
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest

from relabel.digests import canonical_json, seal, unseal
from relabel.labels.summary import Summary, add_up, summarise
from relabel.releases.commit import commit
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.records import encode_records, from_json, to_json
from relabel.releases.release import Release, Store
from relabel.releases.segments import Entry, EntryColumns, entry_of, read_segments
from relabel.releases.summaries import add_texts
from relabel.releases.verify import verify
from relabel.releases.versions import FORMAT, PLAIN_FORMAT, Version, read_version, version_path
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import UNREADABLE, draft, finish_shards

SOURCE = {"a.tar": "1", "b.tar": "1", UNREADABLE: "1"}


def publish(
    store: MemoryStore, run_id: str, source: dict[str, str], parent: int | None = None, **fields: Any
) -> Version:
    receipts = finish_shards(store, run_id, source, "teacher")
    newest = len(list(store.list("versions"))) if parent is None else parent
    return commit(store, dataclasses.replace(draft(run_id, newest, receipts, "teacher"), **fields))


def from_rows(release: Release) -> Summary:
    """The summary of every row that a reader gets, in one go."""
    contracts = list(release.labels.values())
    found = [
        summarise(contracts, release.table(shard)) for shard in release.shards if release.entry(shard).data is not None
    ]
    return add_up([each for each in found if each is not None])


def check(store: MemoryStore, number: int | str = "latest") -> Release:
    """The release says what its rows say, and is whole."""
    release = Store(store).release(number, accept_partial=True)
    assert release.summary == from_rows(release)
    assert verify(store, release.number, "full").problems == []
    return release


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_release_says_what_its_rows_say(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    release = check(store)
    assert release.summary is not None
    assert release.summary.shards == 2
    assert release.summary.numbers["toy_value"].count == release.counts.ok == 4
    assert release.version.summary == release.summary.state()
    assert release.version.format == FORMAT


def test_it_grows_changes_and_shrinks_with_the_shards(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    publish(store, "two", {**SOURCE, "b.tar": "2", "c.tar": "1"})
    assert check(store).summary != check(store, 1).summary
    publish(store, "three", {"a.tar": "1"}, removed=["b.tar", "c.tar", UNREADABLE])
    assert check(store).version.counts.shards == 1


def test_a_commit_that_rebases_adds_up_what_both_published(store: MemoryStore) -> None:
    publish(store, "one", {"a.tar": "1"})
    publish(store, "two", {"a.tar": "1", "b.tar": "1"}, parent=1)
    publish(store, "three", {"a.tar": "1", "c.tar": "1"}, parent=1)
    release = check(store)
    assert release.shards == ["a.tar", "b.tar", "c.tar"]


def test_any_order_of_shards_and_any_number_of_commits_gives_the_same_bytes() -> None:
    names = ["a.tar", "b.tar", "c.tar", "d.tar"]
    found = set()
    for cut in (1, 2, 3):
        store = MemoryStore()
        for number, last in enumerate(dict.fromkeys([cut, len(names)])):
            publish(store, f"run-{number}", dict.fromkeys(names[:last], "1"))
        found.add(canonical_json(check(store).version.summary))
        names.reverse()
    assert len(found) == 1


def test_more_shards_than_are_added_up_at_a_time(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    receipts = finish_shards(store, "one", {f"{number}.tar": "1" for number in range(9)}, "teacher")
    texts = [receipt.summary for receipt in receipts]
    whole = add_texts(texts)
    random.Random(0).shuffle(texts)
    for block in (2, 3, 4):
        monkeypatch.setattr("relabel.releases.summaries.BLOCK", block)
        assert add_texts(texts) == whole
    assert add_texts(["", ""]) is None


def test_a_revert_says_what_the_older_release_said(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    publish(store, "two", {**SOURCE, "a.tar": "2"})
    Store(store).revert(1)
    assert check(store).version.summary == read_version(store, 1).summary
    again = publish(store, "three", SOURCE)
    assert again.version == 3, "the receipts that the revert wrote have their summaries"


def test_withdrawn_rows_count_no_more_and_erasure_publishes_so(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    opened = Store(store)
    opened.withdraw({"a.tar": ["a.tar-2"]}, "asked by the owner")
    before = check(store)
    assert before.summary is not None
    assert before.summary.numbers["toy_value"].count == 3
    assert before.version.summary["numbers"]["toy_value"][0] == 4, "what was published"
    for apply in (False, True):
        opened.erase(apply=apply)
        after = check(store)
        assert (after.number, after.version.summary) == (2, before.summary.state())
        assert Store(store).release(1).summary == before.summary
    assert publish(store, "two", SOURCE).version == 2, "the receipts of the erasure say the same"


def test_a_whole_shard_that_is_withdrawn(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    Store(store).withdraw({"a.tar": None}, "asked by the owner")
    assert check(store).counts.ok == 2
    Store(store).erase(apply=True)
    assert check(store).shards == ["b.tar", UNREADABLE]


def test_releases_from_before_are_read_and_grow_summaries(store: MemoryStore) -> None:
    """An older relabel wrote receipts, segments and versions without them."""
    old = [without(store, receipt) for receipt in finish_shards(store, "one", SOURCE, "teacher")]
    first = commit(store, draft("one", 0, old, "teacher"))
    assert first.summary is None
    assert b"summary" not in store.get(version_path(1))
    assert "summary" not in pq.read_schema(store_file(store, first.segments[0].path)).names
    release = Store(store).release()
    assert release.summary is None
    assert verify(store, 1, "full").problems == []
    publish(store, "two", {**SOURCE, "c.tar": "1"})
    newer = Store(store).release()
    assert newer.summary is not None
    assert newer.summary.shards == 1, "the others say nothing of theirs"
    assert verify(store, 2, "full").problems == []
    Store(store).withdraw({"a.tar": ["a.tar-2"], "c.tar": ["c.tar-2"]}, "asked by the owner")
    again = Store(store).release()
    assert again.summary is not None
    assert again.summary.numbers["toy_value"].count == 1
    Store(store).erase(apply=True)
    erased = Store(store).release()
    assert erased.summary is not None
    assert erased.summary.shards == 2, "what was written anew has one"
    assert verify(store, erased.number, "full").problems == []


def without(store: MemoryStore, receipt: Receipt) -> Receipt:
    """A receipt as it lay there before there were summaries."""
    receipts = Receipts(store, receipt.fingerprint)
    path = receipts.path(receipt.token, receipt.generation)
    fields = {name: value for name, value in unseal(store.get(path), path).items() if name != "summary"}
    store.put(path, seal(fields))
    for info in store.list(receipts.folder):
        if "fold-" in info.path:
            store.delete(info.path)
    return receipts.load().receipts[receipt.token]


def store_file(store: MemoryStore, path: str) -> io.BytesIO:
    return io.BytesIO(store.get(path))


def test_records_without_summaries_are_written_as_before(store: MemoryStore) -> None:
    [receipt] = finish_shards(store, "one", {"a.tar": "1"}, "teacher")
    assert receipt.summary
    bare = dataclasses.replace(receipt, summary="")
    assert to_json(receipt)["summary"] == receipt.summary
    assert "summary" not in to_json(bare)
    assert from_json(Receipt, to_json(bare), "x") == bare
    for entries, names in (
        ([entry_of(receipt)], True),
        ([entry_of(bare)], False),
        ([entry_of(bare), entry_of(receipt)], True),
    ):
        data = encode_records(Entry, entries)
        assert (b"summary" in data) is names


def test_entries_of_an_open_release_hold_no_summaries_in_memory(store: MemoryStore) -> None:
    version = publish(store, "one", SOURCE)
    columns = EntryColumns(store, version.segments)
    assert all(entry.summary == "" for entry in columns.entries().values())
    full = read_segments(store, version.segments)
    assert {shard: bool(entry.summary) for shard, entry in full.items()} == {
        "a.tar": True,
        "b.tar": True,
        UNREADABLE: False,
    }


def damage_version(store: MemoryStore, change: Any) -> Sequence[str]:
    path = version_path(1)
    fields = unseal(store.get(path), path)
    change(fields)
    store.put(path, seal(fields))
    return [problem.what for problem in verify(store, 1, "quick").problems]


def test_verify_names_a_summary_that_does_not_add_up(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    assert verify(store, 1, "quick").ok
    told = "summary does not add up to those of its label shards"

    def one_more(fields: dict[str, Any]) -> None:
        fields["summary"]["numbers"]["toy_value"][0] += 1

    assert damage_version(store, one_more) == [told]
    assert damage_version(store, lambda fields: fields.pop("summary")) == [told]


def test_verify_compares_the_summary_of_a_shard_with_its_rows(store: MemoryStore) -> None:
    receipts = finish_shards(store, "one", SOURCE, "teacher")
    one, other = (receipt for receipt in receipts if receipt.summary)
    swapped = [
        dataclasses.replace(receipt, summary=other.summary) if receipt.token == one.token else receipt
        for receipt in receipts
    ]
    commit(store, draft("one", 0, swapped, "teacher"))
    assert verify(store, 1, "default").ok
    problems = verify(store, 1, "full").problems
    assert [(problem.object, problem.what) for problem in problems] == [
        (one.data.path if one.data else "", "its summary is not that of its rows")
    ]


def test_a_newer_summary_is_refused_with_what_to_do() -> None:
    """A relabel that knows no summaries refuses by the format, and is told to upgrade."""
    assert FORMAT > PLAIN_FORMAT
    store = MemoryStore()
    publish(store, "one", SOURCE)
    assert json.loads(store.get("store.json"))["format"] == PLAIN_FORMAT, "other stores stay readable"


def test_a_difference_names_both(store: MemoryStore) -> None:
    publish(store, "one", SOURCE)
    publish(store, "two", {**SOURCE, "a.tar": "2"})
    told = Store(store).diff(1, 2).to_json()["summary"]
    means = [told[side]["numbers"]["toy_value"]["mean"] for side in ("before", "after")]
    assert means[0] != means[1]


def test_a_summary_is_small(store: MemoryStore) -> None:
    """What a driver holds of each shard, beside 1.8 kB of its receipt."""
    receipts = finish_shards(store, "one", dict.fromkeys(map("{}.tar".format, range(20)), "1"), "teacher")
    assert max(len(receipt.summary) for receipt in receipts) < 200
    assert len(add_texts([receipt.summary for receipt in receipts]).encode()) < 600  # type: ignore[union-attr]
