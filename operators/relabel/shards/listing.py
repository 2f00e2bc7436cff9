"""Listing: from what a recipe calls its source to the files that are there, with size and version.

The root is the deepest folder that all patterns share before their first magic character, so it depends on the
recipe alone and not on what happens to be stored.
"""

import glob
import math
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from ..digests import Json
from ..errors import ObjectMissing, UsageError
from ..storage.failures import translated
from ..storage.filesystems import check_url, is_local, local_path, resolve
from .keys import is_good_key
from .limits import MAX_LISTED_FILES, MAX_LISTING_BYTES
from .ranges import version_of
from .shard import Member, Shard

MAGIC = re.compile(r"[*?\[{]")
GLOB = re.compile(r"[*?\[]")
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
GROUP = re.compile(r"\{([^{}]*)\}")
FEW = 4
"""Up to this many names of one folder are asked for one by one; more, and the folder is listed."""


class Files:
    """The files of a source: `path` is a path, brace pattern, glob, `@listing`, or a list of those. Picklable."""

    def __init__(self, path: str | Sequence[str], options: Mapping[str, Json] | None = None) -> None:
        self.options = dict(options or {})
        self.given = [path] if isinstance(path, str) else list(path)
        if not self.given:
            raise UsageError("source.path is empty; give a path, a pattern or a list of them.")
        self._patterns: list[str] | None = None

    @property
    def patterns(self) -> list[str]:
        """Absolute, with listing files read, braces not yet expanded."""
        if self._patterns is None:
            self._patterns = [pattern for given in self.given for pattern in self._spelled_out(given)]
        return self._patterns

    @property
    def root(self) -> str:
        """The folder that every name is relative to, as a URL or absolute path."""
        return common_folder([folder_before_magic(pattern) for pattern in self.patterns])

    def members(self) -> list[Member]:
        """Every file once, sorted, named relative to the root.

        Raises UsageError where a file that was named is missing, or where nothing is found at all.
        """
        names = sorted({name for pattern in self.patterns for name in expand_braces(pattern)})
        plain = [name for name in names if not GLOB.search(name)]
        found = {**find_named(plain, self.options)}
        if missing := [name for name in plain if name not in found]:
            raise UsageError(
                f"{len(missing)} of the files that source.path names are missing: {', '.join(missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''}. Correct the pattern, or use a glob to take what is there."
            )
        for pattern in names:
            if GLOB.search(pattern):
                found.update(find_glob(pattern, self.options))
        if not found:
            raise UsageError(f"no file matches source.path {', '.join(map(repr, self.given))} (looked in {self.root}).")
        below = self.root.rstrip("/") + "/"  # found once, for it is read from all patterns
        return [Member(url.removeprefix(below), *found[url]) for url in sorted(found)]

    def shards(self) -> list[Shard]:
        """Every file as a shard of its own, sorted by name."""
        members = self.members()
        if odd := [member.path for member in members if not is_good_key(member.path)]:
            shown = ", ".join(ascii(name) for name in odd[:3])
            raise UsageError(
                f"{len(odd)} files have names that are not printable UTF-8 ({shown}), which no release can carry. "
                "Rename them, or choose a pattern that leaves them out."
            )
        root = self.root
        return [Shard(member.path, join(root, member.path), member.size, member.etag) for member in members]

    def _spelled_out(self, given: str) -> Iterator[str]:
        if not given.startswith("@"):
            yield absolute(given)
            return
        listing = absolute(given[1:])
        folder = posixpath.dirname(listing)
        for number, line in enumerate(read_text(listing, self.options).split("\n"), start=1):
            entry = line.strip()
            if entry and not entry.startswith("#"):
                check_entry(entry, f"{listing}, line {number}")
                yield entry if "://" in entry or entry.startswith("/") else join(folder, entry)


Found = dict[str, tuple[int, str]]
"""URL to (size, version)."""


def absolute(path: str) -> str:
    """A URL as it is; a local path from the root, so that workers with another working folder find it."""
    return local_path(path) if is_local(path) else path.rstrip("/")


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def folder_before_magic(pattern: str) -> str:
    """The folder of a pattern: everything before the last slash that precedes its first magic character."""
    magic = MAGIC.search(pattern)
    return posixpath.dirname(pattern[: magic.start()] if magic else pattern)


def common_folder(folders: Sequence[str]) -> str:
    """The deepest folder above all; raises UsageError where there is none."""
    if not folders:
        raise UsageError("source.path names no file at all: the listing is empty.")
    levels = zip(*(folder.split("/") for folder in dict.fromkeys(folders)), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    if not shared or (len(shared) < 3 and "://" in folders[0]):
        raise UsageError(f"all of source.path must lie in one store, got {folders[0]} and {folders[-1]}.")
    return "/".join(shared) or "/"


def expand_braces(pattern: str) -> Iterable[str]:
    """`{a,b}` and `{000..012}`, nested too."""
    if "{" not in pattern:
        return [pattern]
    try:
        if at_least(pattern) > MAX_LISTED_FILES:
            raise too_many(pattern)
        names = list(islice(braceexpand(pattern, escape=False), MAX_LISTED_FILES + 1))
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"source.path {pattern!r}: the braces do not match. Write {{000..012}} or {{a,b}}.") from error
    if len(names) > MAX_LISTED_FILES:
        raise too_many(pattern)
    return names


