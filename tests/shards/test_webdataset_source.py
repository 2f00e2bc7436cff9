"""WebDataset shards: grouped as the webdataset package does, refused where it would split or repeat samples."""

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from archives import make_tar, pairs, read_all, watched, write
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

from relabel.digests import sha256
from relabel.errors import BadShard, StorageError, UsageError
from relabel.reasons import Reason
from relabel.shards import tar
from relabel.shards.decompress import decompress
from relabel.shards.shard import Sample
from relabel.shards.stream import LocalStream
from relabel.shards.webdataset import WebDatasetSource, group

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.TGZ": lambda data: gzip.compress(data[:2000]) + gzip.compress(data[2000:]),
    "a.tar.zst": lambda data: zstd(data[:2000]) + zstd(data[2000:]),
}

parts = st.text(st.sampled_from("ab.A_/é "), min_size=1, max_size=8)
names = st.one_of(
    st.builds("{}.{}".format, parts, st.sampled_from(["jpg", "JPG", "cls", "seg.png", "json", ""])),
    parts,
    st.sampled_from(["__meta__", "__meta__/a.jpg", "a/__meta__/b.jpg", "__a.jpg", ".jpg", "d.e/f", "d.e/f.jpg"]),
).filter(lambda name: not name.endswith("/"))


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def ours(data: bytes) -> list[tuple[str, dict[str, object]]]:
    return [(sample.key, dict(sample.fields)) for sample in group(tar.members([data]))]


def theirs(data: bytes) -> list[tuple[str, dict[str, object]]]:
    files = [{**file, "__url__": ""} for file in tar_file_iterator(io.BytesIO(data))]  # type: ignore[arg-type]
    return [
        (sample.pop("__key__"), {name: value for name, value in sample.items() if name != "__url__"})
        for sample in group_by_keys(files)
    ]


@given(st.lists(st.tuples(names, st.binary(max_size=20)), max_size=8))
def test_grouping_equals_webdataset(members: list[tuple[str, bytes]]) -> None:
    data = make_tar(members, tarfile.PAX_FORMAT)
    try:
        expected = theirs(data)
    except ValueError:
        expected = []
        with pytest.raises(BadShard):
            ours(data)
        return
    keys = [key for key, _ in expected]
    if len(set(keys)) < len(keys):
        with pytest.raises(BadShard) as caught:
            ours(data)
        assert caught.value.reason == Reason.DUPLICATE_KEYS
    else:
        assert ours(data) == expected


@pytest.mark.parametrize("name", COMPRESSORS)
def test_samples_come_in_order_with_the_digest_of_the_file(tmp_path: Path, name: str) -> None:
    data = COMPRESSORS[name](make_tar(pairs(20)))
    (tmp_path / name).write_bytes(data)
    source = WebDatasetSource(str(tmp_path / name))
    [shard] = source.shards()
    reading = source.read(shard)
    samples = list(reading)
    assert [sample.key for sample in samples] == [f"s/{index:03d}" for index in range(20)]
    assert [sample.row for sample in samples] == list(range(20))
    assert samples[3] == Sample("s/003", 3, {"jpg": b"\x03" * 703, "cls": b"3"})
    assert reading.content_sha256 == sha256(data)
    assert (shard.name, shard.size) == (name, len(data))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    data = COMPRESSORS[name](make_tar(pairs(2)))
    path = tmp_path / name
    for size in range(0, len(data) - 1, 64):
        path.write_bytes(data[:size])
        try:
            samples = read_all(WebDatasetSource(str(path)))
        except BadShard as error:
            assert error.reason in (Reason.TRUNCATED_SHARD, Reason.CORRUPT_SHARD), size
        else:
            assert len(samples) == 2, size


def test_damaged_compression_never_changes_a_sample(tmp_path: Path) -> None:
    data = gzip.compress(make_tar(pairs(2)), mtime=0)
    expected = ours(make_tar(pairs(2)))
    path = tmp_path / "a.tar.gz"
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            samples = read_all(WebDatasetSource(str(path)))
        except BadShard as error:
            assert error.reason in (Reason.TRUNCATED_SHARD, Reason.CORRUPT_SHARD)
        else:
            # Its gzip header holds a time and an operating system, which change nothing.
            assert position < 10
            assert [(sample.key, sample.fields) for sample in samples] == expected


def test_what_is_not_compressed_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(make_tar(pairs(2)))
    with pytest.raises(BadShard, match="corrupt_shard.*gzip"):
        read_all(WebDatasetSource(str(tmp_path / "a.tar.gz")))


