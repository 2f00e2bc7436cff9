"""Plugins: operators of your own, imported from where a recipe's `plugins:` says.

A plugin is a module that can be imported, or a path to a .py file or to a package folder. It is imported once per
process, under the name that it has on every worker: the name of its file or folder.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import RelabelError, UsageError
from . import registry
from .failures import OWN_CODE_ERRORS
from .provenance import digests, root_module

_seen: dict[str, dict[str, str]] = {}
"""Module -> its files' digests when this process imported it."""
_places: dict[str, Path] = {}
"""Path as written -> where it was found, for a recipe that is loaded again without its folder."""


def load_plugin(reference: str, folders: Sequence[Path] = ()) -> ModuleType:
    """Import one plugin, so that its operators are registered; a second time finds the same module.

    `folders` are where a relative path may start, in order; the working directory comes last. Raises UsageError where
    it cannot be found or imported, registers nothing, or was edited since this process imported it.
    """
    registry.load_built_in()
    if not is_path(reference) and reference not in sys.modules:
        _refuse_folder(reference, folders)
    module = _import_path(_find(reference, folders)) if is_path(reference) else _import_name(reference)
    root = root_module(module.__name__)
    if not any(root_module(cls.__module__) is root for cls in registry.registered()):
        raise UsageError(
            f"the plugin {reference!r} registers no operator. Put `@register` (from relabel import register) above a "
            "class that derives from relabel.Labeler."
        )
    return module


def is_path(reference: str) -> bool:
    return "/" in reference or reference.endswith(".py") or reference.startswith((".", "~"))


def _refuse_folder(reference: str, folders: Sequence[Path]) -> None:
    """A package folder beside the recipe that was meant by its bare name."""
    for folder in (*folders, Path.cwd()):
        if (folder / reference / "__init__.py").is_file() and importlib.util.find_spec(reference) is None:
            raise UsageError(
                f"no module {reference!r} is installed here. The folder {folder / reference} is named with a slash: "
                f"plugins: [./{reference}]."
            )


def _find(reference: str, folders: Sequence[Path]) -> Path:
    """The file or folder that a path means."""
    tried = [(folder / Path(reference).expanduser()).resolve() for folder in (*folders, Path.cwd())]
    found = next((path for path in tried if path.exists()), _places.get(reference))
    if found is None:
        places = " and ".join(dict.fromkeys(str(path) for path in tried))
        raise UsageError(f"no plugin {reference!r}: looked for {places}. A relative path starts at the recipe's file.")
    if found.is_dir() and not (found / "__init__.py").is_file():
        raise UsageError(
            f"the plugin {reference!r} is the folder {found} without an __init__.py. Name the package folder inside "
            "it, or a .py file."
        )
    _places[reference] = found
    return found


def _import_path(path: Path) -> ModuleType:
    """The module of a .py file or package folder, under the name of the file or folder."""
    name, file = path.stem if path.is_file() else path.name, path / "__init__.py" if path.is_dir() else path
    if not name.isidentifier() or file.suffix != ".py":
        raise UsageError(
            f"a plugin is a .py file or a package folder whose name Python can import (letters, digits and _), got "
            f"{path.name!r}. Rename it."
        )
    if (path.parent / "__init__.py").is_file():
        raise UsageError(f"the plugin {path} is a part of the package {path.parent}: name that folder in `plugins:`.")
    held = sys.modules.get(name)
    if held is None:
        _refuse_taken(name, file)
        return _first_import(name, lambda: import_file(name, file))
    if not _is_file(getattr(held, "__file__", None), file):
        place = getattr(held, "__file__", "Python itself")
        raise UsageError(f"the plugin {path} has the name of the module {place}. Rename one of them.")
    return _refuse_edited(held)


def _import_name(name: str) -> ModuleType:
    if name in sys.modules:
        return _refuse_edited(sys.modules[name])
    return _first_import(name, lambda: importlib.import_module(name))


def import_file(name: str, file: Path) -> ModuleType:
    """Run a file as the module `name`; a package where it is an `__init__.py`."""
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _first_import(name: str, work: Callable[[], ModuleType]) -> ModuleType:
    """What `work` imports; where it fails nothing stays registered."""
    before = registry.registered()
    try:
        module = work()
    except OWN_CODE_ERRORS as error:
        registry.restore(before)
        if isinstance(error, RelabelError):
            raise
        raise UsageError(explain_import(name, error)) from error
    _seen[name] = _current(module)
    return module


def explain_import(name: str, error: BaseException) -> str:
    """Where and why a plugin could not be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return f"no module {name!r} can be imported here. Install it, or name the plugin by a path that ends in .py."
    if isinstance(error, SyntaxError):
        return f"the plugin {name!r} is not valid Python: {error.filename}:{error.lineno}: {error.msg}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f"the plugin {name!r} cannot be imported: {last.filename}:{last.lineno}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and Path(last.filename).with_name(f"{error.name}.py").is_file():
        return (
            f"{what}. Only the plugin travels to workers: put both files into a folder with an __init__.py, name that "
            f"folder, and import by `from .{error.name} import ...`."
        )
    return what


def _refuse_taken(name: str, file: Path) -> None:
    """Another module of that name would be found by a worker, or hidden from it."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None and not _is_file(spec.origin, file):
        raise UsageError(
            f"the plugin {file} has the name of the module {spec.origin}, and workers could import either. Rename the "
            "plugin, or name that module in `plugins:` without a path."
        )


def _refuse_edited(module: ModuleType) -> ModuleType:
    """What is on disk is what a worker would import; this process holds what it was before."""
    now = _current(module)
    if _seen.setdefault(module.__name__, now) != now:
        raise UsageError(
            f"the plugin {module.__name__!r} was edited after this process imported it. Start a new process (in a "
            "notebook: restart the kernel)."
        )
    return module


def _current(module: ModuleType) -> dict[str, str]:
    root = root_module(module.__name__)
    return digests(root) if getattr(root, "__file__", None) else {}


def _is_file(found: str | None, file: Path) -> bool:
    return found is not None and Path(found).exists() and Path(found).resolve() == file.resolve()
