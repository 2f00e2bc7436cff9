"""Release: opening a store, finding a release, reading shards and samples back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import relabel
from relabel.digests import seal
from relabel.errors import BadSample, BadShard, Refused, StoreCorrupt, UnknownName, UsageError
from relabel.labels.label_map import LabelMap
from relabel.releases.versions import FORMAT, MARKER, version_path
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store

SHARDS = {"a.tar": 4, "b/c.tar": 5, "broken.tar": -1}


@pytest.fixture
def opened(make_job: Callable, store: ObjectStore) -> relabel.Store:
    make_job({"a.tar": 4}).run()
    make_job(SHARDS, run_id="run-2").run()
    return relabel.open(store.url)


def test_releases_are_found(opened: relabel.Store) -> None:
    assert opened.release().number == opened.release("latest").number == 2
    assert opened.release(1).number == opened.release("1").number == opened.release("v1").number == 1
    assert [version.version for version in opened.history()] == [1, 2]
    assert relabel.open(f"file://{opened.url}").uuid == opened.uuid


@pytest.mark.parametrize("selector", [0, -1, 3, "v9", "nightly", "../store", ""])
def test_unknown_releases_say_what_exists(opened: relabel.Store, selector: int | str) -> None:
    opened.tag("golden", 1)
    with pytest.raises(UnknownName, match="golden|latest|1"):
        opened.release(selector)


def test_tags_never_move(opened: relabel.Store) -> None:
    opened.tag("golden", 1)
    opened.tag("golden", 1)
    assert opened.release("golden").number == 1
    with pytest.raises(relabel.errors.StoreConflict, match="version 1"):
        opened.tag("golden", 2)
    for name in ("latest", "v1", "a/b", ".hidden", ""):
        with pytest.raises(UsageError, match="tag"):
            opened.tag(name, 1)
    with pytest.raises(UnknownName):
        opened.tag("future", 7)


def test_what_a_release_says(opened: relabel.Store) -> None:
    release = opened.release()
    assert release.shards == sorted(SHARDS)
    assert release.entry("b/c.tar").rows == 5
    assert (release.counts.shards, release.counts.samples, release.coverage) == (3, 9, 1.0)
    assert release.labels["label_map"].top_k == 2
    assert release.recipe == {"steps": ["label_map"]}
    assert len(release.content_digest) == 64
    with pytest.raises(UnknownName, match=r"did you mean 'a\.tar'"):
        release.entry("a.tra")


def test_tables(opened: relabel.Store) -> None:
    release = opened.release()
    table = release.table("b/c.tar")
    assert table["key"].to_pylist() == [f"b/c.tar-{row}" for row in range(5)]
    assert table["status"].to_pylist() == ["filtered", "dead", "ok", "ok", "ok"]
    assert release.table("a.tar", columns=["key"]).column_names == ["key"]
    with pytest.raises(BadShard, match=r"truncated_shard.*mid-member"):
        release.table("broken.tar")


def test_samples(opened: relabel.Store) -> None:
    release = opened.release()
    labels = release.get("a.tar", "a.tar-3")
    assert isinstance(labels["label_map"], LabelMap)
    assert labels["label_map"].ids.shape == (2, 2, 2)
    assert (labels["label_map"].height, labels["label_map"].classes) == (100, 5)
    for key, reason, status in (("a.tar-0", "where", "filtered"), ("a.tar-1", "corrupt_image", "dead")):
        with pytest.raises(BadSample, match=status) as caught:
            release.get("a.tar", key)
        assert caught.value.reason == reason
    with pytest.raises(UnknownName, match=r"a\.tar-3"):
        release.get("a.tar", "a.tar-33")


def test_dead_letters(opened: relabel.Store) -> None:
    letters = list(opened.release().dead_letters())
    assert [(each["shard"], each.get("key"), each["reason"]) for each in letters] == [
        ("a.tar", "a.tar-1", "corrupt_image"),
        ("b/c.tar", "b/c.tar-1", "corrupt_image"),
        ("broken.tar", None, "truncated_shard"),
    ]


def test_files_are_given_to_other_engines(opened: relabel.Store) -> None:
    files = opened.release().files()
    assert len(files) == 2
    counted = duckdb.execute(f"SELECT status, count(*) FROM read_parquet({files}) GROUP BY status")
    assert dict(counted.fetchall()) == {"ok": 5, "dead": 2, "filtered": 2}


def test_damage_is_not_read(opened: relabel.Store) -> None:
    release = opened.release()
    path = next(path for path in release.files() if "a.tar" in path).removeprefix(f"{opened.url}/")
    data = opened.objects.get(path)
    for damaged in (data[:-20], b"", data[:200] + bytes([data[200] ^ 1]) + data[201:]):
        opened.objects.put(path, damaged)
        with pytest.raises(StoreCorrupt, match=path):
            release.table("a.tar")
    opened.objects.delete(path)
    with pytest.raises(StoreCorrupt, match="gone"):
        release.table("a.tar")


def test_what_is_no_store(tmp_path: Path, store: ObjectStore) -> None:
    with pytest.raises(UsageError, match=r"not a label store.*store\.json"):
        relabel.open(str(tmp_path))
    store.put(MARKER, b"hello")
    with pytest.raises(StoreCorrupt, match=MARKER):
        relabel.open(store.url)


def test_an_empty_store_says_so(store: ObjectStore) -> None:
    store.put(MARKER, seal({"format": FORMAT, "uuid": "x"}))
    with pytest.raises(UnknownName, match="Nothing has been published"):
        relabel.open(store.url).release()


def test_a_newer_format_is_refused(opened: relabel.Store) -> None:
    opened.objects.put(version_path(3), seal({"format": FORMAT + 1, "surprise": True}))
    with pytest.raises(Refused, match=r"pip install --upgrade relabel-ray"):
        opened.release(3)
    opened.objects.put(MARKER, seal({"format": FORMAT + 1}))
    with pytest.raises(Refused, match=r"pip install --upgrade relabel-ray"):
        relabel.open(opened.url)


def test_a_release_on_s3(make_job: Callable, s3_root: str) -> None:
    make_job(SHARDS, store=open_store(s3_root)).run()
    release = relabel.open(s3_root).release()
    assert release.get("a.tar", "a.tar-2")["label_map"].ids.shape == (2, 2, 2)
    assert [url.startswith(s3_root) for url in release.files()] == [True, True]


def test_importing_stays_light(root: Path) -> None:
    heavy = ("torch", "ray", "transformers", "s3fs", "PIL")
    code = f"import sys, relabel; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root / "operators")}, capture_output=True, check=True
    )
    assert found.stdout.strip() == b"[]"
