"""Recalls: `latest` passes over them, pinned readers hear of them."""

import dataclasses
import warnings
from collections.abc import Callable

import pytest

import relabel
from relabel.errors import Recalled, RecallWarning, Refused, UsageError
from relabel.releases.commit import commit
from relabel.releases.verify import verify
from relabel.releases.versions import version_numbers
from relabel.storage.objects import ObjectStore

SHARDS = {"a.tar": 4}


@pytest.fixture
def opened(make_job: Callable, store: ObjectStore) -> relabel.Store:
    for number in range(1, 4):
        make_job({f"{each}.tar": 3 for each in range(number)}, run_id=f"run-{number}").run()
    return relabel.open(store.url)


def test_latest_passes_over_recalled_releases(opened: relabel.Store, make_job: Callable) -> None:
    assert opened.recall(3, "the teacher was wrong") == "the teacher was wrong"
    assert opened.release().number == 2
    opened.recall(2, "too")
    assert opened.release().number == 1
    opened.recall(1, "all of them")
    with pytest.raises(Recalled, match=r"every release of .* is recalled; the newest, 3: the teacher was wrong"):
        opened.release()
    assert opened.recalls() == {1: "all of them", 2: "too", 3: "the teacher was wrong"}
    shards = {f"{each}.tar": 3 for each in range(4)}
    late = make_job(shards, run_id="next")
    with pytest.raises(Refused, match=r"release 3 is recalled: the teacher was wrong.*--bring-back"):
        late.run()
    brought = dataclasses.replace(late.draft(late.finish_all()), bring_back=True)
    assert commit(opened.objects, brought).parent == 3  # the history goes on from the newest
    assert opened.release().number == 4
    assert version_numbers(opened.objects) == [1, 2, 3, 4]


def test_the_newest_release_is_brought_back_under_a_new_number(opened: relabel.Store, make_job: Callable) -> None:
    opened.recall(3, "a mistake")
    same = make_job({f"{each}.tar": 3 for each in range(3)}, run_id="same")
    draft = dataclasses.replace(same.draft(same.finish_all()), bring_back=True)
    brought = commit(opened.objects, draft)
    assert (brought.version, opened.release().number) == (4, 4)
    assert brought.content_digest == opened.release(3, recalled="ignore").version.content_digest
    assert verify(opened.objects, 4, "full").problems == []
    assert commit(opened.objects, dataclasses.replace(draft, run_id="once more", parent=4)) == brought


def test_the_first_reason_stands(opened: relabel.Store) -> None:
    opened.recall(2, " first ")
    assert opened.recall(2, "second") == "first"
    with pytest.raises(UsageError, match="reason"):
        opened.recall(1, "  ")


def test_a_pinned_reader_is_warned_or_fails(opened: relabel.Store) -> None:
    opened.tag("golden", 2)
    opened.recall(2, "shifted by one row")
    for selector in (2, "v2", "golden"):
        with pytest.warns(RecallWarning, match="release 2 of .* was recalled: shifted by one row"):
            opened.release(selector)
        with pytest.raises(Recalled, match="shifted"):
            opened.release(selector, recalled="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened.release(2, recalled="ignore").number == 2
        assert opened.release(3, recalled="error").number == 3


def test_a_training_job_hears_of_it_at_its_next_epoch(opened: relabel.Store) -> None:
    warned, strict, deaf = (opened.release(3, recalled=policy) for policy in ("warn", "error", "ignore"))
    for release in (warned, strict, deaf):
        release.check_recall()
    opened.recall(3, "found out later")
    deaf.check_recall()
    with pytest.warns(RecallWarning, match="found out later"):
        warned.check_recall()
    with pytest.raises(Recalled, match="found out later"):
        strict.check_recall()
    assert warned.table("0.tar").num_rows == 3
