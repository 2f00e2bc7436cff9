"""JSON lines: an object per labelled sample; arrays as nested lists, bytes in base64. Compressed ones bear no time."""

import base64
import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import Any

from ..digests import Json, canonical_json
from .join import Chunk
from .layout import Layout
from .media import Media
from .values import as_json, entries


def write(file: io.RawIOBase, chunks: Iterator[Chunk], layout: Layout, shard: str, media: Media | None) -> None:
    with contextlib.ExitStack() as stack:
        out: Any = file
        if layout.gzip:
            out = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        for chunk in chunks:
            for line in lines(chunk, layout, shard, media):
                out.write(canonical_json(line) + b"\n")


def lines(chunk: Chunk, layout: Layout, shard: str, media: Media | None) -> Iterator[dict[str, Json]]:
    columns = entries(chunk.table, layout.labels)
    keys, digests = (chunk.table[name].to_pylist() for name in ("key", "sample_digest"))
    for row, key in enumerate(keys):
        line: dict[str, Json] = {"key": key, "shard": shard, "sample_digest": digests[row] and digests[row].hex()}
        if chunk.samples is not None and media is not None:
            line["media"] = {name: spelled(media.value(chunk.samples[row], name), name) for name in media.columns}
        yield {**line, **{name: as_json(values[row]) for name, values in columns.items()}}


def spelled(value: bytes | str | None, name: str) -> str | None:
    """Text as it is where it is UTF-8 and no image."""
    if not isinstance(value, bytes):
        return value
    if name != "image":
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return base64.b64encode(value).decode()
