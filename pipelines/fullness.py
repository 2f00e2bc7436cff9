"""Fullness: what a run says when Ray has no room left, before or while it works: what is full, and what to do."""

import errno
import os
import tempfile
from pathlib import Path

from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from relabel.errors import RelabelError, StorageError
from relabel.storage.failures import FULL_ERRNOS

MIN_BYTES = 1 << 20
"""A local Ray writes 0.2 MB before its first task. With less room it waits for half a minute, and blames the load."""
KEPT = "Finished shards are kept; run again to go on."


def session_folder() -> str:
    """Where a local Ray keeps its sockets and logs, and what its object store has no room for."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray")  # noqa: PTH118  (a message)


def out_of_room(error: BaseException) -> StorageError | None:
    """The error of ours, where a worker's or the driver's was that something is full."""
    if isinstance(error, OutOfDiskError | ObjectStoreFullError):
        return StorageError(
            "the run stopped: Ray's object store is full, and so is the disk to which it spills "
            f"({session_folder()}, on a cluster the node's). Free some space there, or set RAY_TMPDIR to a folder on a "
            f"larger disk; a lower resources.part_rows keeps less in flight. {KEPT}"
        )
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
        return StorageError(f"the run stopped: a disk is full ({error}). Free some space. {KEPT}")
    return None


def require_room() -> None:
    """Raises StorageError where a local Ray has no room to start."""
    folder = next(each for each in [Path(session_folder()), *Path(session_folder()).parents] if each.is_dir())
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < MIN_BYTES:
        raise no_room_to_start(f"{found.f_bavail * found.f_frsize} bytes are left")


def failed_start(error: Exception) -> RelabelError:
    """What to say of a local Ray that did not start."""
    what = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    if (isinstance(error, OSError) and error.errno in FULL_ERRNOS) or os.strerror(errno.ENOSPC) in str(error):
        return no_room_to_start(what)
    return RelabelError(f"Ray could not start ({type(error).__name__}: {what}). (RELABEL_DEBUG=1 shows the traceback.)")


def no_room_to_start(what: str) -> StorageError:
    return StorageError(
        f"Ray could not start, because the disk of its folder {session_folder()} is full ({what}). Free some space "
        "there, or set RAY_TMPDIR to a folder on another disk, and run again; nothing is lost."
    )
