"""Listings: paths, braces, globs and listing files to shards with a root that depends on the recipe alone."""

from pathlib import Path

import pytest
from archives import write

from relabel.errors import UsageError
from relabel.shards.listing import Files, find_glob, find_named

FILES = [(f"{folder}/part-{index:02d}.tar", bytes(index)) for folder in ("train", "val") for index in range(4)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, FILES)
    return tmp_path


def names(path: str | list[str]) -> list[str]:
    return [shard.name for shard in Files(path).shards()]


@pytest.mark.parametrize(
    ("pattern", "root", "expected"),
    [
        ("train/part-00.tar", "train", ["part-00.tar"]),
        ("train/part-{00..03}.tar", "train", [f"part-0{index}.tar" for index in range(4)]),
        ("train/part-0{0,{2..3}}.tar", "train", ["part-00.tar", "part-02.tar", "part-03.tar"]),
        ("{train,val}/part-00.tar", "", ["train/part-00.tar", "val/part-00.tar"]),
        ("{train,val}/*-00.tar", "", ["train/part-00.tar", "val/part-00.tar"]),
        ("train/*.tar", "train", [f"part-0{index}.tar" for index in range(4)]),
        ("train/part-0[12].tar", "train", ["part-01.tar", "part-02.tar"]),
        ("train/part-0?.tar", "train", [f"part-0{index}.tar" for index in range(4)]),
        ("**/part-00.tar", "", ["train/part-00.tar", "val/part-00.tar"]),
    ],
)
def test_patterns(data: Path, pattern: str, root: str, expected: list[str]) -> None:
    assert names(f"{data}/{pattern}") == expected
    assert Files(f"{data}/{pattern}").root == str(data / root).rstrip("/")


def test_lists_share_their_deepest_folder_and_name_nothing_twice(data: Path) -> None:
    given = [f"{data}/train/*.tar", f"{data}/val/part-01.tar", f"{data}/train/part-00.tar"]
    assert names(given) == [*(f"train/part-0{index}.tar" for index in range(4)), "val/part-01.tar"]


def test_a_shard_says_where_it_lies_and_which_version_it_is(data: Path) -> None:
    [shard] = Files(f"{data}/train/part-03.tar").shards()
    status = (data / "train/part-03.tar").stat()
    assert (shard.url, shard.size, shard.etag) == (f"{data}/train/part-03.tar", 3, str(status.st_mtime_ns))


def test_relative_paths_and_file_urls_are_made_absolute(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    absolute = Files(f"{data}/train/*.tar").shards()
    assert Files("train/*.tar").shards() == Files(f"file://{data}/train/*.tar").shards() == absolute


def test_a_listing_file_names_paths_relative_to_itself(data: Path) -> None:
    (data / "shards.txt").write_text(f"# two\ntrain/part-01.tar\n\n{data}/val/part-0{{2..3}}.tar\n")
    assert names(f"@{data}/shards.txt") == ["train/part-01.tar", "val/part-02.tar", "val/part-03.tar"]


def test_missing_shards_are_counted_and_named(data: Path) -> None:
    with pytest.raises(UsageError, match=r"^8 of the files .*part-04.tar, .*part-08.tar, \.\.\.\. Correct"):
        names(f"{data}/train/part-{{00..11}}.tar")
    with pytest.raises(UsageError, match="^1 of the files"):
        names(f"{data}/train")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none/*.tar", "no file matches"),
        ("{a,b/*.tar", "braces"),
        ("@none.txt", "listing file"),
        ("@train/part-00.tar", "empty"),
    ],
)
def test_what_names_nothing_is_a_mistake(data: Path, path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(UsageError, match=message):
        names(path)


def test_one_source_lies_in_one_store() -> None:
    for paths in (["s3://a/x.tar", "s3://b/y.tar"], ["/a/x.tar", "s3://b/y.tar"], []):
        with pytest.raises(UsageError):
            _ = Files(paths).root
    assert Files(["s3://a/x/1.tar", "s3://a/y/2.tar"]).root == "s3://a"


def test_folders_are_not_files(data: Path) -> None:
    assert find_glob(f"{data}/*", {}) == {}
    assert find_named([f"{data}/train", f"{data}/none"], {}) == {}
