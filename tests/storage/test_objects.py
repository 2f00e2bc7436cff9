"""Objects: what every object store does, on local disk and on a real S3 server."""

import concurrent.futures
import multiprocessing
import pickle
from pathlib import Path

import pytest

from relabel.errors import AccessDenied, ObjectExists, ObjectMissing, StorageError
from relabel.storage.failures import translated
from relabel.storage.filesystems import connect
from relabel.storage.local import LocalStore
from relabel.storage.objects import ObjectStore, settle
from relabel.storage.opening import open_store
from relabel.storage.remote import CREATE_LIMIT_BYTES, RemoteStore
from relabel.testing.servers import S3Server


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    url = str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_root")
    return open_store(url)


def test_an_object_is_what_was_put(store: ObjectStore) -> None:
    for path, data in {"a": b"", "b/c/d.bin": bytes(range(256)) * 5000}.items():
        store.put(path, data)
        assert store.get(path) == data
        assert store.head(path).size == len(data)
        assert store.exists(path)
    store.put("a", b"more")
    assert store.get("a") == b"more"


def test_what_is_not_there(store: ObjectStore) -> None:
    store.put("folder/object", b"1")
    for path in ("nothing", "folder", "folder/object/below"):
        with pytest.raises(ObjectMissing):
            store.get(path)
        with pytest.raises(ObjectMissing):
            store.head(path)
        assert not store.exists(path)
    store.delete("nothing")
    assert list(store.list("nothing")) == []


def test_create_is_refused_over_anything(store: ObjectStore) -> None:
    for first in (b"", b"first"):
        path = f"created/{len(first)}"
        store.create(path, first)
        with pytest.raises(ObjectExists):
            store.create(path, b"second")
        assert store.get(path) == first
    store.put("put", b"put")
    with pytest.raises(ObjectExists):
        store.create("put", b"created")
    store.delete("put")
    store.create("put", b"created")
    assert store.get("put") == b"created"


def test_list_is_sorted_and_complete(store: ObjectStore) -> None:
    paths = ["a-b/x", "a.b", "a/b", "a/c/d", "ab/x", "b/é ü", "data/x.parquet", "database/y"]
    for path in paths:
        store.put(path, path.encode())
    found = list(store.list(""))
    assert [info.path for info in found] == sorted(paths)
    assert {info.path: info.size for info in found} == {path: len(path.encode()) for path in paths}
    assert [info.path for info in store.list("data")] == ["data/x.parquet"]
    assert [info.path for info in store.list("a/")] == ["a/b", "a/c/d"]
    assert {(info.etag, info.size) for info in found} == {(h.etag, h.size) for h in map(store.head, paths)}
    store.delete("a/b")
    assert [info.path for info in store.list("a")] == ["a/c/d"]


def test_concurrent_creates_have_one_winner(store: ObjectStore) -> None:
    def race(number: int) -> bool:
        try:
            store.create(path, b"%d" % number * 10_000)
        except ObjectExists:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for turn in range(3):
            path = f"race/{turn}"
            wins = list(pool.map(race, range(8)))
            assert sum(wins) == 1
            assert store.get(path) == b"%d" % wins.index(True) * 10_000


def test_settle_returns_the_winner(store: ObjectStore) -> None:
    assert settle(store, "settled", b"ours") == b"ours"
    assert settle(store, "settled", b"theirs") == b"ours"


def test_stores_travel_by_pickle(store: ObjectStore) -> None:
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


def put_and_delete(root: str, writer: int) -> None:
    store = LocalStore(root)
    for number in range(150):
        store.put(f"parts/a/b/{writer}-{number}", b"1")
        store.delete(f"parts/a/b/{writer}-{number}")


def test_writers_find_folders_that_deleters_remove(tmp_path: Path) -> None:
    """Processes, because threads of one seldom meet between two system calls."""
    with concurrent.futures.ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(put_and_delete, [str(tmp_path)] * 3, range(3)))
    assert list(LocalStore(str(tmp_path)).list("")) == []


def test_a_dead_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("data/whole", b"1")
    (tmp_path / "data/.relabel-0123").write_bytes(b"torn")
    assert [info.path for info in store.list("")] == ["data/whole"]
    store.delete("data/whole")
    (tmp_path / "data/.relabel-0123").unlink()
    store.put("data/new", b"2")
    store.delete("data/new")
    assert not (tmp_path / "data").exists()


def test_a_full_disk_says_so() -> None:
    with pytest.raises(StorageError, match="full"), translated("/dev/full"):
        Path("/dev/full").write_bytes(b"1")


def test_only_small_objects_are_created_once(s3_root: str) -> None:
    with pytest.raises(StorageError, match="conditional PUT"):
        open_store(s3_root).create("big", bytes(CREATE_LIMIT_BYTES + 1))


def test_wrong_credentials_say_so(s3_root: str, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied, match="relabel"):
        open_store(s3_root).put("a", b"1")


def test_missing_credentials_say_what_to_do(s3_root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        open_store(s3_root).get("a")


def test_a_missing_bucket_is_not_an_empty_store(s3_root: str) -> None:
    store = open_store("s3://no-such-bucket/root")
    with pytest.raises(StorageError, match="no such bucket"):
        list(store.list(""))


def test_options_name_the_server(s3_root: str, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = RemoteStore(s3_root, seaweed.options)
    store.put("a", b"1")
    assert store.get("a") == b"1"
    assert seaweed.secret_key.encode() not in pickle.dumps(store)


def test_one_file_system_for_equal_surroundings(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect.cache_clear()  # else it is full by now, and does not grow
    store, before = open_store(s3_root), connect.cache_info().currsize
    store.put("a", b"1")
    store.put("b", b"1")
    assert connect.cache_info().currsize == before
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    open_store(s3_root)
    assert connect.cache_info().currsize == before + 1
