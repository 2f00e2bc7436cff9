"""Label shards: bytes that depend on rows and schema alone, readable without this package, never silently damaged."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_tables import contract_of, random_labels, table_of

from relabel.errors import Refused, StoreCorrupt, UsageError
from relabel.labels.contract import Column, LabelContract
from relabel.labels.shard_file import (
    contracts_of,
    decode_label_shard,
    encode_label_shard,
    header,
    label_columns,
    label_schema,
    label_table,
    rows_per_group,
)

ROWS = ["ok", "dead", "ok", "filtered", "ok"] * 130


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shard") / "shard.parquet"
    path.write_bytes(encode_label_shard(table_of(ROWS)))
    return path


def test_five_lines_of_plain_pyarrow_read_a_label(shard: Path) -> None:
    column = pq.read_table(shard, columns=["label_map_ids"])["label_map_ids"]
    declared = json.loads(pq.read_schema(shard).field("label_map_ids").metadata[b"relabel"])["column"]
    cells = column.combine_chunks().buffers()[1]
    ids = np.frombuffer(cells, declared["dtype"]).reshape(-1, *declared["shape"])
    assert declared["axes"] == ["y", "x", "k"]

    ok = [index for index, status in enumerate(ROWS) if status == "ok"]
    assert np.array_equal(ids[ok], random_labels(contract_of(), len(ok))["label_map_ids"])


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 10))
def test_chunks_do_not_show_in_the_bytes(cuts: list[int], offset: int) -> None:
    table = table_of(["ok", "dead", "ok", "ok"] * 10)
    expected = encode_label_shard(table)
    borders = [0, *sorted(cuts), 40]
    pieces = [table.slice(start, end - start) for start, end in itertools.pairwise(borders)]
    assert encode_label_shard(pa.concat_tables(pieces)) == expected
    padded = pa.concat_tables([table.slice(0, offset), table]).combine_chunks().slice(offset)
    assert encode_label_shard(padded) == expected


def test_what_lies_under_a_null_does_not_show() -> None:
    table = table_of(["ok", "dead"])
    index = table.schema.get_field_index("label_map_residual")
    array = table.column(index).chunk(0)
    soiled = np.frombuffer(array.buffers()[1], np.uint8).copy()
    soiled[len(soiled) // 2 :] = 77
    dirty = pa.Array.from_buffers(array.type, 2, [array.buffers()[0], pa.py_buffer(soiled)])
    assert encode_label_shard(table.set_column(index, table.schema.field(index), dirty)) == encode_label_shard(table)


def test_reading_and_writing_again_gives_the_same_bytes(shard: Path) -> None:
    assert encode_label_shard(decode_label_shard(shard)) == shard.read_bytes()


def test_row_groups_are_cut_by_row_index(shard: Path) -> None:
    metadata = pq.ParquetFile(shard).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [256, 256, 138]
    assert rows_per_group(table_of(["ok"]).schema) == 256
    wide = label_schema([contract_of(grid=(256, 256), top_k=5)], {"label_map": "f" * 64})
    assert rows_per_group(wide) == 16 * 2**20 // (256 * 256 * 22 + 8 + 16)


def test_columns_are_stored_as_promised(shard: Path) -> None:
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert [name for name, column in columns.items() if column.is_stats_set] == ["key"]
    assert {name for name, column in columns.items() if column.has_dictionary_page} == {"status", "reason"}


def test_the_file_carries_contract_and_fingerprint(shard: Path) -> None:
    schema = pq.read_schema(shard)
    assert contracts_of(schema) == {"label_map": contract_of()}
    assert header(schema) == {"format": 2, "fingerprints": {"label_map": "f" * 64}}


def test_duckdb_and_polars_open_it(shard: Path) -> None:
    query = f"select status, count(*), max(octet_length(label_map_scores)) from '{shard}' group by 1 order by 1"
    assert duckdb.connect().execute(query).fetchall() == [
        ("dead", 130, None),
        ("filtered", 130, None),
        ("ok", 390, 120),
    ]
    frame = pl.read_parquet(shard, columns=["key", "label_map_residual"])
    assert frame["label_map_residual"].null_count() == 260
    assert len(frame["label_map_residual"][0]) == 24


def test_damage_to_a_page_is_found(shard: Path) -> None:
    data = shard.read_bytes()
    chunk = pq.ParquetFile(shard).metadata.row_group(1).column(4)
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    damaged = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
    for bad in (damaged, data[:-9], b"", data[: len(data) // 2]):
        with pytest.raises(StoreCorrupt, match="does not read as"):
            decode_label_shard(bad)
    assert decode_label_shard(damaged, columns=["key"]).num_rows == len(ROWS)


def test_other_files_are_refused() -> None:
    with pytest.raises(Refused, match="not a label shard"):
        header(pa.schema([("key", pa.string())]))
    newer = pa.schema([], metadata={b"relabel": b'{"format":3,"fingerprints":{}}'})
    with pytest.raises(Refused, match="format 3, known up to 2"):
        header(newer)


def test_labels_need_names_of_their_own() -> None:
    contract = contract_of()
    with pytest.raises(UsageError, match="unique columns"):
        label_schema([contract, contract], {"label_map": "f" * 64})
    with pytest.raises(UsageError, match="one fingerprint each"):
        label_schema([contract], {})


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:-1],
        lambda values: values.astype(np.float32),
        lambda values: values[:, :, :-1],
        lambda values: values.swapaxes(1, 2),
    ],
)
def test_an_array_that_breaks_its_contract_is_refused(change: Callable[[np.ndarray], np.ndarray]) -> None:
    contract = contract_of()
    labels = random_labels(contract, 2)
    labels["label_map_scores"] = change(labels["label_map_scores"])
    with pytest.raises(Refused, match=r"'label_map_scores' must be <f2 \[2, 3, 4, 5\]"):
        label_columns(contract, labels, 2)
    with pytest.raises(Refused, match="breaks its contract"):
        label_table(label_schema([contract], {"label_map": ""}), ["a", "b"], [None] * 2, ["ok"] * 2, [None] * 2, labels)


def test_missing_columns_are_named() -> None:
    contract = contract_of()
    labels = random_labels(contract, 1)
    del labels["label_map_width"]
    with pytest.raises(Refused, match="label_map_width"):
        label_columns(contract, labels, 1)
    with pytest.raises(Refused, match="'label_map_width' is missing"):
        label_table(label_schema([contract], {"label_map": ""}), ["a"], [None], ["ok"], [None], labels)


def test_text_and_flags_lie_beside_dense_columns() -> None:
    columns = (
        Column(name="caption_text", dtype="string"),
        Column(name="caption_done", dtype="|b1"),
        Column(name="caption_logprob", dtype="<f4"),
    )
    contract = LabelContract(name="caption", kind="caption", columns=columns)
    schema = label_schema([contract], {"caption": "e" * 64})
    labels = {
        "caption_text": ["a dog", "zwölf Boxkämpfer"],
        "caption_done": np.array([True, False]),
        "caption_logprob": np.array([-1.5, -0.25], np.float32),
    }
    table = label_table(schema, ["a", "b", "c"], [None] * 3, ["ok", "dead", "ok"], [None, "bad_output", None], labels)
    read = pq.read_table(io.BytesIO(encode_label_shard(table))).to_pydict()
    assert read["caption_text"] == ["a dog", None, "zwölf Boxkämpfer"]
    assert read["caption_done"] == [True, None, False]
    assert read["caption_logprob"] == [-1.5, None, -0.25]
    assert read["sample_digest"] == [None, None, None]


def test_a_shard_without_labels_is_a_shard() -> None:
    for statuses in ([], ["dead", "filtered"]):
        table = decode_label_shard(encode_label_shard(table_of(statuses)))
        assert table["status"].to_pylist() == statuses
        assert contracts_of(table.schema) == {"label_map": contract_of()}
