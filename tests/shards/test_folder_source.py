"""Folders of images: hash buckets as shards, each pinned to its members."""

import os
import pickle
from pathlib import Path

import pytest
from archives import read_all, write

from relabel.errors import BadShard, UsageError
from relabel.reasons import Reason
from relabel.shards.folder import FolderSource

PHOTOS = [(f"class{index % 3}/{index}.jpg", bytes([index]) * 10) for index in range(30)]


def test_every_image_comes_once_keyed_by_its_relative_path(tmp_path: Path) -> None:
    write(tmp_path, [*PHOTOS, ("a.txt", b"x"), (".hidden.jpg", b"x"), (".git/b.jpg", b"x"), ("UPPER.JPG", b"up")])
    source = pickle.loads(pickle.dumps(FolderSource(str(tmp_path), buckets=5)))
    samples = read_all(source)
    assert {sample.key: sample.fields for sample in samples} == {
        path: {"image": data, "path": path} for path, data in [*PHOTOS, ("UPPER.JPG", b"up")]
    }
    for shard in source.shards():
        assert [sample.row for sample in source.read(shard)] == list(range(len(shard.members)))


def test_shards_are_named_by_bucket_and_empty_buckets_are_none(tmp_path: Path) -> None:
    write(tmp_path, PHOTOS[:2])
    names = [shard.name for shard in FolderSource(str(tmp_path), buckets=1000).shards()]
    assert len(names) == 2
    assert all(name.startswith("bucket-00") and name.endswith("-of-01000") for name in names)


def test_adding_changing_or_removing_a_file_touches_one_bucket(tmp_path: Path) -> None:
    write(tmp_path, PHOTOS)
    source = FolderSource(str(tmp_path), buckets=8)
    tokens = {shard.name: shard.token for shard in source.shards()}

    def touched() -> int:
        nonlocal tokens
        before, tokens = tokens, {shard.name: shard.token for shard in source.shards()}
        return len(dict(before.items() ^ tokens.items()))

    assert touched() == 0
    write(tmp_path, [("class1/new.png", b"x")])
    assert touched() == 1
    write(tmp_path, [("class1/new.png", b"y")])
    assert touched() == 1
    (tmp_path / "class2/2.jpg").unlink()
    assert touched() == 1


def test_the_digest_depends_on_names_and_bytes_alone(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        write(tmp_path / name, PHOTOS)
        source = FolderSource(str(tmp_path / name), buckets=1)
        [shard] = source.shards()
        reading = source.read(shard)
        assert len(list(reading)) == 30
        digests.append((reading.content_sha256, shard.etag))
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


def test_a_member_that_changed_or_went_is_a_bad_shard(tmp_path: Path) -> None:
    write(tmp_path, PHOTOS)
    source = FolderSource(str(tmp_path), buckets=1)
    [shard] = source.shards()
    write(tmp_path, [("class0/0.jpg", b"other")])
    with pytest.raises(BadShard) as caught:
        list(source.read(shard))
    assert caught.value.reason == Reason.CHANGED_SHARD
    [shard] = source.shards()
    (tmp_path / "class0/0.jpg").unlink()
    with pytest.raises(BadShard, match="gone") as caught:
        list(source.read(shard))
    assert caught.value.reason == Reason.CHANGED_SHARD


def test_names_that_are_not_utf8_cost_one_sample_only(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"1")
    (tmp_path / "new\nline.jpg").write_bytes(b"2")
    (tmp_path / "fine.jpg").write_bytes(b"3")
    samples = read_all(FolderSource(str(tmp_path), buckets=1))
    assert {(sample.key, "__bad_key__" in sample.fields) for sample in samples} == {
        ("\\xff.jpg", True), ("new\nline.jpg", True), ("fine.jpg", False),
    }  # fmt: skip


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, [("photos/a.jpg", b"1"), ("elsewhere/b.jpg", b"2")])
    (tmp_path / "photos/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/again").symlink_to(tmp_path / "photos")
    assert {sample.key for sample in read_all(FolderSource(str(tmp_path / "photos")))} == {"a.jpg", "more/b.jpg"}


def test_patterns_name_images_too(tmp_path: Path) -> None:
    write(tmp_path, PHOTOS)
    source = FolderSource(str(tmp_path / "class{0,1}" / "*.jpg"), buckets=2)
    assert source.root == str(tmp_path)
    assert {sample.key for sample in read_all(source)} == {path for path, _ in PHOTOS if not path.startswith("class2")}


@pytest.mark.parametrize("name", ["", "not there"])
def test_a_folder_without_images_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no image|not there"):
        FolderSource(str(tmp_path / name)).shards()
