"""Label shards: the Parquet file that holds the labels of one source shard.

Same rows, same order, one row per source sample. The bytes are a function of the rows and the schema alone: no time,
no run, no chunking shows in them. Dense columns are `fixed_size_binary`; what they mean is in their field metadata,
so that plain pyarrow can read them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Shaped, UInt8

from ..digests import SAMPLE_DIGEST_BYTES, Json, canonical_json
from ..errors import Refused, StoreCorrupt, UsageError
from ..reasons import Status
from .contract import FORMAT_KEY, Column, LabelContract
from .layout import arranged, restored

FORMAT = 2
"""1: dense columns as they are, without layouts; still read."""
ROWS_PER_GROUP = 256
GROUP_BYTES = 16 * 2**20
VARYING_BYTES = 2**18
"""What a column of arrays of any size counts for in `rows_per_group`: a 512 x 512 mask."""
ROW_FIELDS = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("sample_digest", pa.binary(SAMPLE_DIGEST_BYTES)),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
)


def label_schema(contracts: Sequence[LabelContract], fingerprints: Mapping[str, str]) -> pa.Schema:
    """Row columns, then every label's columns; each label column carries its contract, the schema the fingerprints."""
    names = [contract.name for contract in contracts]
    columns = [column.name for contract in contracts for column in contract.columns]
    if set(names) != set(fingerprints) or len(set(columns)) < len(columns):
        raise UsageError(
            f"labels must have unique columns and one fingerprint each, got labels {names} with columns {columns} "
            f"and fingerprints of {sorted(fingerprints)}. Give every step its own label name."
        )
    fields = [_label_field(contract, column) for contract in contracts for column in contract.columns]
    header = {"format": FORMAT, "fingerprints": dict(fingerprints)}
    return pa.schema([*ROW_FIELDS, *fields], metadata={FORMAT_KEY: canonical_json(header)})


def _label_field(contract: LabelContract, column: Column) -> pa.Field:
    declaration = {
        "label": contract.name,
        "column": column.model_dump(mode="json"),
        "contract": contract.model_dump(mode="json"),
    }
    return pa.field(column.name, column.arrow_type(), metadata={FORMAT_KEY: canonical_json(declaration)})


def _declaration(field: pa.Field) -> dict[str, Json] | None:
    text = (field.metadata or {}).get(FORMAT_KEY)
    return None if text is None else dict(json.loads(text))


def header(schema: pa.Schema) -> dict[str, Json]:
    """`format` and `fingerprints` of a label shard; raises Refused where it is none, or of a newer format."""
    text = (schema.metadata or {}).get(FORMAT_KEY)
    if text is None:
        raise Refused("this Parquet file is not a label shard: its schema metadata has no `relabel` entry.")
    fields = dict(json.loads(text))
    if fields["format"] > FORMAT:
        raise Refused(f"this label shard has format {fields['format']}, known up to {FORMAT}. Upgrade relabel.")
    return fields


def contracts_of(schema: pa.Schema) -> dict[str, LabelContract]:
    """Every label's contract by name, as the file declares it, in column order."""
    declared = [declaration for field in schema if (declaration := _declaration(field)) is not None]
    return {entry["label"]: LabelContract.model_validate(entry["contract"]) for entry in declared}


def label_table(
    schema: pa.Schema,
    keys: Sequence[str],
    sample_digests: Sequence[bytes | None],
    statuses: Sequence[str],
    reasons: Sequence[str | None],
    labels: Mapping[str, np.ndarray | Sequence[Any]],
) -> pa.Table:
    """One row per key; `labels` holds, by column name, the entries of the rows whose status is ok, in order.

    Rows that are not ok are null in every label column. Raises Refused where a column breaks its contract.
    """
    ok = np.fromiter((status == Status.OK for status in statuses), dtype=np.bool_, count=len(statuses))
    rows = [keys, sample_digests, statuses, reasons]
    columns = [pa.array(values, field.type) for values, field in zip(rows, ROW_FIELDS, strict=True)]
    for field in list(schema)[len(ROW_FIELDS) :]:
        declaration = _declaration(field)
        assert declaration is not None, field
        if field.name not in labels:
            raise Refused(f"the label column {field.name!r} is missing; the labeler gave {sorted(labels)}.")
        columns.append(_label_array(Column.model_validate(declaration["column"]), ok, labels[field.name]))
    return pa.Table.from_arrays(columns, schema=schema)


def label_columns(contract: LabelContract, labels: Mapping[str, np.ndarray | Sequence[Any]], rows: int) -> pa.Table:
    """A labeler's output for `rows` samples as a table of its label's columns.

    Raises Refused where a column is missing or breaks the contract.
    """
    check_columns(contract, labels)
    ok = np.ones(rows, np.bool_)
    arrays = [_label_array(column, ok, labels[column.name]) for column in contract.columns]
    return pa.table(dict(zip([column.name for column in contract.columns], arrays, strict=True)))


def check_columns(contract: LabelContract, labels: object) -> None:
    """Raises Refused where a labeler's output is not the columns of its label."""
    wanted = [column.name for column in contract.columns]
    if not isinstance(labels, Mapping) or set(labels) != set(wanted):
        got = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else type(labels).__name__
        raise Refused(
            f"the labeler must give the columns {', '.join(wanted)} of the label {contract.name!r}, got {got}. "
            "`return self.columns(...)` names them."
        )


