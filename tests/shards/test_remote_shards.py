"""Remote shards, on a real S3 server: windows of range reads, pinned to the version that was listed."""

import io
import pickle
import random
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_tar, pairs, read_all, watched

from relabel.digests import sha256
from relabel.errors import BadShard, StorageError, UsageError
from relabel.reasons import Reason
from relabel.shards import ranges
from relabel.shards.folder import FolderSource
from relabel.shards.parquet import ParquetSource
from relabel.shards.ranges import Ranges, version_of
from relabel.shards.stream import RemoteStream
from relabel.shards.webdataset import WebDatasetSource
from relabel.storage.filesystems import resolve

DATA = random.Random(0).randbytes(1_000_003)


def put(url: str, data: bytes) -> None:
    filesystem, path = resolve(url)
    filesystem.pipe_file(path, data)


def pinned(url: str) -> Ranges:
    """Range reads of what lies at `url` now."""
    filesystem, path = resolve(url)
    info = filesystem.info(path)
    return Ranges(filesystem, path, info["size"], version_of(info))


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("range_bytes", [65_536, 1_000_003, 4 << 20])
def test_ranges_come_back_in_order(s3_root: str, window: int, range_bytes: int) -> None:
    put(f"{s3_root}/a", DATA)
    stream = RemoteStream(pinned(f"{s3_root}/a"), window, range_bytes)
    assert b"".join(stream) == DATA
    assert stream.sha256 == sha256(DATA)


def test_a_replaced_object_is_refused_in_mid_read(s3_root: str) -> None:
    put(f"{s3_root}/a", DATA)
    chunks = iter(RemoteStream(pinned(f"{s3_root}/a"), 2, 100_000))
    assert next(chunks) == DATA[:100_000]
    put(f"{s3_root}/a", DATA[::-1])
    with pytest.raises(BadShard) as caught:
        list(chunks)
    assert caught.value.reason == Reason.CHANGED_SHARD


def test_a_deleted_object_counts_as_changed(s3_root: str) -> None:
    put(f"{s3_root}/a", DATA)
    reads = pinned(f"{s3_root}/a")
    reads.filesystem.rm_file(reads.path)
    with pytest.raises(BadShard, match="changed_shard.*gone"):
        list(RemoteStream(reads))


def test_a_store_that_ignores_the_condition_is_found_out_by_its_etag(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{s3_root}/a", DATA)
    reads = pinned(f"{s3_root}/a")
    put(f"{s3_root}/a", DATA[::-1])
    get = ranges.get_range

    async def unconditional(filesystem: Any, path: str, start: int, end: int, match: str) -> tuple[str, bytes]:
        return await get(filesystem, path, start, end, "*")

    monkeypatch.setattr(ranges, "get_range", unconditional)
    with pytest.raises(BadShard, match="changed_shard"):
        list(RemoteStream(reads))


def failing(monkeypatch: pytest.MonkeyPatch, times: int, spoil: Callable[[bytes], bytes] | None = None) -> None:
    """Every range fails `times` times, by an error or by what `spoil` makes of its bytes."""
    get, failed, lock = ranges.get_range, dict[int, int](), threading.Lock()

    async def faulty(filesystem: Any, path: str, start: int, end: int, match: str) -> tuple[str, bytes]:
        with lock:
            failed[start] = failed.get(start, 0) + 1
        if failed[start] > times:
            return await get(filesystem, path, start, end, match)
        if spoil is None:
            raise ConnectionResetError("the peer went away")
        etag, data = await get(filesystem, path, start, end, match)
        return etag, spoil(data)

    monkeypatch.setattr(ranges, "get_range", faulty)
    monkeypatch.setattr(ranges, "PAUSES_SECONDS", (0.01, 0.01))


@pytest.mark.parametrize("spoil", [None, lambda data: data[:-1]])
def test_ranges_that_fail_for_a_moment_are_read_again(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes] | None
) -> None:
    put(f"{s3_root}/a", DATA)
    failing(monkeypatch, 2, spoil)
    assert b"".join(RemoteStream(pinned(f"{s3_root}/a"), 4, 300_000)) == DATA


@pytest.mark.parametrize("spoil", [None, lambda data: data[:-1]])
def test_ranges_that_fail_for_good_are_a_storage_error(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes] | None
) -> None:
    put(f"{s3_root}/a", DATA)
    failing(monkeypatch, 9, spoil)
    with pytest.raises(StorageError):
        list(RemoteStream(pinned(f"{s3_root}/a"), 4, 300_000))


