"""The recipe's source section: its defaults, its mistakes, and what it picks of a sample."""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_tar, read_all, write
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from relabel.digests import digest
from relabel.errors import BadSample
from relabel.shards.folder import FolderSource
from relabel.shards.shard import Sample, Shard, Value
from relabel.shards.source import SourceConfig, has, open_source, pick, selection


def config(**fields: Any) -> SourceConfig:
    return SourceConfig.model_validate(fields)


@given(st.text(), st.integers(min_value=0, max_value=1 << 60), st.text())
def test_a_token_is_the_digest_of_what_identifies_a_shard(name: str, size: int, etag: str) -> None:
    name, etag = (text.encode(errors="ignore").decode() for text in (name, etag))  # without halves of surrogates
    assert Shard(name, "", size, etag).token == digest([name, size, etag])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("s3://b/train-{000..012}.tar", "webdataset"),
        ("a/*.tar.gz", "webdataset"),
        ("a/X.TGZ", "webdataset"),
        ("a/*.tar.zst", "webdataset"),
        (["a/1.parquet", "a/2.parquet"], "parquet"),
        ("photos/", "images"),
        ("s3://bucket/photos", "images"),
        ("photos/*.jpeg", "images"),
    ],
)
def test_the_kind_follows_from_the_suffix(path: str | list[str], kind: str) -> None:
    assert config(path=path).kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "@shards.txt"},
        {"path": "a/*"},
        {"path": "a.csv"},
        {"path": ""},
        {"path": []},
        {"path": [""], "kind": "parquet"},
        {"kind": "parquet"},
        {"path": "a.tar", "key": "id"},
        {"path": "a.tar", "kind": "tar"},
        {"path": "a.tar", "fields": {"image": "jpg;;png"}},
        {"path": "a", "buckets": 0},
        {"path": "a.tar", "wehre": []},
        {"path": "a.tar", "where": [{"field": "x"}]},
    ],
)
def test_mistakes_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**fields)


def test_a_config_survives_the_resolved_recipe() -> None:
    given = config(path=["a.tar", "b.tar"], where=[{"field": "json.w", "in": [1, 2]}], fields={"text": "txt"})
    assert SourceConfig.model_validate(given.model_dump(mode="json")) == given
    assert config(path="a.tar") == SourceConfig.model_validate("a.tar")


def test_the_selection_is_what_changes_labels_and_no_more() -> None:
    base = config(path="a.tar")
    same = config(
        path="b/*.tar",
        storage_options={"anon": True},
        old_label="cls",
        fields={"image": ";".join(base.choices["image"])},
    )
    assert selection(same) == selection(base)
    for other in ({"where": [{"field": "n", "ge": 1}]}, {"fields": {"image": "png"}}):
        assert selection(config(path="a.tar", **other)) != selection(base)
    assert selection(config(path="a.parquet", key="id")) != selection(config(path="a.parquet"))


def sample(**fields: Value) -> Sample:
    return Sample("k", 0, fields)


def test_pick_takes_the_first_choice_that_is_there() -> None:
    source = config(path="a.tar", fields={"text": "txt;caption", "label": "cls"})
    assert pick(source, sample(png=b"2", jpg=b"1"), "image") == b"1"
    assert pick(source, sample(png=b"2", jpg=None), "image") == b"2"
    assert pick(source, sample(caption="words"), "text") == "words"
    assert pick(source, sample(cls=7), "label") == "7"
    assert pick(source, sample(audio=b"x"), "audio") == b"x"


def test_pick_says_what_is_missing_or_empty() -> None:
    source = config(path="a.tar")
    with pytest.raises(BadSample, match="missing_field: no image: .* its fields are cls, txt") as caught:
        pick(source, sample(txt=b"1", cls=b"2"), "image")
    assert caught.value.reason == "missing_field"
    with pytest.raises(BadSample) as caught:
        pick(source, sample(jpg=b""), "image")
    assert caught.value.reason == "empty_field"


def test_where_filters_samples() -> None:
    source = config(path="a.tar", where=[{"field": "cls", "lt": 5}])
    assert source.where_admits(sample(cls=b"4"))
    assert not source.where_admits(sample(cls=b"5"))


def test_every_kind_opens(tmp_path: Path) -> None:
    write(tmp_path, [("a.tar", make_tar([("1.jpg", b"x")], tarfile.GNU_FORMAT)), ("photos/1.jpg", b"x")])
    columns = {"image": [b"x"], "json": ['{"w": 3}'], "a.b": [1], "old": ["cat"], "more": [b"y"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for path, key in (("a.tar", "1"), ("photos", "1.jpg"), ("a.parquet", "2d711642b726b04401627ca9fbac32f5-0")):
        source = config(path=str(tmp_path / path))
        [got] = read_all(open_source(source))
        assert (got.key, pick(source, got, "image")) == (key, b"x")


def test_a_need_may_be_met_by_a_member_of_json() -> None:
    chosen = config(path="a.tar", fields={"old": "txt;json.alt.text", "width": "json.width", "json.raw": "json.raw"})

    def of(need: str, **fields: Value) -> bytes | str | None:
        return has(chosen, Sample("k", 0, fields), need)

    told = b'{"alt": {"text": "a cat"}, "width": 60, "none": null}'
    assert of("old", json=told) == "a cat"
    assert of("old", json=told, txt=b"first") == b"first"
    assert of("width", json=told) == "60"
    assert of("old", json=b'{"alt": {"text": null}}') is None
    assert of("old", json=b'{"alt": {"text": ["a", "list"]}}') is None
    assert of("old") is None
    assert of("json.raw", **{"json.raw": b"a field of that name", "json": told}) == b"a field of that name"
    with pytest.raises(BadSample, match="field 'json', which the recipe reads, is not JSON"):
        of("old", json=b"{")


def test_parquet_reads_the_columns_that_where_and_previews_need(tmp_path: Path) -> None:
    columns = {"image": [b"x"], "json": ['{"w": 3}'], "a.b": [1], "old": ["cat"], "more": [b"y"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    conditions = [{"field": "json.w", "eq": 3}, {"field": "a.b", "eq": 1}]
    source = config(path=str(tmp_path / "a.parquet"), where=conditions, old_label="old")
    [got] = read_all(open_source(source))
    assert got.fields == {"image": b"x", "json": '{"w": 3}', "a.b": 1, "old": "cat"}
    assert source.where_admits(got)


def test_buckets_are_passed_on() -> None:
    source = open_source(config(path="photos", buckets=3))
    assert isinstance(source, FolderSource)
    assert source.buckets == 3
