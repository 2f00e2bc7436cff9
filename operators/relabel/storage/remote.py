"""Remote: an object store behind any fsspec file system; S3 and what speaks its protocol first.

`create` is one conditional PUT (If-None-Match: *), never multipart: several servers ignore the condition there.
"""

import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar, cast

from ..digests import Json
from ..errors import ObjectMissing, StorageError
from .failures import is_transient, translated
from .filesystems import resolve
from .objects import ObjectInfo, ObjectStore

CREATE_LIMIT_BYTES = 64 * 2**20
"""Well below where s3fs turns to multipart (100 MiB)."""
PAUSES_SECONDS = (0.5, 2.0)
"""Between our own attempts; the client library has retried each of them by then."""
ETAGS = ("ETag", "etag", "md5Hash", "content_hash")
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")

T = TypeVar("T")


class RemoteStore(ObjectStore):
    """A prefix of a bucket. It holds its options unexpanded, so that no secret travels with a pickle."""

    def __init__(self, url: str, options: Mapping[str, Json] | None = None) -> None:
        self.url = url.rstrip("/")
        self.options = dict(options or {})
        resolve(self.url, self.options)

    def get(self, path: str) -> bytes:
        return bytes(self._ask(path, lambda filesystem, name: filesystem.cat_file(name)))

    def create(self, path: str, data: bytes) -> None:
        if len(data) > CREATE_LIMIT_BYTES:
            raise StorageError(
                f"{self.full_url(path)}: {len(data)} bytes are more than one conditional PUT may hold "
                f"({CREATE_LIMIT_BYTES}); only small objects are created once."
            )
        self._ask(path, lambda filesystem, name: filesystem.pipe_file(name, data, mode="create"))

    def put(self, path: str, data: bytes) -> None:
        self._ask(path, lambda filesystem, name: filesystem.pipe_file(name, data))
        self._check_size(path, len(data))

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with tempfile.NamedTemporaryFile(prefix="relabel-") as file:
            with translated(file.name):
                yield cast(BinaryIO, file.file)
                file.flush()
                size = file.tell()
            self._ask(path, lambda filesystem, name: filesystem.put_file(file.name, name))
        self._check_size(path, size)

    def _check_size(self, path: str, written: int) -> None:
        size = self.head(path).size
        if size != written:
            raise StorageError(
                f"{self.full_url(path)}: {written} bytes were written, the store holds {size}. Run again."
            )

    def head(self, path: str) -> ObjectInfo:
        found = self._ask(path, lambda filesystem, name: filesystem.info(name))
        if found["type"] != "file":
            raise ObjectMissing(f"{self.full_url(path)} is a folder, not an object.")
        return describe(path, found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        top = prefix.strip("/")
        root = resolve(self.url, self.options)[1]
        found = self._ask(top, lambda filesystem, name: filesystem.find(name, detail=True))
        below = f"{root}/{top}/" if top else f"{root}/"
        for name in sorted(found):
            if name.startswith(below) and found[name]["type"] == "file" and not name.endswith("/"):
                yield describe(name[len(root) + 1 :], found[name])

    def delete(self, path: str) -> None:
        try:
            self._ask(path, lambda filesystem, name: filesystem.rm_file(name))
        except ObjectMissing:
            return

    def _ask(self, path: str, request: Callable[[Any, str], T]) -> T:
        """The answer to one request, asked again where the store was only busy."""
        filesystem, root = resolve(self.url, self.options)
        name = f"{root}/{path}".rstrip("/")
        for pause in PAUSES_SECONDS:
            try:
                with translated(self.full_url(path)):
                    return request(filesystem, name)
            except StorageError as error:
                if not is_transient(error.__cause__):
                    raise
            time.sleep(pause)
        with translated(self.full_url(path)):
            return request(filesystem, name)


def describe(path: str, found: Mapping[str, Any]) -> ObjectInfo:
    """One type for fsspec's dictionaries, which name things differently per backend."""
    etag = next((str(found[name]) for name in ETAGS if found.get(name)), "")
    modified = next((found[name] for name in TIMES if found.get(name)), 0.0)
    return ObjectInfo(path=path, size=int(found["size"]), etag=etag.strip('"'), modified=seconds(modified))


def seconds(moment: dt.datetime | str | float) -> float:
    """Seconds since the epoch."""
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    return moment.timestamp() if isinstance(moment, dt.datetime) else float(moment)
