"""Cells: what a part carries is read back from wherever Ray puts it, without a copy."""

import numpy as np
import pyarrow as pa

from pipelines.parts import cell, contents


def test_contents_are_what_a_cell_was_made_around() -> None:
    buffer = pa.py_buffer(b"a part of a shard")
    column = pa.chunked_array([cell(buffer)])
    found = contents(column)
    assert found.to_pybytes() == b"a part of a shard"
    assert found.address == buffer.address


def test_rows_of_a_block_of_several_parts() -> None:
    payloads = [bytes([row]) * 64 * (row + 1) for row in range(4)]
    tables = [pa.table({"rows": cell(pa.py_buffer(payload))}) for payload in payloads]
    for block in (pa.concat_tables(tables), pa.concat_tables(tables).combine_chunks()):
        found = [contents(block.slice(row, 1)["rows"]) for row in range(4)]
        assert [one.to_pybytes() for one in found] == payloads
        assert all(np.frombuffer(one, np.uint8).flags.aligned for one in found)
