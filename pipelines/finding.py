"""Finding: the stores below a prefix. A store is looked at no further, so its objects are not listed."""

from collections.abc import Iterator, Mapping
from typing import Any

from relabel.digests import Json
from relabel.releases.versions import MARKER
from relabel.storage.failures import translated
from relabel.storage.filesystems import is_local, resolve

MOST_FOLDERS = 10_000
"""Looked at; a prefix above more than so many is too wide."""


def stores_below(prefix: str, options: Mapping[str, Json] | None = None) -> Iterator[str]:
    """Their URLs, sorted: the prefix itself where it is one, else those in its folders, however deep."""
    filesystem, root = resolve(prefix, options)
    scheme = "" if is_local(prefix) else f"{prefix.partition('://')[0]}://"
    reach, looked = [root], 0
    while reach and looked < MOST_FOLDERS:
        folder, looked = reach.pop(), looked + 1
        with translated(f"{scheme}{folder}"):
            entries: list[dict[str, Any]] = filesystem.ls(folder, detail=True) if filesystem.isdir(folder) else []
        names = {str(entry["name"]).rstrip("/"): entry["type"] for entry in entries}
        if f"{folder}/{MARKER}" in names:
            yield f"{scheme}{folder}"
            continue
        reach += sorted((name for name, kind in names.items() if kind == "directory" and name != folder), reverse=True)
