"""Folder: a folder of images or texts as virtual shards, hash buckets of relative names.

An added, removed or changed file touches one bucket only; a bucket's version and digest are those of its members.
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b

from ..digests import Json, digest
from ..errors import BadShard, UsageError
from ..reasons import Reason
from ..storage.filesystems import is_local
from .keys import BAD_KEY, decode_key, is_good_key
from .limits import MAX_MEMBER_BYTES
from .listing import GLOB, Files, absolute, find_below, join
from .shard import Member, Sample, Shard, ShardReading, Source
from .stream import WINDOW, open_stream, ordered

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
TEXT_EXTENSIONS = (".txt",)
BUCKETS = 16


class FolderSource(Source):
    """Images (or texts) below one folder at any depth, or those that a pattern, list or listing file names.

    Hidden files and files with other extensions are left out. A sample's key is its relative path; its fields are
    `image` (or `text`; bytes) and `path`.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        storage_options: Mapping[str, Json] | None = None,
        buckets: int = BUCKETS,
        extensions: Sequence[str] = EXTENSIONS,
        field: str = "image",
    ) -> None:
        self.files = Files(path, storage_options)
        self.buckets, self.field = buckets, field
        self.extensions = tuple(extensions)

    @property
    def root(self) -> str:
        return self.files.root if self._is_pattern else absolute(self.files.given[0])

    def shards(self) -> list[Shard]:
        """One shard per bucket that has members."""
        buckets: dict[int, list[Member]] = {}
        for member in self._members():
            if posixpath.splitext(member.path)[1].lower() in self.extensions:
                buckets.setdefault(bucket_of(member.path, self.buckets), []).append(member)
        if not buckets:
            raise UsageError(
                f"no {self.field} ({', '.join(self.extensions)}) lies below {self.root}; check source.path."
            )
        return [bucket_shard(self.root, index, self.buckets, buckets[index]) for index in sorted(buckets)]

    def read(self, shard: Shard) -> ShardReading:
        return FolderReading(self, shard)

    @property
    def _is_pattern(self) -> bool:
        [first, *others] = self.files.given
        return bool(others) or first.startswith("@") or "{" in first or bool(GLOB.search(first))

    def _members(self) -> list[Member]:
        return self.files.members() if self._is_pattern else find_below(self.root, self.files.options)


class FolderReading(ShardReading):
    """One pass over a bucket; a member that is gone or changed ends it with BadShard(CHANGED_SHARD)."""

    def __init__(self, source: FolderSource, shard: Shard) -> None:
        self._source, self._shard = source, shard
        self._digests: list[list[str]] = []

    def __iter__(self) -> Iterator[Sample]:
        self._digests = []
        calls = (self._reader(member) for member in self._shard.members)
        contents = (call() for call in calls) if is_local(self._source.root) else ordered(calls, WINDOW)
        for row, (member, (content, content_sha256)) in enumerate(zip(self._shard.members, contents, strict=True)):
            key, good = decode_key(raw_name(member.path))
            self._digests.append([key, content_sha256])
            mark = {} if good and is_good_key(key) else {BAD_KEY: True}
            yield Sample(key, row, {self._source.field: content, "path": key, **mark})

    @property
    def content_sha256(self) -> str:
        assert len(self._digests) == len(self._shard.members), "the bucket was not read to its end"
        return digest(self._digests)

    def _reader(self, member: Member) -> Callable[[], tuple[bytes, str]]:
        return lambda: read_member(join(self._source.root, member.path), member, self._source.files.options)


def read_member(url: str, member: Member, options: Mapping[str, Json]) -> tuple[bytes, str]:
    """The bytes of one file, pinned to what was listed, and their sha256."""
    if member.size > MAX_MEMBER_BYTES:
        raise BadShard(Reason.UNSUPPORTED_SHARD, f"{url} has {member.size} bytes, more than {MAX_MEMBER_BYTES}")
    stream = open_stream(url, member.size, member.etag, options)
    return b"".join(stream), stream.sha256


def raw_name(path: str) -> bytes:
    """A path's bytes: local names that are not UTF-8 arrive with surrogates in their place."""
    return path.encode(errors="surrogateescape")


def bucket_of(path: str, buckets: int) -> int:
    return int.from_bytes(blake2b(raw_name(path), digest_size=8).digest(), "big") % buckets


def bucket_shard(root: str, index: int, buckets: int, members: Sequence[Member]) -> Shard:
    """The virtual shard of one bucket; `members` are sorted by path."""
    described = [[decode_key(raw_name(member.path))[0], member.size, member.etag] for member in members]
    name = f"bucket-{index:05d}-of-{buckets:05d}"
    size = sum(member.size for member in members)
    return Shard(name, root, size, digest(described), tuple(members))
