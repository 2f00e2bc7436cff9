"""Parquet: shards of rows with encoded media in a bytes column or in the Hugging Face image struct.

The whole file is hashed before its first row is read (a remote one on its way to a temporary file), so rows come from
the bytes that were listed. Page checksums are compared where the file has them.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ..digests import Json
from ..errors import BadShard, StorageError, UnknownName
from ..reasons import Reason
from ..storage.failures import translated
from ..storage.filesystems import resolve
from .limits import MAX_BATCH_BYTES
from .listing import Files
from .naming import Namer
from .pages import footer_size, largest_page
from .shard import Sample, Shard, ShardReading, Source, Value
from .stream import ByteStream, LocalStream, open_stream, reclassified

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
MAGIC = b"PAR1"
MIN_BYTES = 12


class ParquetSource(Source):
    """Parquet files, one shard each, by path, pattern, list or listing file.

    `needs` are the columns to label from, each a choice of names of which a file must have one. `columns` are read as
    well where they exist. `media` are choices, too: the first of which a file has any is that whose digest names rows
    where `key` names no column; default: the first need.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        storage_options: Mapping[str, Json] | None = None,
        key: str | None = None,
        needs: Sequence[Sequence[str]] = (("image",),),
        columns: Sequence[str] = (),
        media: Sequence[Sequence[str]] = (),
    ) -> None:
        self.files = Files(path, storage_options)
        self.key = key
        self.needs = tuple(tuple(need) for need in needs)
        self.columns = tuple(columns)
        self.choices = tuple(tuple(choice) for choice in media) or self.needs[:1]

    @property
    def root(self) -> str:
        return self.files.root

    def shards(self) -> list[Shard]:
        """Also looks into the first shard: a column that it lacks is a mistake in the recipe (UnknownName)."""
        shards = self.files.shards()
        try:
            self._look_into(shards[0])
        except UnknownColumn as error:
            raise UnknownName("column", error.column, error.known, f"({shards[0].name}; see source.fields)") from error
        except BadShard:
            return shards
        return shards

    def read(self, shard: Shard) -> ShardReading:
        return ParquetReading(self, open_stream(shard.url, shard.size, shard.etag, self.files.options))

    def select(self, schema: pa.Schema) -> list[str]:
        """The columns to read; raises UnknownColumn where the key or a need has none."""
        known = [field.name for field in schema if is_readable(field.type)]
        for choice in [*self.needs, *([(self.key,)] if self.key else [])]:
            if not set(choice) & set(known):
                raise UnknownColumn(choice[0], known)
        if twice := sorted({name for name in schema.names if schema.names.count(name) > 1} & set(known)):
            raise BadShard(Reason.UNSUPPORTED_SHARD, f"two columns of the name {twice[0]!r}")
        wanted = {name for need in self.needs for name in need} | {*self.columns, self.key}
        return [name for name in known if name in wanted]

    def media(self, fields: Mapping[str, Value]) -> bytes:
        """What a row without a key column is named by."""
        choice = next((choice for choice in self.choices if any(name in fields for name in choice)), ())
        value = next((fields[name] for name in choice if fields.get(name) is not None), b"")
        return value if isinstance(value, bytes) else str(value).encode()

    def _look_into(self, shard: Shard) -> None:
        filesystem, path = resolve(shard.url, self.files.options)
        with translated(shard.url), filesystem.open(path, "rb") as file, sound(shard.url):
            check_magic(file, shard.url)
            self.select(pq.ParquetFile(file).schema_arrow)


class UnknownColumn(BadShard):
    """A shard without a column that the recipe names."""

    def __init__(self, column: str, known: Sequence[str]) -> None:
        self.column, self.known = column, list(known)
        super().__init__(
            Reason.UNSUPPORTED_SHARD, f"no column {column!r}; the columns are {', '.join(known) or 'none'}"
        )

    def __reduce__(self) -> tuple[type["UnknownColumn"], tuple[str, list[str]]]:  # type: ignore[override]
        return UnknownColumn, (self.column, self.known)


