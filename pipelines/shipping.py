"""Shipping: what of this machine a job on a cluster needs, and nothing else: recipe, lock file, plugins, small files.

Files keep their places to one another, so that the recipe means the same there and makes the same fingerprint.
"""

import dataclasses
import fnmatch
import os
import posixpath
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json, digest, sha256
from relabel.errors import UsageError
from relabel.labelers.plugins import is_path
from relabel.storage.filesystems import REFERENCE

from .loading import find, load, lock_path
from .recipe import Recipe

SECRET_FILES = (
    ".env*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_*",
    "credentials*",
    ".netrc",
    "*.keytab",
    "kubeconfig*",
)
"""Names of files that are never shipped."""
MAX_BYTES = 100 << 20
"""Together: Ray keeps packages in the memory of the head."""
LEFT_OUT = ("__pycache__", "*.egg-info", ".*")
"""Of a plugin's folder."""


@dataclasses.dataclass(frozen=True)
class Shipment:
    """A working directory for a job."""

    recipe: Recipe
    files: Mapping[str, bytes]
    """By their paths in it."""
    folder: str
    """Where in it the job starts."""
    path: str
    """The recipe's, from `folder`."""
    variables: tuple[str, ...]
    """Environment variables that the recipe names; they must be set on the cluster."""

    @property
    def digest(self) -> str:
        return digest({**{name: sha256(data) for name, data in self.files.items()}, "": [self.folder, self.path]})

    def write(self, folder: Path) -> None:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def pack(recipe: str | Path, overrides: Sequence[str] = (), wheels: Sequence[str | Path] = ()) -> Shipment:
    """What a job needs to run this recipe, and the contents of `wheels`. Raises UsageError for what cannot travel."""
    checked, path = load(recipe, overrides), Path(os.path.normpath(find(recipe).absolute()))
    require_shared(checked)
    given = list(parameter_files(checked))
    away = [plugin for plugin in checked.plugins if is_path(plugin) and not (path.parent / plugin).exists()]
    here = Path.cwd() if given or away else path.parent
    lock = lock_path(recipe)
    files = [
        path,
        *([lock.absolute()] if lock is not None and lock.is_file() else []),
        *(file for plugin in checked.plugins if is_path(plugin) for file in plugin_files(plugin, path.parent)),
        *(Path.cwd() / name for name in given),
    ]
    files = [Path(os.path.normpath(file)) for file in files]
    root = Path(os.path.commonpath([here, *(file.parent for file in files)]))
    packed = {name: data for wheel in wheels for name, data in unpacked(Path(wheel))}
    for file in files:
        refuse_secret(file)
        packed[file.relative_to(root).as_posix()] = content(file)
    if (size := sum(map(len, packed.values()))) > MAX_BYTES:
        raise UsageError(f"a job carries at most {MAX_BYTES >> 20} MiB of files, got {size >> 20} MiB: put models and "
                         "data on storage that all nodes share, or into the image.")  # fmt: skip
    start = here.relative_to(root).as_posix()
    return Shipment(
        checked, dict(sorted(packed.items())), start, os.path.relpath(path, here), tuple(sorted(variables_of(checked)))
    )


def require_shared(recipe: Recipe) -> None:
    """Raises UsageError where source or store would lie in the job's own folder, which is thrown away."""
    paths = [recipe.source.path] if isinstance(recipe.source.path, str) else list(recipe.source.path)
    for field, each in [*(("source.path", each) for each in paths), ("store.url", recipe.store.url)]:
        if "://" not in each and not Path(each.removeprefix("@")).is_absolute():
            raise UsageError(
                f"{field}: {each!r} is relative to this folder, which the cluster does not have. Give a URL "
                "(s3://bucket/prefix), or an absolute path of a file system that all nodes share."
            )


def parameter_files(recipe: Recipe) -> Iterator[str]:
    """Relative paths of files that the steps' parameters name (a taxonomy, a classifier); absolute ones are shared."""
    for step in recipe.steps:
        for place, text in strings(step.parameters, step.label):
            if len(text) > 1024 or "\n" in text or "\0" in text or "://" in text or text.startswith(("~", "/")):
                continue
            if Path(text).is_file():
                yield text
            elif ("/" in text or text.startswith(".")) and Path(text).is_dir():
                raise UsageError(
                    f"steps.{place}: the folder {text!r} lies on this machine. Folders do not travel with a job: name "
                    "one by an absolute path on a file system that all nodes share, or put it into the image."
                )


def strings(value: Json, place: str) -> Iterator[tuple[str, str]]:
    """Every string below `value` and its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from strings(each, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from strings(each, f"{place}.{index}")


def variables_of(recipe: Recipe) -> set[str]:
    """Names of environment variables: `${NAME}` anywhere, and what fields such as `api_key_env` hold."""
    found: set[str] = set()
    fields: Any = recipe.to_json()
    for place, text in strings(fields, ""):
        found.update(REFERENCE.findall(text))
        if place.endswith("_env") and text.isidentifier():
            found.add(text)
    return found


def plugin_files(plugin: str, folder: Path) -> Iterator[Path]:
    """The file, or those of the package folder."""
    if Path(plugin).expanduser().is_absolute():
        raise UsageError(f"plugins: {plugin!r}: a job finds it by its place beside the recipe: give a relative path.")
    found = next(place for place in (folder / plugin, Path.cwd() / plugin) if place.exists())  # `load` has found it
    if found.is_file():
        yield found
        return
    for path in sorted(found.rglob("*")):
        parts = path.relative_to(found).parts
        for secret in (part for part in parts if matches(part, SECRET_FILES)):
            refuse_secret(path, secret)
        if path.is_file() and not any(matches(part, LEFT_OUT) for part in parts):
            yield path


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def refuse_secret(file: Path, name: str = "") -> None:
    if matches(name or file.name, SECRET_FILES):
        raise UsageError(
            f"{file} looks as if it held a secret, and files of a job can be read by everyone on the cluster. Move it "
            "away from what the recipe names; secrets come to the cluster by its environment."
        )


def content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}.") from None


def unpacked(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """What a wheel of pure Python holds: it lies in the working directory, before what the image has."""
    if not wheel.name.endswith("-none-any.whl"):
        raise UsageError(
            f"expected a wheel of pure Python (...-none-any.whl), got {wheel.name}. Put others into the image."
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if posixpath.normpath(info.filename) != info.filename or info.filename.startswith(("/", "..")):
                    raise UsageError(f"{wheel}: the member {info.filename!r} leaves its folder.")
                yield info.filename, archive.read(info)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{wheel}: no wheel can be read there: {error}.") from None
