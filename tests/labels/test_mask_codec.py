"""Masks in label shards: written and read back whole, by anything that reads Parquet, and every fault is found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_tables import GEOMETRY, contract_of

from relabel.digests import sample_digest
from relabel.errors import Refused, UsageError
from relabel.labels.contract import Classes, LabelContract
from relabel.labels.mask import check_column, decode_column, decode_row, mask_contract
from relabel.labels.shard_file import contracts_of, decode_label_shard, encode_label_shard, label_schema, label_table

SIZES = [(3, 4), (1, 7), (5, 2), (40, 60)]
STATUSES = ["ok", "dead", "ok", "filtered", "ok", "ok"]


def mask_contract_of(num_classes: int = 5, least: float = 0.0) -> LabelContract:
    return mask_contract("mask", Classes(digest="c" * 64, count=num_classes), GEOMETRY, least)


def random_mask(contract: LabelContract, height: int, width: int, seed: int) -> dict[str, Any]:
    """One row's columns by suffix, a fifth of its pixels ignored."""
    assert contract.classes is not None
    random = np.random.default_rng(seed)
    varying = contract.column("map").varying
    assert varying is not None
    ids = random.integers(0, contract.classes.count, (height, width)).astype(varying.dtype)
    ids[random.random((height, width)) < 0.2] = contract.ignore_index
    present = [index for index in np.unique(ids).tolist() if index != contract.ignore_index]
    confidence = random.uniform(0.5, 1, len(present)).astype(np.float32).tolist()
    return {"map": ids.tobytes(), "height": height, "width": width, "classes": present, "confidence": confidence}


def mask_table(contract: LabelContract, changes: Mapping[str, Any] | None = None) -> pa.Table:
    """Rows of STATUSES; `changes` are made to the columns of the last mask."""
    masks = [random_mask(contract, *size, seed) for seed, size in enumerate(SIZES)]
    masks[-1] |= changes or {}
    labels = {column.name: [mask[column.name.removeprefix("mask_")] for mask in masks] for column in contract.columns}
    for side in ("height", "width"):
        labels[f"mask_{side}"] = np.array(labels[f"mask_{side}"], np.int32)  # type: ignore[assignment]
    keys = [f"photo/{row}" for row in range(len(STATUSES))]
    reasons = [None if status == "ok" else "where" for status in STATUSES]
    schema = label_schema([contract], {"mask": "f" * 64})
    return label_table(schema, keys, [sample_digest(key.encode()) for key in keys], STATUSES, reasons, labels)


@pytest.mark.parametrize(("num_classes", "dtype", "ignore"), [(5, "|u1", 255), (255, "|u1", 255), (256, "<u2", 65535)])
def test_masks_come_back(num_classes: int, dtype: str, ignore: int) -> None:
    contract = mask_contract_of(num_classes)
    table = decode_label_shard(encode_label_shard(mask_table(contract)))
    assert contracts_of(table.schema) == {"mask": contract}
    assert check_column(contract, table) == []
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    for seed, (size, row) in enumerate(zip(SIZES, rows, strict=True)):
        mask, written = decode_row(contract, row), random_mask(contract, *size, seed)
        assert (mask.map.dtype.str, mask.map.shape, mask.ignore_index) == (dtype, size, ignore)
        assert mask.map.tobytes() == written["map"]
        assert mask.classes.tolist() == written["classes"]
        assert mask.confidence.tolist() == written["confidence"]
        assert mask.shares().sum() == pytest.approx((mask.map != ignore).mean())
    decoded = list(decode_column(contract, table))
    assert [mask is not None for mask in decoded] == [status == "ok" for status in STATUSES]
    assert [mask.map.shape for mask in decoded if mask is not None] == SIZES


def test_plain_tools_read_masks(tmp_path: Path) -> None:
    contract = mask_contract_of()
    path = tmp_path / "masks.parquet"
    path.write_bytes(encode_label_shard(mask_table(contract)))
    row = pq.read_table(path).slice(5, 1).to_pylist()[0]
    ids = np.frombuffer(row["mask_map"], np.uint8).reshape(row["mask_height"], row["mask_width"])
    assert ids.tobytes() == random_mask(contract, *SIZES[-1], 3)["map"]
    query = f"SELECT key FROM '{path}' WHERE list_contains(mask_classes, 4) ORDER BY key"
    found = duckdb.connect().execute(query).fetchall()
    holding = [row["key"] for row in pq.read_table(path).to_pylist() if 4 in (row["mask_classes"] or [])]
    assert [key for (key,) in found] == holding
    assert 0 < len(holding) < len(STATUSES)