def column_values(table: pa.Table, column: Column) -> np.ndarray | list[Any]:
    """A label column without nulls, as `label_table` takes it: without a copy where it is dense."""
    if not column.loose:
        return dense(table, column)
    values: list[Any] = table.column(column.name).to_pylist()
    # Of no rows an array would be one of numbers.
    return np.array(values, np.bool_) if column.dtype == "|b1" else values


def _label_array(column: Column, ok: Bool[np.ndarray, " rows"], values: np.ndarray | Sequence[Any]) -> pa.Array:
    if column.loose and column.dtype != "|b1":
        return _text_array(column, ok, values)
    stacked = np.asarray(values)
    expected = (int(ok.sum()), *column.shape)
    if stacked.dtype != np.dtype(column.dtype) or stacked.shape != expected:
        raise Refused(
            f"label column {column.name!r} must be {column.dtype} {list(expected)} by its contract, "
            f"got {stacked.dtype.str} {list(stacked.shape)}; the labeler breaks its contract. `self.columns(...)` "
            "converts dtypes; a shape is the rows of the batch, then the column's own."
        )
    return _text_array(column, ok, stacked.tolist()) if column.loose else _dense_array(column, ok, stacked)


def _text_array(column: Column, ok: Bool[np.ndarray, " rows"], values: np.ndarray | Sequence[Any]) -> pa.Array:
    if len(values) != ok.sum():
        raise Refused(f"label column {column.name!r} must have {ok.sum()} entries, got {len(values)}.")
    entries = iter(values)
    return pa.array([next(entries) if present else None for present in ok], column.arrow_type())


def _dense_array(column: Column, ok: Bool[np.ndarray, " rows"], values: Shaped[np.ndarray, "present ..."]) -> pa.Array:
    """Scatter the ok rows into one zeroed buffer, or take them as they are where all rows are ok."""
    nulls, validity = int((~ok).sum()), None
    entries: Shaped[np.ndarray, "present entries"] = values.reshape(len(values), math.prod(column.shape))
    data: UInt8[np.ndarray, "present bytes"] = np.ascontiguousarray(entries).view(np.uint8)
    if nulls:
        scattered = np.zeros((len(ok), column.size_bytes), np.uint8)
        scattered[ok] = data
        data = scattered
        validity = pa.py_buffer(np.packbits(ok, bitorder="little"))
    return pa.Array.from_buffers(column.arrow_type(), len(ok), [validity, pa.py_buffer(data)], nulls)


def rows_per_group(schema: pa.Schema) -> int:
    """256, or as many as make 16 MiB of fixed-width columns: a function of the schema, never of the data."""
    width: int = sum(field.type.bit_width // 8 for field in schema if pa.types.is_primitive(field.type)) + sum(
        field.type.byte_width for field in schema if pa.types.is_fixed_size_binary(field.type)
    )
    width += VARYING_BYTES * sum(holds_arrays(field) for field in schema)
    return max(1, min(ROWS_PER_GROUP, GROUP_BYTES // width))


def holds_arrays(field: pa.Field) -> bool:
    """Of any size, in bytes."""
    return bool(pa.types.is_large_binary(field.type))


def encode_label_shard(table: pa.Table) -> bytes:
    """Parquet: zstd 3, page checksums, row groups cut by row index only; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    words = [field.name for field in table.schema if field.type == pa.string() and field.name != "key"]
    columns: dict[str, Any] = {"use_dictionary": words, "write_statistics": ["key"]}
    pq.write_table(
        arranged(table.combine_chunks()),
        sink,
        row_group_size=rows_per_group(table.schema),
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
        # Parquet looks at a page's size only so often: large arrays would make pages beyond what it can count.
        write_batch_size=1 if any(holds_arrays(field) for field in table.schema) else None,
        store_schema=True,
        **columns,
    )
    return bytes(sink.getvalue())


def decode_label_shard(source: bytes | str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a label shard, or some of its columns; page checksums are verified.

    Raises StoreCorrupt where the bytes are not those that were written.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    names = None if columns is None else list(columns)
    try:
        # Not `read_table`, which takes a file for a data set and starts threads even where it is told not to: pyarrow
        # 26 may abort the process at exit while they live.
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read(columns=names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        what = "a label shard" if isinstance(source, bytes) else str(source)
        raise StoreCorrupt(f"{what} does not read as the Parquet file that was written: {error}") from error
    return restored(table)


def dense(table: pa.Table, column: Column) -> Shaped[np.ndarray, "rows ..."]:
    """A dense column as [rows, *shape], without a copy where the table has one chunk; null rows are unspecified."""
    chunks = table.column(column.name).chunks
    array = chunks[0] if len(chunks) == 1 else table.column(column.name).combine_chunks()
    width, values = column.size_bytes, array.buffers()[1]
    if len(array) == 0:
        return np.zeros((0, *column.shape), column.dtype)
    flat = np.frombuffer(values, np.uint8, count=len(array) * width, offset=array.offset * width)
    return flat.view(column.dtype).reshape(len(array), *column.shape)
