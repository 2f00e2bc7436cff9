"""Layouts are exact, say what they are, and can be undone by hand."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_tables import contract_of, random_labels, table_of

from relabel.errors import Refused
from relabel.labels.contract import Column
from relabel.labels.layout import arranged, layout_of, restored
from relabel.labels.shard_file import decode_label_shard, encode_label_shard


@given(
    st.lists(st.sampled_from(["ok", "dead", "filtered"]), max_size=7),
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_what_is_arranged_is_restored(statuses: list[str], top_k: int, start: int, seed: int) -> None:
    table = table_of(statuses, contract_of(top_k=top_k), seed).slice(start)
    again = restored(arranged(table))
    assert again.equals(table, check_metadata=True)
    assert restored(table).equals(table, check_metadata=True)


def test_any_bits_survive() -> None:
    table = table_of(["ok"] * 40)
    index = table.schema.get_field_index("label_map_scores")
    noise = np.random.default_rng(7).integers(0, 256, (40, 120), np.uint8)
    array = pa.Array.from_buffers(pa.binary(120), 40, [None, pa.py_buffer(noise)])
    table = table.set_column(index, table.schema.field(index), array)
    assert restored(arranged(table)).equals(table)
    assert decode_label_shard(encode_label_shard(table)).equals(table)


def test_a_few_lines_of_numpy_undo_the_layouts() -> None:
    file = pq.read_table(io.BytesIO(encode_label_shard(table_of(["ok"] * 9))))

    def whole(name: str) -> np.ndarray:
        shape = json.loads(file.schema.field(name).metadata[b"relabel"])["column"]["shape"]
        planes = np.frombuffer(b"".join(file[name].to_pylist()), np.uint8).reshape(-1, 2, *shape)
        return planes[:, 0] | planes[:, 1].astype("<u2") << 8

    expected = random_labels(contract_of(), 9)
    residual = whole("label_map_residual").view("<f2")
    scores = np.subtract.accumulate(whole("label_map_scores"), axis=-1).view("<f2")
    assert np.array_equal(residual, expected["label_map_residual"])
    assert np.array_equal(scores, expected["label_map_scores"])


def test_the_file_names_its_layouts() -> None:
    schema = pq.read_schema(io.BytesIO(encode_label_shard(table_of(["ok"]))))
    declared = {field.name: json.loads(field.metadata[b"relabel"]).get("layout") for field in list(schema)[4:]}
    assert declared == {
        "label_map_ids": None,
        "label_map_scores": "step_planes",
        "label_map_residual": "byte_planes",
        "label_map_height": None,
        "label_map_width": None,
    }


@pytest.mark.parametrize(
    ("dtype", "shape", "axes", "layout"),
    [
        ("<f2", (3, 4, 5), ("y", "x", "k"), "step_planes"),
        ("<f2", (7,), ("k",), "step_planes"),
        ("<f2", (3, 4), ("y", "x"), "byte_planes"),
        ("<f2", (), (), None),
        ("<u2", (3, 4, 5), ("y", "x", "k"), None),
        ("|u1", (3, 4), ("y", "x"), None),
    ],
)
def test_the_contract_decides(dtype: str, shape: tuple[int, ...], axes: tuple[str, ...], layout: str | None) -> None:
    assert layout_of(Column(name="a", dtype=dtype, shape=shape, axes=axes)) == layout


def test_files_without_layouts_are_read() -> None:
    table = table_of(["ok", "dead"])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    assert decode_label_shard(buffer.getvalue()).equals(table)


def test_a_layout_of_a_newer_version_is_refused() -> None:
    table = arranged(table_of(["ok"]))
    field = table.schema.field("label_map_residual")
    newer = {b"relabel": field.metadata[b"relabel"].replace(b"byte_planes", b"word_planes")}
    index = table.schema.get_field_index(field.name)
    table = table.set_column(index, field.with_metadata(newer), table.column(index))
    with pytest.raises(Refused, match="layout 'word_planes', known are"):
        restored(table)
