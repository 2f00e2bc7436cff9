"""Tuning folders: one tuning at a time, written whole or not at all, and a full disk is told as one."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from relabel.errors import StorageError, UsageError
from relabel.storage.failures import FULL_ERRNOS

LOCK = "lock"


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Nobody else tunes here meanwhile; raises UsageError where somebody does. A killed tuning leaves it free."""
    with (work / LOCK).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is tuning in {work}. Wait for it, or give another `output`.") from None
        yield


@contextlib.contextmanager
def room(work: Path) -> Iterator[None]:
    """Raises StorageError instead of whatever says that there is no space left."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in FULL_ERRNOS or os.strerror(errno.ENOSPC) in str(error):
            raise StorageError(
                f"the tuning stopped: the disk of {work} is full ({error}). Free some space and run it again: it goes "
                "on from its last checkpoint."
            ) from error
        raise


def settle(folder: Path) -> None:
    """Its files are on the disk, so that renaming it publishes all of them or none."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
