"""Provenance: the source files that an operator of your own was made from, known by their digests.

Line endings do not count. Files that are no Python (prompts, tables) are not seen: an operator that reads one puts its
digest among the facts of `inspect`.
"""

import functools
import inspect
import sys
from pathlib import Path
from types import ModuleType

from ..digests import Json, digest, sha256
from ..errors import UsageError

OWN = __name__.partition(".")[0]
"""The package whose operators need no digest: their version alone says what they mean."""
SCRIPT = "__main__"


@functools.cache
def source_of(cls: type) -> Json:
    """`{"digest": ..., "files": {name: sha256}}` of what defines `cls` (see `definers`), as it lies on disk now.

    None for relabel's own classes. Raises UsageError where there is no source to be found.
    """
    if is_own(cls):
        return None
    files: dict[str, str] = {}
    for each in definers(cls):
        module = root_module(each.__module__)
        files |= digests(module) if getattr(module, "__file__", None) else {each.__name__: _cell(each)}
    return {"digest": digest(files), "files": files}


def is_own(cls: type) -> bool:
    """Whether it is relabel's."""
    return cls.__module__.partition(".")[0] == OWN


def definers(cls: type) -> list[type]:
    """The operator's class and the operators of the user's own that it derives from, whatever module they lie in."""
    operator = next(base for base in cls.__mro__ if is_own(base) and base.__name__ == "Labeler")
    return [base for base in cls.__mro__ if issubclass(base, operator) and not is_own(base)]


def root_module(name: str) -> ModuleType:
    """The outermost module or package with an `__init__.py` that holds the imported module `name`: what travels."""
    parts = name.split(".")
    modules = [sys.modules[".".join(parts[:length])] for length in range(1, len(parts) + 1)]
    return next((module for module in modules if getattr(module, "__file__", None)), modules[-1])


def digests(module: ModuleType) -> dict[str, str]:
    """Name -> sha256 of the module's file, or of every `*.py` of the package, relative to the folder that holds it."""
    file = Path(str(module.__file__))
    if not hasattr(module, "__path__"):
        return {file.name: file_digest(file)}
    folder = file.parent
    return {path.relative_to(folder.parent).as_posix(): file_digest(path) for path in sorted(folder.rglob("*.py"))}


def file_digest(path: Path) -> str:
    """sha256 with every line ending as a single newline."""
    return sha256(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _cell(cls: type) -> str:
    """For a class that was typed into a notebook."""
    try:
        return sha256(inspect.getsource(cls).encode())
    except (OSError, TypeError) as error:
        raise UsageError(
            f"the source of {cls.__module__}.{cls.__qualname__} cannot be found ({error}), and without it nobody knows "
            "what its labels mean. Put the class into a .py file and name that in the recipe's `plugins:`."
        ) from error
