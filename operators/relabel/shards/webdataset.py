"""WebDataset: tar shards whose members form samples by name, grouped exactly as the webdataset package groups them.

A key is the path up to the first dot of its last part; it is data, never a path. Where webdataset would hand out one
sample twice or in halves (keys repeated or interleaved), the shard is refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..digests import Json
from ..errors import BadShard, UsageError
from ..reasons import Reason
from . import tar
from .decompress import Codec, decompress
from .keys import BAD_KEY, decode_key, is_good_key
from .limits import KEY_OVERHEAD_BYTES, MAX_KEYS_BYTES, MAX_MEMBER_BYTES, MAX_SAMPLE_BYTES
from .listing import Files
from .shard import Sample, Shard, ShardReading, Source, Value
from .stream import ByteStream, open_stream, reclassified

SUFFIXES: Mapping[str, Codec | None] = {
    ".tar": None, ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd", ".tar.zstd": "zstd",
}  # fmt: skip

# Both are webdataset's own (tariterators.base_plus_ext and skip_meta, 1.0.2).
NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")


class WebDatasetSource(Source):
    """Tar shards, plain or compressed (.tar, .tar.gz, .tar.zst), by path, pattern, list or listing file."""

    def __init__(
        self,
        path: str | Sequence[str],
        storage_options: Mapping[str, Json] | None = None,
        max_member_bytes: int = MAX_MEMBER_BYTES,
    ) -> None:
        self.files = Files(path, storage_options)
        self.max_member_bytes = max_member_bytes

    @property
    def root(self) -> str:
        return self.files.root

    def shards(self) -> list[Shard]:
        shards = self.files.shards()
        for shard in shards:
            codec_of(shard.name)
        return shards

    def read(self, shard: Shard) -> ShardReading:
        stream = open_stream(shard.url, shard.size, shard.etag, self.files.options)
        return TarReading(stream, codec_of(shard.name), self.max_member_bytes)


class TarReading(ShardReading):
    """One pass over a tar shard."""

    def __init__(self, stream: ByteStream, codec: Codec | None, max_member_bytes: int) -> None:
        self._stream, self._max_member_bytes = stream, max_member_bytes
        self._codec: Codec | None = codec

    def __iter__(self) -> Iterator[Sample]:
        chunks: Iterable[bytes] = decompress(self._stream, self._codec) if self._codec else self._stream
        try:
            yield from group(tar.members(chunks, self._max_member_bytes))
        except BadShard as error:
            raise reclassified(error, self._stream).of(self._stream.path) from error

    @property
    def content_sha256(self) -> str:
        return self._stream.sha256


def codec_of(name: str) -> Codec | None:
    """By the name's suffix; raises UsageError where it is none of a tar shard."""
    for suffix, codec in SUFFIXES.items():
        if name.lower().endswith(suffix):
            return codec
    raise UsageError(f"{name!r} is no tar shard by its name: expected one of {', '.join(SUFFIXES)}.")


def group(members: Iterable[tuple[bytes, bytes]]) -> Iterator[Sample]:
    """Samples of adjacent members with one key; fields are extensions in lower case.

    Raises BadShard(DUPLICATE_KEYS) where a key comes back after another one, or an extension twice in one sample.
    """
    seen: set[str] = set()
    key: str | None = None
    fields: dict[str, Value] = {}
    size = keys_size = 0
    for raw_name, payload in members:
        name, decoded = decode_key(raw_name)
        match = NAME.match(name)
        if match is None or META.match(name):
            continue
        prefix, extension = match[1], match[2].lower()
        if prefix != key:
            if key is not None:
                yield Sample(key, len(seen) - 1, fields)
            if prefix in seen:
                raise BadShard(
                    Reason.DUPLICATE_KEYS,
                    f"key {prefix!r} comes back after other keys; members of one sample must lie next to each other",
                )
            seen.add(prefix)
            keys_size += len(prefix) + KEY_OVERHEAD_BYTES
            if keys_size > MAX_KEYS_BYTES:
                raise BadShard(Reason.UNSUPPORTED_SHARD, f"more than {len(seen) - 1} samples; write smaller shards")
            key = prefix
            fields = {} if decoded and is_good_key(prefix) else {BAD_KEY: True}
            size = 0
        size += len(payload) + len(name) + KEY_OVERHEAD_BYTES
        if size > MAX_SAMPLE_BYTES:
            raise BadShard(
                Reason.UNSUPPORTED_SHARD, f"the members of {prefix!r} hold more than {MAX_SAMPLE_BYTES} bytes together"
            )
        if extension.startswith("__"):
            raise BadShard(Reason.UNSUPPORTED_SHARD, f"member {name!r}: extensions that start with __ are reserved")
        if extension in fields:
            raise BadShard(Reason.DUPLICATE_KEYS, f"key {prefix!r} has two members .{extension}")
        fields[extension] = payload
    if key is not None:
        yield Sample(key, len(seen) - 1, fields)
