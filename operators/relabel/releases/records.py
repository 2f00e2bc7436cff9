"""Records: a list of frozen dataclasses as Parquet, and back.

Equal lists give equal bytes. Fields are str, int, bool, JSON mappings or `Stored | None`; nothing else. What records
have not had from the beginning is written only where one has it, so that old and new ones read and write alike.
"""

import contextlib
import dataclasses
import io
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..digests import Json, canonical_json
from ..errors import StoreCorrupt
from .stored import Stored

STORED_TYPE = pa.struct([("path", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string())])
REPETITIVE = ("fingerprint", "run_id", "status", "reason", "detail", "reasons", "numerics")
ADDED_LATER = ("summary", "usage")
"""Text fields, empty in records from before."""
ROW_GROUP_ROWS = 65_536

D = TypeVar("D")


def fields_of(cls: type[Any]) -> dict[str, Any]:
    """Field name -> declared type, in order."""
    types = typing.get_type_hints(cls)
    return {field.name: types[field.name] for field in dataclasses.fields(cls)}


def arrow_type(declared: Any) -> pa.DataType:
    """How a field lies in Parquet: mappings as canonical JSON text, stored objects as nullable structs."""
    plain = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), Stored | None: STORED_TYPE}
    return plain.get(declared, pa.string())


def is_mapping(declared: Any) -> bool:
    return typing.get_origin(declared) is Mapping


def encode_records(cls: type[D], records: Sequence[D]) -> bytes:
    """A Parquet file with one column per field and one row per record."""
    types = {
        name: declared
        for name, declared in fields_of(cls).items()
        if name not in ADDED_LATER or any(getattr(record, name) for record in records)
    }
    columns = [column_of([getattr(record, name) for record in records], types[name]) for name in types]
    table = pa.Table.from_arrays(columns, schema=pa.schema([(name, arrow_type(types[name])) for name in types]))
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS, write_page_checksum=True,
        use_dictionary=[name for name in REPETITIVE if name in types], write_statistics=False,
    )  # fmt: skip
    return sink.getvalue()


def column_of(values: Sequence[Any], declared: Any) -> pa.Array:
    if is_mapping(declared):
        texts = {id(value): value for value in values}  # shared by most records
        texts = {name: canonical_json(value).decode() for name, value in texts.items()}
        return pa.array([texts[id(value)] for value in values], pa.string())
    if declared == Stored | None:
        parts = [[None if value is None else getattr(value, name) for value in values] for name in STORED_TYPE.names]
        arrays = [pa.array(part, field.type) for part, field in zip(parts, STORED_TYPE, strict=True)]
        absent = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(arrays, fields=list(STORED_TYPE), mask=absent)
    return pa.array(values, arrow_type(declared))


def decode_records(cls: type[D], data: bytes, path: str) -> list[D]:
    """The records that were encoded; raises StoreCorrupt, naming `path`, where these bytes are not such a file."""
    return records_of(cls, decode_table(cls, data, path), path)


def decode_table(cls: type[Any], data: bytes, path: str, later: bool = True) -> pa.Table:
    """The records as columns, half as large and ten times as fast as `decode_records`; raises StoreCorrupt.

    Without what was added `later` these columns are empty: it may be most of what there is.
    """
    with corruption(cls, path), pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        there = {*file.schema_arrow.names} if later else set()
        names = [name for name in fields_of(cls) if name not in ADDED_LATER or name in there]
        # Half the time of `read_table`, which takes a file for a data set.
        table = file.read(columns=names, use_threads=False).select(names)
    for name in fields_of(cls):
        if name not in names:
            table = table.append_column(name, pa.repeat(pa.scalar("", pa.string()), len(table)))
    return table.select(list(fields_of(cls)))


def records_of(cls: type[D], table: pa.Table, path: str) -> list[D]:
    """The rows of `decode_table`. Equal texts and mappings of the repetitive fields are one object, never changed."""
    with corruption(cls, path):
        columns = [values_of(table[name], name, declared) for name, declared in fields_of(cls).items()]
    return [cls(*values) for values in zip(*columns, strict=True)]


@contextlib.contextmanager
def corruption(cls: type[Any], path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StoreCorrupt(f"{path} is not a list of {cls.__name__.lower()}s that relabel wrote: {error}") from error


def values_of(column: pa.ChunkedArray, name: str, declared: Any) -> list[Any]:
    """A column's cells as the fields' values."""
    if declared == Stored | None:
        parts = [plain_values(pc.struct_field(column, part)) for part in STORED_TYPE.names]
        return [None if path is None else Stored(path, *rest) for path, *rest in zip(*parts, strict=True)]
    if name not in REPETITIVE:
        return plain_values(column)
    coded = column.combine_chunks().dictionary_encode()
    words = coded.dictionary.to_pylist()
    words = [json.loads(word) for word in words] if is_mapping(declared) else words
    return [words[index] for index in coded.indices.to_numpy().tolist()]


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """`to_pylist`, several times as fast."""
    if column.null_count and not pa.types.is_string(column.type):
        return list(column.to_pylist())  # numpy has no integer that is absent
    return list(column.to_numpy().tolist())


def to_stored(fields: Mapping[str, Any] | None) -> Stored | None:
    return None if fields is None else Stored(**fields)


def to_json(record: Any) -> dict[str, Json]:
    """A record as JSON fields."""
    fields = dataclasses.asdict(record)
    return {name: value for name, value in fields.items() if value or name not in ADDED_LATER}


def from_json(cls: type[D], fields: Mapping[str, Json], path: str) -> D:
    """The record; raises StoreCorrupt, naming `path`, where a field lacks or is unknown."""
    types = fields_of(cls)
    fields = {**{name: "" for name in ADDED_LATER if name in types}, **fields}
    if set(fields) != set(types):
        odd = sorted(set(fields) ^ set(types))
        raise StoreCorrupt(
            f"{path} has not the fields of a {cls.__name__.lower()}; missing or unknown: {', '.join(odd)}."
        )
    return cls(**{name: to_stored(value) if types[name] == Stored | None else value for name, value in fields.items()})
