"""Shards and samples: the names and types that every source speaks.

A shard is the unit of commit, identified by name, size and ETag. A sample is identified by (shard, key); its row is
where it stands, never who it is.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring

import pyarrow as pa

from ..digests import sha256

Value = bytes | str | int | float | bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file of a virtual shard (a folder source's bucket)."""

    path: str
    """Relative to the source's root."""
    size: int
    etag: str


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One source file, or one hash bucket of a folder."""

    name: str
    """Relative to the source's root; opaque, never used as a path by a writer."""
    url: str
    size: int
    """In bytes."""
    etag: str
    """The store's ETag; mtime_ns on local disk; a digest of the members of a bucket."""
    members: tuple[Member, ...] = ()
    token: str = dataclasses.field(init=False, compare=False, repr=False)
    """Digest of (name, size, etag): equal while nobody has touched the shard."""

    def __post_init__(self) -> None:
        # `digest` of the three, by hand: a plan of 100,000 shards waits half a second less.
        text = f"[{encode_basestring(self.name)},{self.size:d},{encode_basestring(self.etag)}]"
        object.__setattr__(self, "token", sha256(text.encode()))


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One member of a source."""

    key: str
    row: int
    """Zero-based position among the samples of its shard."""
    fields: Mapping[str, Value]
    """Raw: tar members by extension as bytes, Parquet columns by name, `path` and `image` of a folder."""
    labels: pa.Table | None = None
    """One row: the label columns, where the source is a release."""
    digest: bytes | None = None
    """Of the media that was labelled, where the source is a release; else it is computed."""
    unlabelled: str | None = None
    """The reason why a release that is the source has no label for it; there are no fields then."""


class ShardReading(ABC):
    """One pass over a shard: iterate it to the end, then ask for its digest.

    Iteration raises BadShard where the bytes are not a whole, well-formed shard or changed under the reader, and
    StorageError where the store did not answer (worth trying again).
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]: ...

    @property
    @abstractmethod
    def content_sha256(self) -> str:
        """Of the shard's bytes (a bucket: of its members' names and digests); known once iteration has ended."""


class Source(ABC):
    """The data set being relabelled. Picklable; holds no open connection."""

    @property
    @abstractmethod
    def root(self) -> str:
        """The URL under which the shards lie; their names are relative to it."""

    @abstractmethod
    def shards(self) -> list[Shard]:
        """All shards, sorted by name; raises UsageError where there is none or a named one is missing."""

    @abstractmethod
    def read(self, shard: Shard) -> ShardReading:
        """Stream one shard's samples, in order, pinned to the bytes that `shard` names."""