def at_least(pattern: str) -> int:
    """How many names a pattern spells out: all of them where no braces lie in braces, else of its largest range."""
    spans = [span(match) for match in RANGE.finditer(pattern)]
    if "{" in GROUP.sub("", pattern):
        return max(spans, default=1)
    return math.prod(spans) * math.prod(group[1].count(",") + 1 for group in GROUP.finditer(pattern))


def span(match: re.Match[str]) -> int:
    """How many numbers `{a..b}` spells out."""
    return abs(int(match[2]) - int(match[1])) + 1


def too_many(pattern: str) -> UsageError:
    return UsageError(f"source.path {pattern!r} spells out more than {MAX_LISTED_FILES} names; use a glob.")


def check_entry(entry: str, where: str) -> None:
    """Raises UsageError where a line of a listing file is no name, or carries a secret."""
    try:
        check_url(entry)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def read_text(url: str, options: Mapping[str, Json]) -> str:
    filesystem, path = resolve(url, options)
    try:
        with translated(url):
            size = int(filesystem.info(path)["size"] or 0)
            if size > MAX_LISTING_BYTES:
                raise UsageError(f"the listing file {url} has {size} bytes, at most {MAX_LISTING_BYTES} are read.")
            return bytes(filesystem.cat_file(path)).decode()
    except ObjectMissing as error:
        raise UsageError(f"the listing file {url} is not there; source.path names it with a leading @.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the listing file {url} is not UTF-8 text: one path per line is expected.") from error


def find_named(urls: Sequence[str], options: Mapping[str, Json]) -> Found:
    """Those of `urls` that are files; a folder's many names cost one listing."""
    by_folder: dict[str, list[str]] = {}
    for url in urls:
        by_folder.setdefault(posixpath.dirname(url), []).append(url)
    found: Found = {}
    for folder, wanted in by_folder.items():
        if is_local(folder):
            found.update(look_local(wanted))
        elif len(wanted) <= FEW:
            found.update(look_remote(wanted, options))
        else:
            listed = list_folder(folder, options)
            found.update({url: listed[url] for url in wanted if url in listed})
    return found


def look_local(paths: Iterable[str]) -> Found:
    found: Found = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116  a Path costs as much again as the question
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(status.st_mode):
            found[path] = (status.st_size, str(status.st_mtime_ns))
    return found


def look_remote(urls: Iterable[str], options: Mapping[str, Json]) -> Found:
    found: Found = {}
    for url in urls:
        filesystem, path = resolve(url, options)
        try:
            with translated(url):
                info = filesystem.info(path)
        except ObjectMissing:
            continue
        if info["type"] == "file":
            found[url] = (int(info["size"]), version_of(info))
    return found


def list_folder(url: str, options: Mapping[str, Json]) -> Found:
    """The files directly in a remote folder; none where there is no such folder."""
    filesystem, path = resolve(url, options)
    try:
        with translated(url):
            infos = filesystem.ls(path, detail=True)
    except ObjectMissing:
        return {}
    return remote_files({info["name"]: info for info in infos}, url, path)


def find_glob(pattern: str, options: Mapping[str, Json]) -> Found:
    """Files that match; `**` crosses folders. A glob skips hidden files on local disk, as the shell does."""
    if is_local(pattern):
        return look_local(glob.iglob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes hidden files
    filesystem, path = resolve(pattern, options)
    with translated(pattern):
        infos = filesystem.glob(path, detail=True)
    return remote_files(infos, pattern, path)


def find_below(folder: str, options: Mapping[str, Json]) -> list[Member]:
    """Every file below a folder at any depth, named relative to it, sorted; hidden files and folders left out."""
    if is_local(folder):
        with translated(folder):
            found = list(walk_local(folder)) if Path(folder).is_dir() else []
    else:
        filesystem, path = resolve(folder, options)
        with translated(folder):
            infos = filesystem.find(path, detail=True)
        below = folder.rstrip("/") + "/"
        files = remote_files(infos, folder, path)
        found = [Member(url.removeprefix(below), *files[url]) for url in files]
    return sorted((member for member in found if not is_hidden(member.path)), key=lambda member: member.path)


def walk_local(folder: str, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Member]:
    """Files below a local folder; links are followed, but never into a folder that is being walked."""
    status = Path(folder).stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from walk_local(entry.path, name + "/", above | {identity})
            elif entry.is_file():
                status = entry.stat()
                yield Member(name, status.st_size, str(status.st_mtime_ns))


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def remote_files(infos: Mapping[str, Mapping[str, Any]], url: str, path: str) -> Found:
    """The answers of fsspec under the spelling of `url`, whose path in the file system is `path`."""
    protocol = url[: len(url) - len(path)] if url.endswith(path) else url.partition("://")[0] + "://"
    return {
        protocol + name: (int(info["size"] or 0), version_of(info))
        for name, info in infos.items()
        if info["type"] == "file" and not name.endswith("/")
    }
