"""Media in a bucket: part of a shard is read, not all of it; copies on disk are kept within bounds."""

import os
from pathlib import Path
from typing import Any

import pytest
from archives import make_tar
from labelled_shards import Publisher, jpeg, write_file, write_parquets

import relabel
from relabel.errors import BadShard
from relabel.readers.cache import Cache
from relabel.shards import places as places_of
from relabel.shards.pinned import PinnedFile, open_pinned
from relabel.shards.places import place_near, places
from relabel.shards.ranges import Ranges
from relabel.shards.shard import Shard
from relabel.shards.webdataset import WebDatasetSource

Fetched = list[tuple[str, int, int]]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Every range that is read."""
    found: Fetched = []
    plain = Ranges.fetch

    def fetch(self: Ranges, start: int, end: int) -> bytes:
        found.append((self.path, start, end))
        return plain(self, start, end)

    monkeypatch.setattr(Ranges, "fetch", fetch)
    return found


def large_tar(photos: list[tuple[bytes, int]], rows: int, size: int, inner: bool = False) -> bytes:
    """Samples of about `size` bytes; `inner`: each holds a tar with members of the same names, to fool who guesses."""
    padding = os.urandom(size)
    files = []
    for row in range(rows):
        image = jpeg(photos[0][0], row)
        nested = make_tar([(f"{(row + 7) % rows:05d}.jpg", image)] * 2) if inner else b""
        files += [(f"{row:05d}.jpg", image), (f"{row:05d}.bin", nested + padding)]
    return make_tar(files)


@pytest.fixture
def remote(s3_root: str, photos: list[tuple[bytes, int]]) -> relabel.Release:
    """A shard of 30 MB, 60 samples."""
    write_file(f"{s3_root}/media/a.tar", large_tar(photos, 60, 500_000))
    return Publisher(f"{s3_root}/store", {"path": f"{s3_root}/media/*.tar"}, labels=["mark"]).publish()


def keys(dataset: Any) -> list[str]:
    return [sample["__key__"] for sample in dataset]


def test_a_rank_reads_its_part_of_a_shard(
    remote: relabel.Release, fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_of, "NEAR_BYTES", 1 << 20)
    found = []
    for rank in range(6):
        fetched.clear()
        found += keys(remote.dataset(rank=rank, world=6, shuffle=0))
        assert sum(end - start for _, start, end in fetched) < 14 * 2**20, "of 30; its own part is 5"
    assert found == [f"{row:05d}" for row in range(60)]


def test_parquet_of_a_bucket_is_read_by_row_group(
    s3_root: str, photos: list[tuple[bytes, int]], fetched: Fetched
) -> None:
    write_parquets(f"{s3_root}/media", photos, [400], group=40)
    release = Publisher(
        f"{s3_root}/store", {"path": f"{s3_root}/media/*.parquet", "key": "id"}, labels=["mark"]
    ).publish()
    size = release.entry("train-00.parquet").size
    fetched.clear()
    assert keys(release.dataset(rank=3, world=10, shuffle=0)) == [f"{row:05d}" for row in range(120, 160)]
    assert sum(end - start for _, start, end in fetched) < size / 2


def test_a_guessed_place_is_never_believed_against_the_keys(
    photos: list[tuple[bytes, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_of, "NEAR_BYTES", 0)
    monkeypatch.setattr(places_of, "WINDOW_BYTES", 40_000)
    for inner in (False, True):
        path = tmp_path / f"{inner}.tar"
        path.write_bytes(large_tar(photos, 50, 9_000, inner))
        status = path.stat()
        pinned = PinnedFile(str(path), status.st_size, str(status.st_mtime_ns))
        true = {place.key: place.start for place in places(pinned.at, pinned.size)}
        rows = {key: row for row, key in enumerate(true)}
        assert list(true) == [f"{row:05d}" for row in range(50)]
        near = 0
        for row in range(50):
            found, start = place_near(pinned.at, pinned.size, rows, row)
            assert found <= row
            if not inner:
                assert start == true[f"{found:05d}"]
                near += row - found < 8
        assert inner or near > 40
        pinned.close()


def test_a_shard_is_read_right_where_its_samples_hold_archives(
    s3_root: str, photos: list[tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a look into the middle finds in them."""
    monkeypatch.setattr(places_of, "NEAR_BYTES", 0)
    monkeypatch.setattr(places_of, "WINDOW_BYTES", 40_000)
    write_file(f"{s3_root}/media/a.tar", large_tar(photos, 50, 9_000, inner=True))
    release = Publisher(f"{s3_root}/store", {"path": f"{s3_root}/media/*.tar"}, labels=["mark"]).publish()
    datasets = [release.dataset(rank=rank, world=5, shuffle=0, decode=False, check="digest") for rank in range(5)]
    found = [key for dataset in datasets for key in keys(dataset)]
    assert found == [f"{row:05d}" for row in range(50)]


def test_a_cache_keeps_shards_within_bounds(
    s3_root: str, photos: list[tuple[bytes, int]], fetched: Fetched, tmp_path: Path
) -> None:
    for name in "abcd":
        write_file(f"{s3_root}/media/{name}.tar", large_tar(photos, 5, 50_000))
    release = Publisher(f"{s3_root}/store", {"path": f"{s3_root}/media/*.tar"}, labels=["mark"]).publish()
    size = release.entry("a.tar").size
    dataset = release.dataset(cache=tmp_path / "cache", cache_bytes=10 * size)
    fetched.clear()
    first = [(sample["__shard__"], sample["__key__"]) for sample in dataset]
    assert len(set(first)) == 20
    assert sum(end - start for _, start, end in fetched) == 4 * size
    assert [(sample["__shard__"], sample["__key__"]) for sample in dataset] == first
    assert sum(end - start for _, start, end in fetched) == 4 * size, "nothing is read twice"
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == sorted(
        entry.token for entry in release.entries.values()
    )
    small = release.dataset(cache=tmp_path / "small", cache_bytes=2 * size + 10)
    for epoch in range(3):
        small.set_epoch(epoch)
        assert len(keys(small)) == 20
        held = list((tmp_path / "small").iterdir())
        assert 1 <= len(held) <= 2
    none = release.dataset(cache=tmp_path / "none", cache_bytes=size - 1)
    assert len(keys(none)) == 20
    assert not (tmp_path / "none").exists()


def test_a_torn_or_foreign_file_in_the_cache_is_fetched_anew(
    s3_root: str, photos: list[tuple[bytes, int]], tmp_path: Path
) -> None:
    write_file(f"{s3_root}/media/a.tar", large_tar(photos, 5, 50_000))
    [shard] = WebDatasetSource(f"{s3_root}/media/*.tar").shards()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / shard.token).write_bytes(b"torn")
    cache = Cache(tmp_path / "cache", 10 * shard.size)

    def remote(shard: Shard) -> Any:
        return open_pinned(shard.url, shard.size, shard.etag, {})

    pinned = cache.open(shard, remote)
    assert isinstance(pinned, PinnedFile)
    assert pinned.at(0, 5) == b"00000"
    assert pinned.size == shard.size == (tmp_path / "cache" / shard.token).stat().st_size
    pinned.close()


def test_an_object_that_changes_is_refused(remote: relabel.Release, photos: list[tuple[bytes, int]]) -> None:
    dataset = remote.dataset()
    write_file(f"{dataset.media.source.root}/a.tar", large_tar(photos, 60, 500_000))
    with pytest.raises(BadShard, match="changed_shard"):
        keys(dataset)
