"""Local: an object store in a folder.

Whatever is visible is whole: bytes go to a hidden file first, are synced, and get their name by one link or rename.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from ..errors import ObjectMissing, StorageError
from .failures import translated
from .filesystems import local_path
from .objects import ObjectInfo, ObjectStore

HIDDEN = ".relabel-"
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStore(ObjectStore):
    """A folder; it is made by the first write. Hidden files of writers that died are never listed."""

    def __init__(self, url: str) -> None:
        self.url = local_path(url)

    def get(self, path: str) -> bytes:
        with translated(self.full_url(path)):
            return self._file(path).read_bytes()

    def create(self, path: str, data: bytes) -> None:
        target = self._file(path)
        with translated(str(target)), hidden_file(target.parent, data) as hidden:
            link(hidden, target)
            sync_folder(target.parent)

    def put(self, path: str, data: bytes) -> None:
        target = self._file(path)
        with translated(str(target)), hidden_file(target.parent, data) as hidden:
            hidden.replace(target)
            sync_folder(target.parent)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        target = self._file(path)
        hidden = target.parent / (HIDDEN + uuid.uuid4().hex)
        with translated(str(target)):
            try:
                with os.fdopen(open_new(hidden), "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                hidden.replace(target)
                sync_folder(target.parent)
            finally:
                hidden.unlink(missing_ok=True)

    def sweep(self) -> None:
        with translated(self.url):
            for path in Path(self.url).rglob(f"{HIDDEN}*"):
                path.unlink(missing_ok=True)

    def head(self, path: str) -> ObjectInfo:
        with translated(self.full_url(path)):
            found = self._file(path).stat()
        if self._file(path).is_dir():
            raise ObjectMissing(f"{self.full_url(path)} is a folder, not an object.")
        return describe(path, found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (describe(path, status) for path, status in self._statuses(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((path, status.st_size) for path, status in self._statuses(prefix))

    def names(self, prefix: str) -> Iterator[str]:
        top = prefix.strip("/")
        with translated(self.full_url(top)):
            yield from (path for path, _ in walk(str(self._file(top)), f"{top}/" if top else ""))

    def _statuses(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        top = prefix.strip("/")
        with translated(self.full_url(top)):
            for path, entry in walk(str(self._file(top)), f"{top}/" if top else ""):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                yield path, status

    def delete(self, path: str) -> None:
        target = self._file(path)
        with translated(str(target)):
            target.unlink(missing_ok=True)
        remove_empty_folders(target.parent, Path(self.url))

    def _file(self, path: str) -> Path:
        return Path(self.url, path)


def describe(path: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path=path, size=found.st_size, etag=str(found.st_mtime_ns), modified=found.st_mtime)


def walk(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below `folder` in the order of their whole paths; some may have vanished meanwhile."""
    waiting = entries_in(folder, prefix)
    while waiting:
        path, entry = waiting.pop()  # an entry keeps what it is asked: of very many, none is kept
        if path.endswith("/"):
            waiting += entries_in(entry.path, path)
        else:
            yield path, entry


def entries_in(folder: str, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What lies directly in a folder, last path first; the path of a folder ends with a slash."""
    try:
        with os.scandir(folder) as found:
            entries = [
                (prefix + entry.name + "/" if entry.is_dir() else prefix + entry.name, entry)
                for entry in found
                if not entry.name.startswith(HIDDEN) or entry.is_dir()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    entries.sort(key=itemgetter(0), reverse=True)
    return entries


@contextlib.contextmanager
def hidden_file(folder: Path, data: bytes) -> Iterator[Path]:
    """A synced file in `folder` that holds `data`; it is gone afterwards unless it was renamed."""
    hidden = folder / (HIDDEN + uuid.uuid4().hex)
    try:
        descriptor = open_new(hidden)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield hidden
    finally:
        hidden.unlink(missing_ok=True)


def open_new(path: Path, attempts: int = 50) -> int:
    """A descriptor of a new file; its folders are made where they are missing, even if a deleter just removed them."""
    for left in reversed(range(attempts)):
        try:
            if not path.parent.is_dir():
                make_folders(path.parent)
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            if not left:
                raise
    raise AssertionError("attempts must be at least 1")


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def link(hidden: Path, target: Path) -> None:
    try:
        target.hardlink_to(hidden)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise StorageError(
            f"{target}: this file system has no hard links ({error}), so nothing can be created there exactly once. "
            "Put the store on a POSIX file system or an object store."
        ) from error


def make_folders(folder: Path) -> None:
    """Like makedirs, and each new folder's name is durable in its parent."""
    if not folder.parent.is_dir():
        make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Object stores have no folders: one that holds nothing any more goes with its last object."""
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
