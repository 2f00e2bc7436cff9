"""JSON lines: shards of one JSON object a line, plain or compressed; its members are the sample's fields.

What is nested is kept as JSON text, so that `meta.author` leads into it. A line that two parsers could understand
differently (a member twice, NaN) or that is none (cut off, not UTF-8, no object) makes the whole shard a bad one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..digests import Json
from ..errors import BadSample, BadShard
from ..reasons import Reason
from .decompress import Codec, decompress
from .keys import BAD_KEY
from .limits import MAX_BLANK_LINES, MAX_LINE_BYTES
from .listing import Files
from .metadata import MISSING, look_up, no_number, without_repeats
from .naming import Namer
from .shard import Sample, Shard, ShardReading, Source, Value
from .stream import ByteStream, open_stream, reclassified

CODECS: Mapping[str, Codec] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
SUFFIXES = tuple(name + end for name in (".jsonl", ".ndjson") for end in ("", *CODECS))
MARK = b"\xef\xbb\xbf"
"""The byte order mark, with which some programs begin a file."""
SHOWN_NAMES = 12


class JsonLinesSource(Source):
    """Files of JSON lines, one shard each, by path, pattern, list or listing file.

    `key` names rows; without one a row is named by the digest of its `text` (a choice of names), or where it has none
    of its line.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        storage_options: Mapping[str, Json] | None = None,
        key: str | None = None,
        text: Sequence[str] = ("text",),
    ) -> None:
        self.files = Files(path, storage_options)
        self.key, self.text = key, tuple(text)

    @property
    def root(self) -> str:
        return self.files.root

    def shards(self) -> list[Shard]:
        return self.files.shards()

    def read(self, shard: Shard) -> ShardReading:
        return LinesReading(self, open_stream(shard.url, shard.size, shard.etag, self.files.options), shard.name)


class LinesReading(ShardReading):
    """One pass over a shard of JSON lines."""

    def __init__(self, source: JsonLinesSource, stream: ByteStream, name: str) -> None:
        self._source, self._stream = source, stream
        self._codec: Codec | None = next((codec for end, codec in CODECS.items() if name.lower().endswith(end)), None)

    def __iter__(self) -> Iterator[Sample]:
        chunks: Iterable[bytes] = decompress(self._stream, self._codec) if self._codec else self._stream
        try:
            yield from self._samples(chunks)
        except BadShard as error:
            raise reclassified(error, self._stream).of(self._stream.path) from error

    @property
    def content_sha256(self) -> str:
        return self._stream.sha256

    def _samples(self, chunks: Iterable[bytes]) -> Iterator[Sample]:
        namer, row = Namer(f"field {self._source.key!r}"), 0
        for number, line, ended in lines(chunks):
            if line.isspace() or not line:
                if number - row > MAX_BLANK_LINES:
                    raise BadShard(Reason.UNSUPPORTED_SHARD, f"{MAX_BLANK_LINES} blank lines before line {number}")
                continue
            fields = fields_of(number, line, ended)
            yield self._named(namer, number, row, fields, line)
            row += 1

    def _named(self, namer: Namer, number: int, row: int, fields: Mapping[str, Value], line: bytes) -> Sample:
        key = self._source.key
        if key is None:
            found = (value_at(fields, name) for name in self._source.text)
            content = next((value for value in found if value not in (MISSING, None)), line)
            return namer.by_content(
                row, fields, content if isinstance(content, bytes) else str(content).encode(errors="surrogatepass")
            )
        value = value_at(fields, key)
        if value is MISSING or isinstance(value, list | dict):
            names = ", ".join(list(fields)[:SHOWN_NAMES]) or "none"
            raise BadShard(Reason.UNSUPPORTED_SHARD, f"line {number} has no field {key!r} (source.key), but {names}")
        try:
            return namer.by_value(row, fields, value)
        except BadShard as error:
            raise BadShard(error.reason, f"line {number}: {error.detail}") from error


def value_at(fields: Mapping[str, Value], name: str) -> Any:
    """As `look_up`; MISSING also where what the name leads into is no JSON."""
    try:
        return look_up(fields, name, {})
    except BadSample:
        return MISSING


def lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Number (from 1), bytes, and whether a line break followed, of every line; holds one chunk and one line.

    Raises BadShard(UNSUPPORTED_SHARD) for a line of more than MAX_LINE_BYTES.
    """
    held: list[bytes] = []
    size, number = 0, 1
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            require_room(number, size + len(line))
            yield number, unmarked(number, b"".join([*held, line])), True
            held, size, number = [], 0, number + 1
        held.append(rest)
        size += len(rest)
        require_room(number, size)
    if size:
        yield number, unmarked(number, b"".join(held)), False


def require_room(number: int, size: int) -> None:
    if size > MAX_LINE_BYTES:
        raise BadShard(
            Reason.UNSUPPORTED_SHARD, f"line {number} has more than the {MAX_LINE_BYTES} bytes that are read of one"
        )


def unmarked(number: int, line: bytes) -> bytes:
    return line.removeprefix(MARK) if number == 1 else line


def fields_of(number: int, line: bytes, ended: bool) -> dict[str, Value]:
    """The members of a line's object. Raises BadShard: TRUNCATED_SHARD where the file ends in it, CORRUPT_SHARD where
    it is no JSON object, UNSUPPORTED_SHARD where it has a member of a reserved name.
    """
    try:
        found = json.loads(line.decode(), object_pairs_hook=without_repeats, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        if not ended:
            raise BadShard(Reason.TRUNCATED_SHARD, f"the file ends in the middle of line {number}") from error
        raise BadShard(Reason.CORRUPT_SHARD, f"line {number} is not JSON in UTF-8 ({error}); mend it") from error
    if not isinstance(found, dict):
        raise BadShard(Reason.CORRUPT_SHARD, f"line {number} must be an object ({{...}}), got {type(found).__name__}")
    if BAD_KEY in found:
        raise BadShard(Reason.UNSUPPORTED_SHARD, f"line {number} has a member {BAD_KEY!r}, a name that is reserved")
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        for name, value in found.items()
    }
