"""Exports are read back by what does not know relabel: webdataset, tarfile, datasets, deltalake, polars, duckdb."""

import gc
import importlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_releases import CONTRACTS, Planted

from relabel.labels.contract import Column

Export = Callable[..., Path]
COLUMNS = {column.name: column for contract in CONTRACTS for column in contract.columns}


wds: Any = importlib.import_module("webdataset")


def rows_of(query: str) -> list[dict[str, Any]]:
    """As DuckDB answers."""
    found = duckdb.sql(query)
    assert found is not None
    return found.to_arrow_table().to_pylist()


def array_of(column: Column, cell: bytes, row: Mapping[str, Any]) -> np.ndarray:
    """As the readme of an export says that a column of bytes is read."""
    if column.varying is not None:
        return np.frombuffer(cell, column.varying.dtype).reshape([row[name] for name in column.varying.lengths])
    return np.frombuffer(cell, column.dtype).reshape(column.shape)


def same(found: Mapping[str, Any], expected: Mapping[str, Any], lists: bool = False) -> None:
    """Every column of a row has the planted value."""
    for name, column in COLUMNS.items():
        value, wanted = found[name], expected[name]
        if column.shape or column.varying:
            array = np.array(value, wanted.dtype) if lists else array_of(column, value, found)
            np.testing.assert_array_equal(array, wanted, err_msg=name, strict=True)
        elif isinstance(wanted, list | str):
            assert list(value) == list(wanted), name
        else:
            assert np.asarray(value, wanted.dtype) == wanted, name


def check_rows(rows: list[dict[str, Any]], planted: Planted, lists: bool = False) -> None:
    """All labelled samples, no other, each once, with their values."""
    assert sorted((row["shard"], row["key"]) for row in rows) == sorted(planted.rows)
    for row in rows:
        same(row, planted.rows[row["shard"], row["key"]], lists)


def check_sample(sample: Mapping[str, Any], planted: Planted, shard: str) -> None:
    """A decoded sample of a tar."""
    expected, told = planted.rows[shard, sample["labels.json"]["key"]], sample["labels.json"]
    for name, column in COLUMNS.items():
        if column.shape or column.varying:
            np.testing.assert_array_equal(sample[f"{name}.npy"], expected[name], err_msg=name, strict=True)
    assert sample["caption_short_text.txt"] == expected["caption_short_text"]
    plain = {name: expected[name] for name in told if name not in ("key", "sample_digest")}
    assert len(plain) == 2 + 4 + 7 + 1
    for name, value in plain.items():
        assert told[name] == (value.item() if isinstance(value, np.generic) else value), name


@pytest.mark.filterwarnings(
    "ignore:.*unclosed file:ResourceWarning", "ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_webdataset(planted: Planted, export: Export) -> None:
    out = export("webdataset")
    tars = sorted(out.glob("*.tar"))
    assert [tar.name for tar in tars] == sorted(path.name for path in planted.source.iterdir())
    seen = []
    for sample in wds.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode():
        shard = Path(sample["__url__"]).name
        assert sample["__key__"] == sample["labels.json"]["key"]
        check_sample(sample, planted, shard)
        assert sample["jpg"] == planted.photos[shard, sample["__key__"]]
        assert isinstance(sample["cls"], int)
        seen.append((shard, sample["__key__"]))
    gc.collect()  # webdataset leaves its files open
    assert seen == sorted(planted.rows)


def test_tarfile(planted: Planted, export: Export) -> None:
    out = export("webdataset", "--include", "labels")
    samples: dict[tuple[str, str], dict[str, Any]] = {}
    for tar in sorted(out.glob("*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.mode, member.uname) == (0, 0, 0, 0o644, "")
                key, _, name = member.name.partition(".")
                file = archive.extractfile(member)
                assert file is not None
                samples.setdefault((tar.name, key), {})[name] = decoded(name, file.read())
    assert sorted(samples) == sorted(planted.rows)
    for (shard, _), sample in samples.items():
        assert "jpg" not in sample
        check_sample(sample, planted, shard)


def decoded(name: str, data: bytes) -> Any:
    if name.endswith(".npy"):
        return np.load(io.BytesIO(data), allow_pickle=False)
    return json.loads(data) if name.endswith(".json") else data.decode()


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    import datasets

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return lambda path: datasets.load_dataset(str(path), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("arrays", ["bytes", "lists"])
def test_hugging_face(planted: Planted, export: Export, load_dataset: Callable[..., Any], arrays: str) -> None:
    out = export("hf", "--arrays", arrays)
    check_rows(load_dataset(out).to_list(), planted, arrays == "lists")
    head = (out / "README.md").read_text().split("---")[1]
    assert 'license: "unknown"' in head
    assert "data/**/*.parquet" in head


def test_hugging_face_with_images(planted: Planted, export: Export, load_dataset: Callable[..., Any]) -> None:
    found = load_dataset(export("hf", "--include", "media,quality"))
    assert found.column_names == ["key", "shard", "sample_digest", "image", "old_label", "quality_value"]
    for row in found:
        data = planted.photos[row["shard"], row["key"]]
        assert isinstance(row["image"], Image.Image)
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(data))))
        assert row["old_label"].isdecimal()
    raw = pq.read_table(export("hf", "--include", "media,quality") / "data" / "photos-001.parquet").to_pylist()
    assert [row["image"]["bytes"] for row in raw] == [planted.photos[row["shard"], row["key"]] for row in raw]


@pytest.mark.parametrize("arrays", ["bytes", "lists"])
def test_delta(planted: Planted, export: Export, arrays: str) -> None:
    out = export("delta", "--arrays", arrays)
    table = deltalake.DeltaTable(str(out))
    check_rows(table.to_pyarrow_table().to_pylist(), planted, arrays == "lists")
    check_rows(pl.read_delta(str(out)).to_dicts(), planted, arrays == "lists")
    stats = pa.table(table.get_add_actions(flatten=True))
    assert sum(stats["num_records"].to_pylist()) == len(planted.rows)
    assert table.version() == 0
    assert str(planted.release.content_digest) in table.metadata().description


def test_parquet_by_duckdb_and_polars(planted: Planted, export: Export) -> None:
    out = export("hf", "--arrays", "lists")
    glob = f"{out}/data/*.parquet"
    check_rows(rows_of(f"select * from '{glob}'"), planted, lists=True)
    check_rows(pl.read_parquet(glob).to_dicts(), planted, lists=True)
    best = rows_of(f"select key from '{glob}' where label_map_scores[1][1][1] > label_map_scores[1][1][2]")
    assert len(best) == len(planted.rows)


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_json_lines(planted: Planted, export: Export, gzip: bool) -> None:
    out = export("jsonl", *(["--gzip"] if gzip else []))
    files = f"{out}/photos-*.jsonl{'.gz' if gzip else ''}"
    check_rows(rows_of(f"select * from read_json('{files}', format = 'newline_delimited')"), planted, lists=True)
    if not gzip:
        lines = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
        check_rows(lines, planted, lists=True)


def test_json_lines_with_media(planted: Planted, export: Export) -> None:
    import base64

    [line, *_] = (export("jsonl", "--include", "media") / "photos-001.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert base64.b64decode(row["media"]["image"]) == planted.photos["photos-001.tar", row["key"]]
    assert os.fspath(row["media"]["old_label"]).isdecimal()
