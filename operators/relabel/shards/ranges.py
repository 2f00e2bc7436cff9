"""Ranges: bytes of one remote object, pinned to the version that was listed.

On S3 every request carries If-Match and every answer's ETag is compared; on other stores the version is compared
before the first byte and after the last.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fsspec.asyn import sync

from ..errors import BadShard, ObjectMissing, StorageError
from ..reasons import Reason
from ..storage.failures import error_code, is_transient, translated

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Between attempts; the client library has retried each of them by then."""
REFUSED_CODES = frozenset({"PreconditionFailed", "412"})
VERSION_FIELDS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "mtime", "LastModified", "created")


def version_of(info: Mapping[str, Any]) -> str:
    """What the store says of an object's version: the ETag without quotes, else the nearest thing that it has."""
    value = next((info[field] for field in VERSION_FIELDS if info.get(field) is not None), "")
    # One backend may call the same moment `created` here and `mtime` there.
    value = value.timestamp() if isinstance(value, datetime) else value
    return str(value).strip('"')


def changed(url: str, detail: str) -> BadShard:
    return BadShard(Reason.CHANGED_SHARD, f"{url}: {detail}; list the source again")


class Ranges:
    """Range reads of one object at one version, tried again where the store fails for a moment. Thread-safe."""

    def __init__(self, filesystem: Any, path: str, size: int, etag: str) -> None:
        self.filesystem, self.path, self.size, self.etag = filesystem, path, size, etag
        self.url = str(filesystem.unstrip_protocol(path))
        self._is_s3 = "s3" in filesystem.protocol
        self._match = f'"{etag}"'

    def fetch(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive).

        Raises BadShard(CHANGED_SHARD) where the object is gone or no longer the one that was listed, StorageError
        where the store did not answer after several attempts.
        """
        for pause in PAUSES_SECONDS:
            try:
                return self._fetch_once(start, end)
            except StorageError as error:
                if not (isinstance(error, CameShort) or is_transient(error.__cause__)):
                    raise
            time.sleep(pause)
        return self._fetch_once(start, end)

    def check(self) -> None:
        """Compare the object's version with the pinned one where no request carries it; raises CHANGED_SHARD."""
        if self._is_s3:
            return
        try:
            with translated(self.url):
                info = self.filesystem.info(self.path)
        except ObjectMissing as error:
            raise changed(self.url, "the object is gone") from error
        if (info["size"], version_of(info)) != (self.size, self.etag):
            raise changed(self.url, f"expected version {self.etag}, found {version_of(info)}")

    def _fetch_once(self, start: int, end: int) -> bytes:
        try:
            with translated(self.url):
                data = self._fetch_s3(start, end) if self._is_s3 else self._fetch_plain(start, end)
        except ObjectMissing as error:
            raise changed(self.url, "the object is gone") from error
        if len(data) != end - start:
            raise CameShort(f"{self.url}: expected bytes {start} to {end} of {self.size}, got {len(data)} bytes")
        return data

    def _fetch_plain(self, start: int, end: int) -> bytes:
        return bytes(self.filesystem.cat_file(self.path, start=start, end=end))

    def _fetch_s3(self, start: int, end: int) -> bytes:
        # Some stores (Ceph RGW before 18) match an ETag only without the quotes that the standard asks for.
        for match in dict.fromkeys((self._match, self.etag)):
            try:
                etag, data = sync(self.filesystem.loop, get_range, self.filesystem, self.path, start, end, match)
            except OSError as error:
                if error_code(error) not in REFUSED_CODES:
                    raise
            else:
                self._match = match
                if etag.strip('"') != self.etag:
                    raise changed(self.url, f"expected version {self.etag}, got {etag}")
                return bytes(data)
        raise changed(self.url, f"the object is no longer the version {self.etag} that was listed")


class CameShort(StorageError):
    """Fewer bytes than the range has; a broken connection, worth another attempt."""


async def get_range(filesystem: Any, path: str, start: int, end: int, match: str) -> tuple[str, bytes]:
    """One S3 GET with If-Match, which s3fs's own range reads do not send: (ETag, body)."""
    bucket, key, _ = filesystem.split_path(path)
    answer = await filesystem._call_s3(
        "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=match
    )
    async with answer["Body"] as body:
        return answer.get("ETag", ""), await body.read()
