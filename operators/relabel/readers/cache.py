"""Cache: whole shards of a remote source in a folder on local disk, shared by all processes of a machine.

A file is named by its shard's token, so that a changed shard is another file; it is there whole or not at all. What
was not used for longest makes room.
"""

import contextlib
import os
import time
import uuid
from pathlib import Path

from ..errors import BadShard
from ..shards.pinned import Pinned, PinnedFile
from ..shards.shard import Shard
from ..storage.failures import translated
from ..storage.filesystems import is_local
from .fetching import Opener

PART = ".part-"
ATTEMPTS = 3


class Cache:
    """A folder that holds at most so many bytes. Picklable."""

    def __init__(self, folder: str | os.PathLike[str], size_bytes: int) -> None:
        self.folder, self.size_bytes = Path(folder).expanduser().absolute(), size_bytes

    def open(self, shard: Shard, remote: Opener) -> Pinned:
        """The copy of a remote shard, fetched where it is not there; others, and what does not fit, where they lie."""
        path = self.folder / shard.token
        for _ in range(0 if is_local(shard.url) or shard.size > self.size_bytes else ATTEMPTS):
            if not self._touch(path, shard.size):
                self._fetch(shard, remote, path)
            with contextlib.suppress(FileNotFoundError, BadShard):  # another process made room meanwhile
                return PinnedFile(str(path), shard.size, str(path.stat().st_mtime_ns))
        return remote(shard)

    def _touch(self, path: Path, size: int) -> bool:
        """Whether the file is there, whole; it counts as used now."""
        try:
            status = path.stat()
            if status.st_size != size:
                return False
            os.utime(path, ns=(max(status.st_atime_ns + 1, time.time_ns()), status.st_mtime_ns))
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, shard: Shard, remote: Opener, path: Path) -> None:
        with translated(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{shard.token[:16]}{PART}{shard.size}-{uuid.uuid4().hex}"
        self._make_room(shard.size)
        pinned = remote(shard)
        try:
            with translated(str(part)), part.open("xb") as file:
                for chunk in pinned.chunks(0, shard.size):
                    file.write(chunk)
            part.replace(path)
        finally:
            pinned.close()
            part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Delete what was not used for longest until there is room; a file that is open stays readable."""
        files = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                announced = entry.name.partition(PART)[2].partition("-")[0]
                files.append((status.st_atime_ns, int(announced or status.st_size), entry.path, bool(announced)))
        total = sum(held for _, held, _, _ in files)
        for _, held, path, is_part in sorted(files):
            if total + size <= self.size_bytes:
                return
            if not is_part:
                Path(path).unlink(missing_ok=True)
                total -= held
