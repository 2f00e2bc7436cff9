"""Full disks and quotas: whatever does not fit any more, nothing is half published, and with room a run goes on."""

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_disk import SmallDisk, mount_small_disk
from store_run import make_run, run, write_source

from relabel.errors import StorageError
from relabel.releases.commit import commit
from relabel.releases.receipts import Receipt
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.verify import verify
from relabel.releases.versions import Version, version_numbers
from relabel.storage import remote
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.memory import MemoryStore
from relabel.testing.proxy import Handler, Proxy, Request, WireFault, answer_plainly, error, faulty_proxy
from relabel.testing.servers import S3Server
from relabel.testing.toy import draft, finish_shards


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("full") / "source")


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> SmallDisk:
    return mount_small_disk(tmp_path / "disk", request.addfinalizer)


def check_visible(store: ObjectStore) -> None:
    for number in version_numbers(store):
        assert verify(store, number, "full").problems == []


def survives_unhindered(source: Path, disk: SmallDisk, content_digest: str) -> bool:
    """Whether a run into a fresh store fits; where it does not, it says so, and with room it ends as it should."""
    store = open_store(str(disk.folder / "store"))
    full: StorageError | None = None
    with one_request_at_a_time():
        try:
            release = run(make_run(source, store, "ours")).release
        except StorageError as error:
            full = error
            assert "is full" in str(full)
            assert "Free some space and run again" in str(full)
            assert full.exit_code == 1
            check_visible(store)
            disk.make_room()
            release = run(make_run(source, store, "ours")).release
        check_visible(store)
    assert release is not None
    assert release.content_digest == content_digest
    assert version_numbers(store) == [1]
    shutil.rmtree(disk.folder / "store")
    return full is None


@pytest.mark.parametrize("fill", [SmallDisk.leave_bytes, SmallDisk.leave_files], ids=["no space", "no room for names"])
def test_a_disk_that_is_full_at_any_moment_of_a_run(
    source: Path, disk: SmallDisk, fill: Callable[[SmallDisk, int], None]
) -> None:
    undisturbed = run(make_run(source, MemoryStore(), "undisturbed")).release
    assert undisturbed is not None
    for left in range(200):
        fill(disk, left)
        if survives_unhindered(source, disk, undisturbed.content_digest):
            assert left > 10, "the disk was meant to be full at many different requests"
            return
    raise AssertionError("the run never fitted")


def out_of_quota(status: int, code: str) -> WireFault:
    """Every PUT is answered so; reading goes on."""

    def refuse(handler: Handler, request: Request) -> None:
        if request.method == "PUT":
            handler.send(error(status, code))
        else:
            answer_plainly(handler, request)

    return WireFault(f"{status} {code}", refuse)


@pytest.fixture(scope="module")
def proxy(seaweed: S3Server, request: pytest.FixtureRequest) -> Proxy:
    stack = ExitStack()
    request.addfinalizer(stack.close)
    return stack.enter_context(faulty_proxy(seaweed))


def publish(store: ObjectStore) -> Version:
    numbers = version_numbers(store)
    receipts: list[Receipt] = finish_shards(store, "ours", {"a.tar": "0", "b.tar": "0"}, "small")
    return commit(store, draft("ours", numbers[-1] if numbers else 0, receipts, "small"))


QUOTAS = {0: (507, "InsufficientStorage"), 9: (403, "QuotaExceeded"), 18: (507, "XMinioStorageFull")}
"""Request from which on nothing is taken any more -> what the server says."""


def test_a_bucket_whose_quota_is_spent(proxy: Proxy, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
    monkeypatch.setattr(remote, "PAUSES_SECONDS", (0.0, 0.0))
    undisturbed = publish(MemoryStore())
    behind_options = {**proxy.server.options, "config_kwargs": {"retries": {"max_attempts": 1}}}
    for at, answer in QUOTAS.items():
        store = open_store(f"{s3_root}/{at}", behind_options)
        proxy.arm(out_of_quota(*answer), at, times=10_000)
        with pytest.raises(StorageError, match="quota is full") as full:
            publish(store)
        assert "Free some space and run again" in str(full.value)
        proxy.disarm()
        check_visible(store)
        assert publish(store).content_digest == undisturbed.content_digest
        assert version_numbers(store) == [1]


def test_receipts_are_whole_after_a_full_disk(source: Path, disk: SmallDisk) -> None:
    """What was finished before the disk was full is not done again."""
    store = open_store(str(disk.folder / "store"))
    run(make_run(source, store, "before", "a.tar"))
    disk.leave_bytes(0)
    with pytest.raises(StorageError, match="is full"):
        run(make_run(source, store, "ours"))
    disk.make_room()
    outcome = run(dataclasses.replace(make_run(source, store, "ours")))
    assert [receipt.shard for receipt in outcome.plan.done.values()] == ["a.tar"]
    assert outcome.published
