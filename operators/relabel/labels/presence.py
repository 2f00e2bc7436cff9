"""Presence: a row has every column of a label where its status is ok, and none elsewhere."""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from .contract import LabelContract


def check_presence(contract: LabelContract, table: pa.Table, present: Bool[np.ndarray, " rows"]) -> list[str]:
    """A line where some column of the label is there and another is not, or where the status says otherwise."""
    columns = [table.column(column.name).is_valid().to_numpy() for column in contract.columns]
    if "status" in table.column_names:
        columns.append(np.asarray(table.column("status").to_pylist()) == "ok")
    torn = np.logical_or.reduce([column != present for column in columns])
    if not torn.any():
        return []
    return [f"{contract.name}: a row has all columns where its status is ok, else none: not {name_rows(torn, table)}"]


def name_rows(bad: Bool[np.ndarray, " rows"], table: pa.Table) -> str:
    """How many rows are bad, and which is the first."""
    first = int(np.flatnonzero(bad)[0])
    name = f"row {first}" + (f" (key {table.column('key')[first].as_py()!r})" if "key" in table.column_names else "")
    return f"{int(bad.sum())} of {len(bad)} rows, first in {name}"
