"""Tables: labelled rows as plain Parquet, which any reader understands: Hugging Face datasets, Delta, DuckDB, Polars.

Dense arrays lie in C order, little endian, in a binary column (dtype and shape stand in the field metadata and the
readme), or as nested lists. Whatever a label shard rearranges for its compression is undone.
"""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from ..digests import canonical_json
from ..errors import Refused
from ..labels.contract import FORMAT_KEY, SCALARS, Column
from ..labels.shard_file import label_schema
from .join import Chunk
from .layout import Layout
from .media import IMAGE, Media
from .values import column_entries, is_array

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As Hugging Face datasets knows images."""


def write(file: io.RawIOBase, chunks: Iterator[Chunk], layout: Layout, shard: str, media: Media | None) -> None:
    """A row group per chunk, of which there is one at least, its pages with checksums; equal rows give equal bytes."""
    all_tables = (plain(chunk, layout, shard, media) for chunk in chunks)
    first = next(all_tables)
    with pq.ParquetWriter(file, first.schema, compression="zstd", write_page_checksum=True) as writer:
        for table in itertools.chain([first], all_tables):
            writer.write_table(table)


def plain(chunk: Chunk, layout: Layout, shard: str, media: Media | None) -> pa.Table:
    """The rows as they are published."""
    table, rows = chunk.table, len(chunk.table)
    fields = [pa.field("key", pa.string()), pa.field("shard", pa.string()), pa.field("sample_digest", pa.binary())]
    arrays = [table["key"], pa.array([shard] * rows, pa.string()), table["sample_digest"].cast(pa.binary())]
    if chunk.samples is not None and media is not None:
        taken = {column.name for contract in layout.labels for column in contract.columns} | {"key", "shard"}
        for name in media.columns:
            values = [media.value(sample, name) for sample in chunk.samples]
            array = images(values, table["key"].to_pylist()) if name == IMAGE else texts(values, name, shard)
            arrays.append(array)
            fields.append(pa.field(f"source_{name}" if name in taken else name, array.type))
    for contract in layout.labels:
        for column in contract.columns:
            array = label_array(table, column, layout.arrays == "lists")
            told = canonical_json({"label": contract.name, "column": column.model_dump(mode="json")})
            arrays.append(array)
            fields.append(pa.field(column.name, array.type, metadata={FORMAT_KEY: told}))
    with_images = any(field.type == IMAGE_TYPE for field in fields)
    known = {"info": {"features": {IMAGE: {"_type": "Image"}}}}
    metadata = {b"huggingface": json.dumps(known).encode()} if with_images else None
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))


def schema_of(layout: Layout) -> pa.Schema:
    """Of a table without media."""
    names = {contract.name: "" for contract in layout.labels}
    return plain(Chunk(label_schema(list(layout.labels), names).empty_table()), layout, "", None).schema


def images(values: Sequence[Any], keys: Sequence[str]) -> pa.Array:
    pairs = zip(values, keys, strict=True)
    return pa.array([None if data is None else {"bytes": data, "path": key} for data, key in pairs], IMAGE_TYPE)


def texts(values: Sequence[Any], name: str, shard: str) -> pa.Array:
    try:
        return pa.array([each.decode() if isinstance(each, bytes) else each for each in values], pa.string())
    except UnicodeDecodeError as error:
        raise Refused(
            f"the field {name!r} of a sample of shard {shard!r} is not UTF-8 text ({error}); no table has a place "
            "for it. Leave the media out: --include labels."
        ) from error


def label_array(table: pa.Table, column: Column, lists: bool) -> pa.Array:
    if not is_array(column):
        return table[column.name].combine_chunks()
    values = column_entries(table, column)
    if not lists:
        cells = [np.ascontiguousarray(each).tobytes() for each in values]
        return pa.array(cells, pa.large_binary() if column.varying else pa.binary())
    if column.shape:
        return nested(np.asarray(values))
    assert column.varying is not None
    kind = SCALARS[column.varying.dtype]
    for _ in column.varying.axes:
        kind = pa.list_(kind)
    return pa.array([each.tolist() for each in values], kind)


def nested(values: Shaped[np.ndarray, "rows ..."]) -> pa.Array:
    """[rows, a, b] as a list of lists of lists."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        count = int(np.prod(values.shape[:axis], dtype=np.int64))
        offsets = np.arange(count + 1, dtype=np.int32) * values.shape[axis]
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