def test_the_largest_classes_come_first() -> None:
    contract = mask_contract_of(3)
    ids = np.array([[0, 0, 2, 2], [255, 0, 2, 2]], np.uint8)
    row = {"mask_map": ids.tobytes(), "mask_height": 2, "mask_width": 4, "mask_classes": [0, 2]}
    mask = decode_row(contract, {**row, "mask_confidence": [0.5, 0.75]})
    assert mask.top(5) == [(2, 0.5), (0, 0.375)]


def test_bytes_do_not_depend_on_chunks_and_groups_stay_small() -> None:
    contract = mask_contract_of()
    table = mask_table(contract)
    many = pa.concat_tables([table] * 20)
    assert len(many["key"].chunks) > 1
    data = encode_label_shard(many)
    assert data == encode_label_shard(many.combine_chunks())
    file = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert [file.row_group(group).num_rows for group in range(file.num_row_groups)] == [63, 57]


def test_parts_that_were_written_and_joined_give_the_same_bytes() -> None:
    """As a resumed run joins them."""
    table = mask_table(mask_contract_of())
    parts = [decode_label_shard(encode_label_shard(table.slice(row, 2))) for row in range(0, len(table), 2)]
    assert parts[0].schema.equals(table.schema, check_metadata=True)
    assert encode_label_shard(pa.concat_tables(parts)) == encode_label_shard(table)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"map": b"\x00" * 2399}, "height x width elements"),
        ({"height": 0}, "height x width elements"),
        ({"map": b"\x07" * 2400, "classes": [7], "confidence": [0.9]}, "below 5 or be 255"),
        ({"map": b"\x00" * 2400}, "classes must be the ids that occur"),
        ({"classes": [4, 3, 2, 1, 0]}, "classes must be the ids that occur"),
        ({"confidence": [0.9]}, "one number per class"),
        ({"confidence": [0.9, 0.9, 0.9, 0.9, 1.5]}, "between 0.5 and 1"),
        ({"confidence": [0.9, 0.9, 0.9, 0.9, float("nan")]}, "between 0.5 and 1"),
        ({"confidence": [0.4, 0.9, 0.9, 0.9, 0.9]}, "between 0.5 and 1"),
    ],
)
def test_faults_are_found(changes: dict[str, Any], fault: str) -> None:
    contract = mask_contract_of(least=0.5)
    found = check_column(contract, mask_table(contract, changes))
    assert any(fault in line and "1 of 6 rows, first in row 5 (key 'photo/5')" in line for line in found), found


def test_torn_rows_are_found() -> None:
    contract = mask_contract_of()
    table = mask_table(contract)
    position = table.column_names.index("mask_classes")
    cells = table["mask_classes"].to_pylist()
    torn = table.set_column(position, table.schema.field(position), pa.array([None, *cells[1:]], pa.list_(pa.uint8())))
    (line,) = check_column(contract, torn)
    assert "all columns where its status is ok" in line


def test_a_mask_of_nothing_but_ignored_pixels_is_a_mask() -> None:
    contract = mask_contract_of()
    table = mask_table(contract, {"map": b"\xff" * 2400, "classes": [], "confidence": []})
    assert check_column(contract, decode_label_shard(encode_label_shard(table))) == []
    mask = decode_row(contract, table.to_pylist()[-1])
    assert mask.top(3) == []


def test_what_is_no_mask_is_refused() -> None:
    contract = mask_contract_of()
    row = mask_table(contract).to_pylist()
    with pytest.raises(UsageError, match="its status is 'dead'"):
        decode_row(contract, row[1])
    with pytest.raises(Refused, match="must be 4 x 4 .u1"):
        decode_row(contract, {**row[0], "mask_height": 4})
    with pytest.raises(Refused, match="of kind 'label_map', expected mask"):
        next(decode_column(contract_of(), mask_table(contract)))
    with pytest.raises(UsageError, match="at most 65535 classes, got 65536"):
        mask_contract_of(65536)
