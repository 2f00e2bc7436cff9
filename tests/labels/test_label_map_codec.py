"""Label maps: what is encoded comes back, exactly where exact, within float16 elsewhere."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_tables import contract_of, random_labels, table_of

from relabel.errors import Refused, UsageError
from relabel.labels.contract import LabelContract
from relabel.labels.label_map import (
    LabelMap,
    check_column,
    decode_column,
    decode_row,
    encode,
    id_dtype,
)
from relabel.labels.shard_file import decode_label_shard, encode_label_shard


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    exact = np.exp(logits.astype(np.float64) - logits.max(axis=axis, keepdims=True))
    return exact / exact.sum(axis=axis, keepdims=True)


def maps_of(logits: np.ndarray, top_k: int) -> list[LabelMap]:
    arrays = encode(logits, top_k)
    return [
        LabelMap(**{name: values[row] for name, values in arrays.items()}, height=1, width=1, classes=logits.shape[1])
        for row in range(len(logits))
    ]


logit_maps = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-30, 30, width=16))
)
"""Float16 values: many ties, and scores that survive float16 unchanged."""


@given(logit_maps, st.data())
def test_encode_sorts_and_gives_ties_to_the_lower_id(logits: np.ndarray, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, logits.shape[1]))
    arrays = encode(logits, top_k)
    for row, y, x in np.ndindex(arrays["residual"].shape):
        cell = logits[row, :, y, x]
        expected = sorted(range(len(cell)), key=lambda index: (-cell[index], index))[:top_k]
        assert arrays["ids"][row, y, x].tolist() == expected
        assert (arrays["scores"][row, y, x] == cell[expected].astype(np.float16)).all()


@given(logit_maps, st.data())
def test_residual_is_the_mass_of_the_others(logits: np.ndarray, data: st.DataObject) -> None:
    classes = logits.shape[1]
    top_k = data.draw(st.integers(1, classes))
    arrays = encode(logits, top_k)
    listed = np.moveaxis(logits, 1, -1).astype(np.float64)
    np.put_along_axis(listed, arrays["ids"].astype(np.int64), -np.inf, axis=-1)
    with np.errstate(divide="ignore"):
        exact = np.log(np.exp(listed).sum(axis=-1))
    assert np.allclose(arrays["residual"].astype(np.float64), exact, rtol=2**-10, atol=1e-3)
    assert (arrays["residual"] == -np.inf).all() == (top_k == classes)


@given(logit_maps, st.data())
def test_probabilities_are_the_dense_softmax_where_listed(logits: np.ndarray, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, logits.shape[1]))
    dense = np.moveaxis(softmax(logits, axis=1), 1, -1)
    for exact, label_map in zip(dense, maps_of(logits, top_k), strict=True):
        ours = label_map.probabilities()
        assert np.allclose(ours.sum(axis=-1), 1, atol=1e-5)
        ids = label_map.ids.astype(np.int64)
        listed = np.take_along_axis(ours, ids, axis=-1)
        assert np.allclose(listed, np.take_along_axis(exact, ids, axis=-1), atol=0.02)
        left_out = 1 - listed.sum(axis=-1)
        total_variation = np.abs(ours - exact).sum(axis=-1) / 2
        assert (total_variation <= left_out + 0.02).all()


def test_float16_moves_usual_logits_little() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (4, 1000, 5, 5)).astype(np.float32)
    dense = np.moveaxis(softmax(logits, axis=1), 1, -1)
    for exact, label_map in zip(dense, maps_of(logits, 5), strict=True):
        ids = label_map.ids.astype(np.int64)
        ours = np.take_along_axis(label_map.probabilities(), ids, axis=-1)
        assert np.abs(ours - np.take_along_axis(exact, ids, axis=-1)).max() < 2e-3


@pytest.mark.parametrize(("num_classes", "dtype"), [(2, "<u2"), (21_843, "<u2"), (65_535, "<u2"), (70_000, "<i4")])
def test_large_ids_survive(num_classes: int, dtype: str) -> None:
    logits = np.zeros((1, num_classes, 1, 2), np.float32)
    logits[0, num_classes - 1, 0, 0] = 9
    logits[0, num_classes // 2, 0, 1] = 9
    ids = encode(logits, 1)["ids"]
    assert ids.dtype == id_dtype(num_classes) == dtype
    assert ids[0, 0, :, 0].tolist() == [num_classes - 1, num_classes // 2]


@pytest.mark.parametrize("num_classes", [21_843, 70_000])
def test_large_ids_come_back_from_the_file(num_classes: int) -> None:
    contract = contract_of(num_classes)
    table = decode_label_shard(encode_label_shard(table_of(["ok", "dead"], contract)))
    ids = decode_row(contract, table.to_pylist()[0]).ids
    assert np.array_equal(ids, random_labels(contract, 1)["label_map_ids"][0])
    assert ids.max() > 2048
    assert check_column(contract, table) == []


def test_top_ranks_classes_over_the_whole_map() -> None:
    logits = np.zeros((1, 6, 1, 4), np.float32)
    logits[0, 4, 0, :3] = 12
    logits[0, 2, 0, 3] = 12
    (label_map,) = maps_of(logits, 2)
    (first, first_share), (second, second_share) = label_map.top(2)
    assert (first, second) == (4, 2)
    assert first_share == pytest.approx(0.75, abs=0.01)
    assert second_share == pytest.approx(0.25, abs=0.01)


@given(st.lists(st.sampled_from(["ok", "dead", "filtered"]), min_size=1, max_size=12), st.integers(0, 3))
def test_rows_and_columns_come_back_from_the_file(statuses: list[str], seed: int) -> None:
    contract = contract_of()
    table = decode_label_shard(encode_label_shard(table_of(statuses, contract, seed)))
    labels = random_labels(contract, statuses.count("ok"), seed)
    maps = decode_column(contract, table)
    assert maps.present.tolist() == [status == "ok" for status in statuses]
    assert np.array_equal(maps.ids[maps.present], labels["label_map_ids"])
    assert np.array_equal(maps.residual[maps.present], labels["label_map_residual"])
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    for index, row in enumerate(rows):
        label_map = decode_row(contract, row)
        assert np.array_equal(label_map.scores, labels["label_map_scores"][index])
        assert (label_map.height, label_map.width) == (
            labels["label_map_height"][index],
            labels["label_map_width"][index],
        )


def test_columns_are_views_of_the_table() -> None:
    contract = contract_of()
    table = decode_label_shard(encode_label_shard(table_of(["ok", "dead", "ok"], contract)))
    buffer = table.column("label_map_ids").chunk(0).buffers()[1]
    ids = decode_column(contract, table).ids
    assert ids.__array_interface__["data"][0] == buffer.address
    assert np.array_equal(decode_column(contract, table.slice(2)).ids[0], ids[2])


def test_a_dead_row_has_no_map() -> None:
    contract = contract_of()
    with pytest.raises(UsageError, match="status is 'dead'"):
        decode_row(contract, table_of(["dead"], contract).to_pylist()[0])


def test_another_kind_is_refused() -> None:
    contract = contract_of().model_copy(update={"kind": "mask"})
    with pytest.raises(Refused, match="kind 'mask'"):
        decode_column(contract, table_of(["ok"]))


def test_more_classes_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(UsageError, match="between 1 and the 3 classes, got 5"):
        contract_of(num_classes=3, top_k=5)


def test_sound_columns_pass_the_check() -> None:
    assert check_column(contract_of(), table_of(["ok", "dead", "ok", "filtered"])) == []
    everything = contract_of(num_classes=5, top_k=5)
    assert check_column(everything, table_of(["ok", "ok"], everything)) == []


def replaced(table: pa.Table, contract: LabelContract, suffix: str, values: np.ndarray) -> pa.Table:
    column = contract.column(suffix)
    cells = [value.tobytes() for value in values] if column.shape else values
    index = table.schema.get_field_index(column.name)
    return table.set_column(index, table.schema.field(index), pa.array(cells, column.arrow_type()))


@pytest.mark.parametrize(
    ("suffix", "cell", "value", "fault"),
    [
        ("ids", (1, 0, 0, 0), 50, "ids must lie below 50"),
        ("ids", (1, 2, 1, 3), "copy", "unique within a cell"),
        ("scores", (1, 0, 1, 4), np.nan, "scores must be finite"),
        ("scores", (1, 0, 1, 0), np.inf, "scores must be finite"),
        ("scores", (1, 2, 3, 4), 60_000, "must not increase"),
        ("residual", (1, 0, 0), np.nan, "residual must be finite"),
        ("residual", (1, 0, 0), -np.inf, "residual must be finite"),
        ("height", (1,), 0, "at least 1"),
    ],
)
def test_each_fault_is_found_and_named(suffix: str, cell: tuple[int, ...], value: float | str, fault: str) -> None:
    contract = contract_of()
    table = table_of(["ok", "ok", "ok"], contract)
    values = random_labels(contract, 3)[f"label_map_{suffix}"].copy()
    values[cell] = values[*cell[:-1], cell[-1] - 1] if value == "copy" else value
    (line,) = check_column(contract, replaced(table, contract, suffix, values))
    assert fault in line
    assert "1 of 3 rows, first in row 1 (key 'photo/0001')" in line


def test_a_row_with_half_a_label_is_found() -> None:
    contract = contract_of()
    table = table_of(["ok", "ok"], contract)
    torn = table.set_column(0, "key", table["key"]).drop_columns(["status"])
    status = pa.chunked_array([["ok", "dead"]])
    (line,) = check_column(contract, torn.append_column("status", status))
    assert "all columns where its status is ok" in line
