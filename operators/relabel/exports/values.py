"""Values: label columns as numpy arrays and plain Python values, row by row."""

import base64
import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from ..digests import Json
from ..labels.contract import Column, LabelContract
from ..labels.shard_file import dense


def is_array(column: Column) -> bool:
    """Whether a row's entry is an array, of one shape or of its own."""
    return bool(column.shape) or column.varying is not None


def is_text(contract: LabelContract, column: Column) -> bool:
    """Whether it is what a caption says."""
    return contract.kind == "caption" and column.dtype == "string" and column.name.endswith("_text")


def column_entries(table: pa.Table, column: Column) -> np.ndarray | Sequence[Any]:
    """Of rows that carry labels: arrays where `is_array`, else Python values."""
    if column.shape:
        return dense(table, column)
    if column.varying is None:
        values: list[Any] = table[column.name].to_pylist()
        return values
    varying = column.varying
    shapes = zip(*(table[name].to_pylist() for name in varying.lengths), strict=True)
    cells = table[column.name].combine_chunks()
    return [
        np.frombuffer(cell.as_buffer(), varying.dtype).reshape(shape) for cell, shape in zip(cells, shapes, strict=True)
    ]


def entries(table: pa.Table, labels: Sequence[LabelContract]) -> Mapping[str, np.ndarray | Sequence[Any]]:
    """Column name -> `column_entries`, of every label."""
    return {column.name: column_entries(table, column) for contract in labels for column in contract.columns}


def as_json(value: Any) -> Json:
    """A value that strict JSON can hold: numbers that are none (NaN, infinities) are null, bytes base64."""
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def npy(array: Shaped[np.ndarray, "..."]) -> bytes:
    """The bytes of a .npy file, in C order."""
    return npy_header(array.dtype.str, array.shape) + array.tobytes()


@functools.lru_cache(maxsize=256)
def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Made once per shape: numpy takes longer for it than for the array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()