def test_a_stream_holds_no_more_than_its_window(s3_root: str) -> None:
    put(f"{s3_root}/a", DATA * 24)
    stream = RemoteStream(pinned(f"{s3_root}/a"), 4, 1 << 20)
    list(RemoteStream(pinned(f"{s3_root}/a"), 1, 1 << 20))
    with watched() as memory:
        for _ in stream:
            pass
    # Each range may lie in memory twice while its body is put together.
    assert memory.peak < 12 << 20


def test_a_reader_that_leaves_early_leaves_no_thread(s3_root: str) -> None:
    put(f"{s3_root}/a", DATA)
    chunks = iter(RemoteStream(pinned(f"{s3_root}/a"), 4, 10_000))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("relabel-read")]


def test_webdataset_shards_by_brace_pattern(s3_root: str) -> None:
    for index in range(6):
        put(f"{s3_root}/train-{index:03d}.tar", make_tar(pairs(index + 1)))
    put(f"{s3_root}/other.txt", b"")
    source = pickle.loads(pickle.dumps(WebDatasetSource(f"{s3_root}/train-{{000..005}}.tar")))
    shards = source.shards()
    assert source.root == s3_root
    assert [shard.name for shard in shards] == [f"train-{index:03d}.tar" for index in range(6)]
    assert all(len(shard.etag) == 32 for shard in shards)
    assert len(read_all(source)) == 21
    assert shards == WebDatasetSource(f"{s3_root}/*.tar").shards()
    with pytest.raises(UsageError, match=r"2 of the files .* are missing: .*train-006.tar, .*train-007.tar\. Correct"):
        WebDatasetSource(f"{s3_root}/train-{{000..007}}.tar").shards()


def test_a_bucket_or_folder_that_is_not_there_is_a_mistake(s3_root: str) -> None:
    for pattern in (f"{s3_root}/*.tar", f"{s3_root}/none.tar", f"{s3_root}/none-{{0..9}}.tar"):
        with pytest.raises(UsageError):
            WebDatasetSource(pattern).shards()


def test_a_listing_file_names_shards_beside_it(s3_root: str) -> None:
    put(f"{s3_root}/sub/a.tar", make_tar(pairs(1)))
    put(f"{s3_root}/shards.txt", b"# chosen\nsub/a.tar\n\n")
    assert [shard.name for shard in WebDatasetSource(f"@{s3_root}/shards.txt").shards()] == ["a.tar"]
    with pytest.raises(UsageError, match="listing file"):
        WebDatasetSource(f"@{s3_root}/none.txt").shards()


def test_parquet_shards_are_spooled_and_pinned(s3_root: str) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": [b"a", b"b"], "id": ["x", "y"]}), sink)
    put(f"{s3_root}/a.parquet", sink.getvalue())
    source = ParquetSource(f"{s3_root}/a.parquet", key="id")
    [shard] = source.shards()
    reading = source.read(shard)
    assert [(sample.key, sample.fields["image"]) for sample in reading] == [("x", b"a"), ("y", b"b")]
    assert reading.content_sha256 == sha256(sink.getvalue())
    put(f"{s3_root}/a.parquet", sink.getvalue() + b"PAR1")
    with pytest.raises(BadShard, match="changed_shard"):
        list(source.read(shard))


def test_folders_of_images_are_bucketed_and_pinned(s3_root: str) -> None:
    for index in range(12):
        put(f"{s3_root}/class {index % 3}/{index}.jpg", bytes([index]) * (index + 1))
    put(f"{s3_root}/.hidden/a.jpg", b"x")
    put(f"{s3_root}/empty.jpg", b"")
    source = FolderSource(f"{s3_root}/", buckets=3)
    samples = {sample.key: sample.fields["image"] for sample in read_all(source)}
    assert samples == {
        **{f"class {index % 3}/{index}.jpg": bytes([index]) * (index + 1) for index in range(12)},
        "empty.jpg": b"",
    }
    shards = source.shards()
    put(f"{s3_root}/class 0/0.jpg", b"changed")
    with pytest.raises(BadShard, match="changed_shard"):
        [list(source.read(shard)) for shard in shards]


def test_other_stores_are_checked_before_and_after() -> None:
    put("memory://remote/a.tar", make_tar(pairs(3)))
    source = WebDatasetSource("memory://remote/*.tar")
    [shard] = source.shards()
    assert len(list(source.read(shard))) == 3
    samples = iter(source.read(shard))
    next(samples)
    put("memory://remote/a.tar", make_tar(pairs(3)))
    with pytest.raises(BadShard, match="changed_shard"):
        list(samples)
    with pytest.raises(BadShard, match="changed_shard"):
        list(source.read(shard))