class ParquetReading(ShardReading):
    """One pass over a Parquet shard."""

    def __init__(self, source: ParquetSource, stream: ByteStream) -> None:
        self._source, self._stream = source, stream

    def __iter__(self) -> Iterator[Sample]:
        with on_disk(self._stream) as file:
            try:
                yield from self._rows(file)
            except BadShard as error:
                raise reclassified(error, self._stream).of(self._stream.path) from error
            self._stream.check_unchanged()

    @property
    def content_sha256(self) -> str:
        return self._stream.sha256

    def _rows(self, file: IO[bytes]) -> Iterator[Sample]:
        check_magic(file, self._stream.path)
        key = self._source.key
        namer, row = Namer(f"column {key!r}"), 0
        for batch in batches(file, self._stream.path, self._source):
            for fields in batch:
                if key is None:
                    yield namer.by_content(row, fields, self._source.media(fields))
                else:
                    yield namer.by_value(row, fields, fields[key])
                row += 1


@contextlib.contextmanager
def on_disk(stream: ByteStream) -> Iterator[IO[bytes]]:
    """An open file that holds the stream's bytes, all of them read and hashed.

    A local shard is hashed and parsed through one descriptor: a file renamed over it is never seen.
    """
    if isinstance(stream, LocalStream):
        with stream.opened() as local:
            for _ in stream:
                pass
            yield cast(IO[bytes], local)
        return
    with tempfile.NamedTemporaryFile(prefix="relabel-", suffix=".parquet") as file:
        for chunk in stream:
            with translated(file.name):
                file.write(chunk)
        with translated(file.name):
            file.flush()
        yield file.file


def check_magic(file: Any, url: str) -> None:
    """Tell a file that was cut off from one that never was Parquet."""
    with translated(url):
        file.seek(0)
        head = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(size - 4, 0))
        tail = file.read(4)
        file.seek(0)
    if head != MAGIC:
        raise BadShard(Reason.CORRUPT_SHARD, f"{url} is no Parquet file (it starts with {head!r}); check source.kind")
    if tail != MAGIC or size < MIN_BYTES:
        raise BadShard(Reason.TRUNCATED_SHARD, f"{url} lacks Parquet's footer; copy it again")
    with translated(url):
        footer_size(file, size, url)
        file.seek(0)


@contextlib.contextmanager
def sound(url: str) -> Iterator[None]:
    """Inside, what pyarrow finds wrong with a file is a BadShard."""
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise BadShard(Reason.UNSUPPORTED_SHARD, f"{url}: {error}") from error
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{url} cannot be read: {error}. Run again.") from error
        raise BadShard(Reason.CORRUPT_SHARD, f"{url} is not sound Parquet ({error}); write it again") from error


def batches(raw: IO[bytes], url: str, source: ParquetSource) -> Iterator[list[dict[str, Value]]]:
    """Rows as dictionaries, a few at a time, in order; pages are read through a small buffer."""
    with contextlib.ExitStack() as stack:
        with sound(url):
            file = stack.enter_context(
                pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True)
            )
            check_counts(file.metadata, url)
            columns = source.select(file.schema_arrow)
            rows_at_a_time = min(BATCH_ROWS, max(1, MAX_BATCH_BYTES // max(1, largest_page(raw, columns, url))))
            found = file.iter_batches(rows_at_a_time, columns=columns, use_threads=False)
        left = file.metadata.num_rows
        while True:
            with sound(url):
                batch = next(found, None)
                rows = [] if batch is None else to_rows(batch)
            if not rows:
                break
            left -= len(rows)
            yield rows
    if left:
        raise BadShard(Reason.CORRUPT_SHARD, f"{url}: its footer promises {left} rows that its pages do not hold")


def check_counts(metadata: pq.FileMetaData, url: str) -> None:
    """A footer has no checksum, but it counts its rows twice."""
    # Not through row_group().column(): on a damaged footer pyarrow 26 ends the process there.
    counted = sum(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    if counted != metadata.num_rows:
        raise BadShard(
            Reason.CORRUPT_SHARD, f"{url}: its footer counts {metadata.num_rows} rows in all and {counted} in groups"
        )


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Value]]:
    columns = [to_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def to_values(column: pa.Array) -> list[Value]:
    if pa.types.is_struct(column.type):
        column = column.flatten()[column.type.get_field_index("bytes")]
    values: list[Any] = column.to_pylist()
    return values


def is_readable(kind: pa.DataType) -> bool:
    """Whether a column's values are Python scalars, or the Hugging Face struct {bytes, path}."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_bytes(kind.field(index).type)
    if pa.types.is_dictionary(kind):
        return is_readable(kind.value_type)
    return is_bytes(kind) or any(test(kind) for test in SCALARS)


def is_bytes(kind: pa.DataType) -> bool:
    return any(test(kind) for test in BYTES)


BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
SCALARS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer, pa.types.is_floating,
    pa.types.is_boolean,
)  # fmt: skip
