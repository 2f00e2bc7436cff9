"""Locks: what was learnt of weights, kept beside the recipe so that planning needs neither weights nor time.

An entry holds while the weight files keep size and time, or are not on this machine. A hub model stays at the commit
that its entry names; delete the entry to move on.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..digests import Json, digest
from ..errors import UsageError
from .labeler import Labeler

FORMAT = 1


class Lock:
    """The facts of labelers, cached in one small JSON file (`None`: in memory only); `read_only` keeps it as it is."""

    def __init__(self, path: Path | None, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self.unwritten: str | None = None
        """Why the file could not be written; facts are then learnt anew by the next process."""
        self._entries: dict[str, Json] = _read(path) if path is not None and path.exists() else {}

    def facts(self, labeler: Labeler[Any]) -> dict[str, Json]:
        """The labeler's facts: from the lock where its weights are unchanged or not here, else inspected and kept."""
        subject = {
            "labeler": labeler.name,
            "version": labeler.version,
            "inspected": labeler.inspected_parameters(),
            **({"source": labeler.source["digest"]} if labeler.source else {}),
        }
        files = _file_states(labeler)
        held = self._entries.get(digest(subject))
        if held is not None and _is_sealed(held) and (not files or held["files"] == files):
            return dict(held["facts"])
        facts = labeler.inspect()
        entry = {**subject, "files": files, "facts": facts}
        self._entries[digest(subject)] = {**entry, "sha256": digest(entry)}
        self._write()
        return facts

    def _write(self) -> None:
        if self.path is None or self.read_only:
            return
        text = json.dumps({"format": FORMAT, "entries": self._entries}, indent=1, sort_keys=True, ensure_ascii=False)
        try:
            _replace(self.path, text + "\n")
        except OSError as error:
            self.unwritten = f"{self.path} was not written ({error.strerror}); weights are inspected again each time."


def _is_sealed(held: Json) -> bool:
    """Whether the entry is as it was written; one that was edited or merged by hand is learnt anew."""
    return isinstance(held, dict) and held.get("sha256") == digest(
        {name: value for name, value in held.items() if name != "sha256"}
    )


def _file_states(labeler: Labeler[Any]) -> dict[str, Json]:
    states = {path.name: path.stat() for path in labeler.weight_files()}
    return {name: {"size": state.st_size, "mtime_ns": state.st_mtime_ns} for name, state in states.items()}


def _read(path: Path) -> dict[str, Json]:
    try:
        held = json.loads(path.read_bytes())
        entries, form = dict(held["entries"]), held["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a lock file that relabel wrote ({error!r}). Delete it.") from error
    if form != FORMAT:
        raise UsageError(f"{path} has format {form}, expected {FORMAT}. Upgrade relabel, or delete the file.")
    return entries


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, for readers and for a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
