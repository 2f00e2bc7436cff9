"""Verify: whatever happens to any object that a release reaches is found and named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relabel.digests import seal, sha256, unseal
from relabel.errors import UnknownName
from relabel.releases.segments import read_segments
from relabel.releases.verify import LEVELS, Level, verify
from relabel.releases.versions import MARKER, read_version, version_path
from relabel.storage.objects import ObjectStore

SHARDS = {"a.tar": 4, "b.tar": 300, "broken.tar": -1}


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "first byte flipped": lambda data: flip(data, 0),
    "middle byte flipped": lambda data: flip(data, len(data) // 2),
    "last byte flipped": lambda data: flip(data, len(data) - 1),
    "truncated": lambda data: data[:-1],
    "emptied": lambda data: b"",
    "extended": lambda data: data + b"\n",
    "deleted": lambda data: None,
}


@pytest.fixture
def two_releases(make_job: Callable, store: ObjectStore) -> ObjectStore:
    make_job({"a.tar": 4, "broken.tar": -1}).run()
    make_job(SHARDS, run_id="run-2").run()
    return store


def reached(store: ObjectStore, number: int) -> set[str]:
    """Every object that release `number` stands on."""
    version = read_version(store, number)
    entries = read_segments(store, version.segments).values()
    return {
        MARKER,
        *(version_path(each) for each in range(1, number + 1)),
        *(segment.path for segment in version.segments),
        *(each.path for entry in entries for each in entry.objects()),
    }


@pytest.mark.parametrize("level", LEVELS)
def test_an_untouched_release_passes(two_releases: ObjectStore, level: Level) -> None:
    for selector in ("latest", 1, "v2"):
        report = verify(two_releases, selector, level)
        assert report.problems == []
        assert report.ok
    assert report.counts["shards"] == 3
    assert report.counts["files"] == 4
    assert report.counts["versions"] == 2
    assert report.counts.get("files_read", 0) == (0 if level == "quick" else 2)


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_to_any_object_is_named(two_releases: ObjectStore, damage: str) -> None:
    objects = reached(two_releases, 2)
    assert len(objects) == 1 + 2 + 2 + 4
    for path in sorted(objects):
        data = two_releases.get(path)
        damaged = DAMAGE[damage](data)
        if damaged is None:
            two_releases.delete(path)
        else:
            two_releases.put(path, damaged)
        report = verify(two_releases, 2, "full")
        assert not report.ok
        assert path in {problem.object for problem in report.problems}, (path, report.problems)
        two_releases.put(path, data)
    assert verify(two_releases, 2, "full").ok


@pytest.mark.parametrize("level", LEVELS)
def test_sizes_and_small_files_are_checked_at_every_level(two_releases: ObjectStore, level: Level) -> None:
    for path in sorted(reached(two_releases, 2)):
        data = two_releases.get(path)
        two_releases.put(path, data[:-3])
        assert path in {problem.object for problem in verify(two_releases, 2, level).problems}
        two_releases.put(path, data)


def test_two_files_changed_places(two_releases: ObjectStore) -> None:
    paths = sorted(path for path in reached(two_releases, 2) if path.endswith(".parquet") and path.startswith("data/"))
    first, second = (two_releases.get(path) for path in paths)
    two_releases.put(paths[0], second)
    two_releases.put(paths[1], first)
    assert {problem.object for problem in verify(two_releases, 2, "quick").problems} == set(paths)
    assert {problem.object for problem in verify(two_releases, 2, "full").problems} == set(paths)


def test_one_problem_does_not_hide_another(two_releases: ObjectStore) -> None:
    letters = next(path for path in reached(two_releases, 2) if path.endswith(".dead.jsonl"))
    data = next(path for path in reached(two_releases, 2) if path.startswith("data/") and path.endswith(".parquet"))
    for path in (MARKER, letters, data):
        two_releases.delete(path)
    assert {problem.object for problem in verify(two_releases, 2, "quick").problems} == {MARKER, letters, data}


def resealed(store: ObjectStore, path: str, **changes: object) -> None:
    """A version whose seal is right and whose statements are not."""
    store.put(path, seal({**unseal(store.get(path), path), **changes}))


def test_statements_that_do_not_add_up(two_releases: ObjectStore) -> None:
    path = version_path(2)
    whole = two_releases.get(path)
    fields = unseal(whole, path)
    for changes, said in (
        ({"counts": {**fields["counts"], "ok": 1}}, "add up"),
        ({"content_digest": "0" * 64}, "content digest"),
        ({"numerics": {}}, "numerics"),
        ({"version": 3}, "version 3"),
        ({"run_id": "run-1"}, "run-1"),
        ({"parent_sha256": sha256(b"")}, "parent"),
    ):
        resealed(two_releases, path, **changes)
        problems = verify(two_releases, 2, "quick").problems
        assert any(said in problem.what for problem in problems), (changes, problems)
        two_releases.put(path, whole)


def test_a_label_shard_of_another_meaning(make_job: Callable, store: ObjectStore, tmp_path: Path) -> None:
    make_job(SHARDS).run()
    fields = unseal(store.get(version_path(1)), "")
    label = fields["labels"]["label_map"]
    for changed in (
        {**label, "fingerprint": "0" * 64},
        {**label, "contract": {**label["contract"], "score_domain": None}},
    ):
        resealed(store, version_path(1), labels={"label_map": changed})
        report = verify(store, 1, "default")
        assert {problem.object for problem in report.problems if problem.object.startswith("data/")} == {
            each.path for entry in read_segments(store, read_version(store, 1).segments).values()
            for each in entry.objects() if each.path.endswith(".parquet")
        }  # fmt: skip


def test_what_does_not_exist(two_releases: ObjectStore) -> None:
    assert [problem.object for problem in verify(two_releases, 3).problems] == [version_path(3)]
    with pytest.raises(UnknownName):
        verify(two_releases, "nightly")
    with pytest.raises(UnknownName):
        verify(two_releases, 4)
    two_releases.delete(version_path(1))
    assert version_path(1) in {problem.object for problem in verify(two_releases, 1).problems}
