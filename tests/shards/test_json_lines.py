"""JSON lines: objects as samples, plain or compressed, named by a field or by what they hold; texts of other kinds."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_tar, read_all, write
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from relabel.digests import sample_digest, sha256
from relabel.errors import BadSample, BadShard, UnknownName
from relabel.reasons import Reason
from relabel.shards.json_lines import JsonLinesSource, lines
from relabel.shards.source import SourceConfig, has, open_source, pick
from relabel.storage.filesystems import resolve

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "A cat.", "meta": {"author": {"name": "Ann"}, "tags": ["a", "b"]}, "score": 0.5},
    {"id": 2, "text": "A dog.", "meta": None, "ok": True},
    {"id": 3, "text": "A cat.", "more.name": "beside it"},
]
WIDE = {"path": "a.jsonl", "fields": {"text": "text", "author": "meta.author.name"}}


def encode(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def config(**fields: Any) -> SourceConfig:
    return SourceConfig.model_validate(fields)


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonl.gz", "ndjson.zst", "jsonl.zstd"])
def test_a_line_is_a_sample_whatever_the_compression(tmp_path: Path, suffix: str) -> None:
    data = encode(ROWS)
    packed = {"gz": gzip.compress(data), "zst": pa.compress(data, "zstd", asbytes=True)}
    packed["zstd"] = packed["zst"]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(packed.get(suffix.rpartition(".")[2], data))
    source = pickle.loads(pickle.dumps(open_source(config(path=str(path), key="id"))))
    [shard] = source.shards()
    reading = source.read(shard)
    samples = list(reading)
    assert [(sample.key, sample.row, sample.fields["text"]) for sample in samples] == [
        ("1", 0, "A cat."), ("2", 1, "A dog."), ("3", 2, "A cat.")
    ]  # fmt: skip
    assert samples[0].fields["meta"] == json.dumps(ROWS[0]["meta"])
    assert reading.content_sha256 == sha256(path.read_bytes())


def test_a_row_without_a_key_is_named_by_its_text_and_how_often_it_came(tmp_path: Path) -> None:
    write(tmp_path, [("a.jsonl", encode(ROWS)), ("b.jsonl", encode([{"body": "x"}, {"body": "x"}, {"body": "y"}]))])
    cat, dog = (sample_digest(text.encode()).hex() for text in ("A cat.", "A dog."))
    keys = [sample.key for sample in read_all(JsonLinesSource(str(tmp_path / "a.jsonl")))]
    assert keys == [f"{cat}-0", f"{dog}-0", f"{cat}-1"]
    by_line = [sample.key for sample in read_all(JsonLinesSource(str(tmp_path / "b.jsonl")))]
    assert len(set(by_line)) == 3
    by_body = open_source(config(path=str(tmp_path / "b.jsonl"), fields={"text": "body"}))
    assert next(sample.key for sample in read_all(by_body)) == f"{sample_digest(b'x').hex()}-0"


def test_fields_and_conditions_lead_into_what_is_nested(tmp_path: Path) -> None:
    write(tmp_path, [("a.jsonl", encode(ROWS))])
    path = str(tmp_path / "a.jsonl")
    source = config(path=path, fields=WIDE["fields"], where=[{"field": "meta.author.name", "eq": "Ann"}])
    samples = read_all(open_source(source))
    assert [source.where_admits(sample) for sample in samples] == [True, False, False]
    assert [has(source, sample, "author") for sample in samples] == ["Ann", None, None]
    assert pick(source, samples[1], "text") == "A dog."
    flagged = config(path=path, where=[{"field": "ok", "eq": True}])
    assert [flagged.where_admits(sample) for sample in samples] == [False, True, False]
    assert has(config(path=path, fields={"more": "more.name"}), samples[2], "more") == "beside it"
    nested = JsonLinesSource(path, key="meta.author.name")
    with pytest.raises(BadShard, match="line 2 has no field 'meta.author.name'"):
        read_all(nested)
    deep = [{"meta": {"body": "A cat."}}, {"meta": "no JSON {"}]
    write(tmp_path, [("deep.jsonl", encode(deep))])
    by_body = read_all(JsonLinesSource(str(tmp_path / "deep.jsonl"), text=("meta.body",)))
    assert by_body[0].key == f"{sample_digest(b'A cat.').hex()}-0"
    with pytest.raises(BadShard, match="line 2 has no field 'meta.body'"):
        read_all(JsonLinesSource(str(tmp_path / "deep.jsonl"), key="meta.body"))


def test_half_a_character_costs_its_sample(tmp_path: Path) -> None:
    write(tmp_path, [("a.jsonl", b'{"text": "a\\ud800b"}\n{"text": "good"}\n')])
    source = config(path=str(tmp_path / "a.jsonl"))
    bad, good = read_all(open_source(source))
    assert pick(source, good, "text") == "good"
    with pytest.raises(BadSample, match="not UTF-8"):
        pick(source, bad, "text")


def test_keys_are_text_numbers_and_never_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(encode([{"k": "a"}, {"k": None}, {"k": "b\n"}, {"k": 2.5}]))
    samples = read_all(JsonLinesSource(str(path), key="k"))
    assert [(sample.key, "__bad_key__" in sample.fields) for sample in samples] == [
        ("a", False), ("null-1", True), ("b\n", True), ("2.5", False)
    ]  # fmt: skip
    path.write_bytes(encode([{"k": "a"}, {"k": 7}, {"k": "7"}]))
    with pytest.raises(BadShard, match=r"a\.jsonl: line 3: two rows have the key '7' in field 'k'") as caught:
        read_all(JsonLinesSource(str(path), key="k"))
    assert caught.value.reason == Reason.DUPLICATE_KEYS


def test_blank_lines_and_marks_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}')
    assert [sample.fields["text"] for sample in read_all(JsonLinesSource(str(path)))] == ["a", "b"]
    path.write_bytes(b"")
    assert read_all(JsonLinesSource(str(path))) == []


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=12), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(found: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in found)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    expected = [(number, line) for number, line in enumerate(found, start=1)]
    assert [(number, line) for number, line, _ in lines(chunks)] == expected


def test_what_it_is_follows_from_the_suffix() -> None:
    for path, kind in (
        ("a/*.jsonl", "jsonl"), ("s3://b/{0..9}.ndjson.zst", "jsonl"), ("A.JSONL.GZ", "jsonl"), ("a/*.txt", "texts")
    ):  # fmt: skip
        assert config(path=path).kind == kind
    with pytest.raises(ValidationError, match="add `kind: webdataset`, `parquet`, `images`, `jsonl`, `texts`"):
        config(path="a.csv")
    with pytest.raises(ValidationError, match="a source of kind texts brings its own keys"):
        config(path="a/*.txt", key="id")


def test_an_object_store_gives_the_same(s3_root: str) -> None:
    filesystem, path = resolve(f"{s3_root}/a.jsonl.gz")
    filesystem.pipe_file(path, gzip.compress(encode(ROWS * 50)))
    samples = read_all(JsonLinesSource(f"{s3_root}/*.jsonl.gz"))
    assert len(samples) == 150
    assert samples[149].key.endswith("-99"), "the cat's hundredth time"


def test_every_kind_offers_texts(tmp_path: Path) -> None:
    """Without a word in `fields`."""
    pq.write_table(pa.table({"text": ["A cat.", None], "more": [1, 2]}), tmp_path / "a.parquet")
    write(
        tmp_path,
        [
            ("a.tar", make_tar([("k.txt", b"A cat.")])),
            ("a.jsonl", b'{"text": "A cat."}\n'),
            ("folder/pets/1.txt", b"A cat."),
        ],
    )
    digest = sample_digest(b"A cat.").hex()
    for path, kind, key in (
        ("a.tar", None, "k"), ("a.jsonl", None, f"{digest}-0"), ("a.parquet", None, f"{digest}-0"),
        ("folder", "texts", "pets/1.txt"),
    ):  # fmt: skip
        source = config(path=str(tmp_path / path), **({"kind": kind} if kind else {}))
        first = read_all(open_source(source))[0]
        text = pick(source, first, "text")
        assert (first.key, text if isinstance(text, str) else text.decode()) == (key, "A cat.")


def test_parquet_must_hold_what_the_recipe_speaks_of(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["A cat."], "photo": [b"x"]}), path)
    [sample] = read_all(open_source(config(path=path, fields={"text": "body"})))
    assert sample.key == f"{sample_digest(b'A cat.').hex()}-0"
    for fields in ({}, {"text": "bdoy"}, {"image": "png"}, {"text": "body", "image": "png"}):
        with pytest.raises(UnknownName, match="column"):
            open_source(config(path=path, fields=fields)).shards()
    both = tmp_path / "both.parquet"
    pq.write_table(pa.table({"image": [b"x", None], "text": ["a", "b"]}), both)
    named = [sample.key for sample in read_all(open_source(config(path=str(both))))]
    assert named == [f"{sample_digest(b'x').hex()}-0", f"{sample_digest(b'').hex()}-0"], "images name rows, as ever"
