"""Small disk: a file system of a megabyte that a test can fill and free; skipped where nothing may be mounted."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = 4096


@dataclasses.dataclass(frozen=True)
class SmallDisk:
    """A tmpfs at `folder`."""

    folder: Path

    @property
    def fillers(self) -> Path:
        return self.folder / "fillers"

    def leave_bytes(self, pages: int) -> None:
        """Fill it but for so many pages; a file takes one at least."""
        self.make_room()
        self.fillers.mkdir()
        free = os.statvfs(self.folder).f_bavail
        assert pages <= free
        (self.fillers / "filler").write_bytes(bytes((free - pages) * PAGE))
        assert os.statvfs(self.folder).f_bavail == pages

    def leave_files(self, files: int) -> None:
        """Fill its table of files but for so many; there is space, but not for a name."""
        self.make_room()
        self.fillers.mkdir()
        for number in range(os.statvfs(self.folder).f_favail - files):
            (self.fillers / str(number)).touch()
        assert os.statvfs(self.folder).f_favail == files

    def make_room(self) -> None:
        shutil.rmtree(self.fillers, ignore_errors=True)


def mount_small_disk(folder: Path, finish: Callable[[Callable[[], object]], None]) -> SmallDisk:
    """`finish` is told how to take it away again."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a small disk cannot be mounted here, which needs root: {mounted.stderr.strip()}")

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()

    finish(unmount)
    return SmallDisk(folder)