def test_a_bomb_is_cut_off_and_never_held(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    status = path.stat()
    stream = LocalStream(str(path), status.st_size, str(status.st_mtime_ns))
    with watched() as memory, pytest.raises(BadShard, match="unsupported_shard.*more than"):
        for _ in decompress(stream, "gzip", max_bytes=32 << 20):
            pass
    assert memory.peak < 8 << 20


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    payload = random.Random(0).randbytes(100_000)
    (tmp_path / "a.tar").write_bytes(make_tar([(f"{index}.jpg", payload) for index in range(300)]))
    source = WebDatasetSource(str(tmp_path / "a.tar"))
    [shard] = source.shards()
    with watched() as memory:
        assert sum(1 for _ in source.read(shard)) == 300
    assert memory.peak < 4 << 20


@pytest.mark.parametrize(
    "members", [["a.jpg", "b.jpg", "a.cls"], ["a.jpg", "a.jpg"], ["a.jpg", "a.JPG"], ["a.jpg", "b.jpg", "a.jpg"]]
)
def test_repeated_and_interleaved_keys_are_refused_by_name(members: list[str]) -> None:
    with pytest.raises(BadShard, match="'a'") as caught:
        ours(make_tar([(name, b"") for name in members]))
    assert caught.value.reason == Reason.DUPLICATE_KEYS


def test_keys_that_cannot_be_carried_are_marked() -> None:
    raw = [(b"ok.jpg", b"1"), (b"\xff\xfe.jpg", b"2"), (b"new\nline.jpg", b"3"), ("é\u200b.jpg".encode(), b"4")]
    samples = list(group(raw))
    assert [(sample.key, "__bad_key__" in sample.fields) for sample in samples] == [
        ("ok", False), ("\\xff\\xfe", True), ("new\nline", True), ("é\u200b", False),
    ]  # fmt: skip
    assert samples[1].fields == {"__bad_key__": True, "jpg": b"2"}


def test_reserved_extensions_are_refused() -> None:
    with pytest.raises(BadShard, match="reserved"):
        ours(make_tar([("a.__bad_key__", b"1")]))


def test_paths_stay_data() -> None:
    keys = ["/etc/passwd", "../../evil"]
    assert [key for key, _ in ours(make_tar([(f"{key}.jpg", b"") for key in keys], tarfile.PAX_FORMAT))] == keys


def test_a_file_that_changed_or_went_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, [("a.tar", make_tar(pairs(2))), ("b.tar", make_tar(pairs(2)))])
    source = WebDatasetSource(str(tmp_path / "*.tar"))
    first, second = source.shards()
    (tmp_path / "a.tar").write_bytes(make_tar(pairs(3)))
    (tmp_path / "b.tar").unlink()
    for shard in (first, second):
        with pytest.raises(BadShard) as caught:
            list(source.read(shard))
        assert caught.value.reason == Reason.CHANGED_SHARD


def test_a_file_damaged_under_the_reader_counts_as_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([(f"{index}.jpg", bytes(400_000)) for index in range(8)]))
    source = WebDatasetSource(str(path))
    samples = iter(source.read(source.shards()[0]))
    next(samples)
    with path.open("r+b") as file:
        file.write(b"x" * path.stat().st_size)
    with pytest.raises(BadShard) as caught:
        list(samples)
    assert caught.value.reason == Reason.CHANGED_SHARD


def test_a_file_replaced_by_renaming_is_read_as_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([(f"{index}.jpg", bytes(400_000)) for index in range(8)]))
    source = WebDatasetSource(str(path))
    samples = iter(source.read(source.shards()[0]))
    next(samples)
    (tmp_path / "new").write_bytes(b"x")
    (tmp_path / "new").rename(path)
    assert len(list(samples)) == 7


def test_a_file_that_is_no_tar_by_its_name_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, [("a.tar", b""), ("a.json", b"")])
    with pytest.raises(UsageError, match=r"'a.json' is no tar shard"):
        WebDatasetSource(str(tmp_path / "a.*")).shards()


def test_an_unreadable_disk_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(make_tar(pairs(2)))
    source = WebDatasetSource(str(tmp_path / "a.tar"))
    [shard] = source.shards()

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("relabel.shards.stream.os.read", fail)
    with pytest.raises(StorageError, match="Input/output"):
        list(source.read(shard))
