"""Registry: short names to operator classes; from this package, entry points, or a recipe's plugins."""

import importlib
import re
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from ..errors import RelabelError, UnknownName, UsageError
from .failures import OWN_CODE_ERRORS
from .labeler import Labeler, Parameters

ENTRY_POINT_GROUP = "relabel.operators"
NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
"""Also the label's name where a recipe gives none, and the beginning of its columns' names."""

_labelers: dict[str, type[Labeler[Any]]] = {}
L = TypeVar("L", bound=type[Labeler[Any]])


def register(cls: L) -> L:
    """Class decorator: makes a labeler known under its `name`; raises UsageError where it is not complete."""
    check_declaration(cls)
    held = _labelers.get(cls.name)
    if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
        raise UsageError(
            f"two labelers want the name {cls.name!r}: {held.__module__}.{held.__qualname__} and "
            f"{cls.__module__}.{cls.__qualname__}. Rename one of them."
        )
    _labelers[cls.name] = cls
    return cls


def check_declaration(cls: type[Any]) -> None:
    """Raises UsageError, naming what to write, where a class lacks what every labeler declares."""
    where = f"{cls.__module__}.{cls.__qualname__}"
    if not issubclass(cls, Labeler):
        raise UsageError(f"an operator derives from relabel.Labeler; {where} does not.")
    name, version = getattr(cls, "name", None), getattr(cls, "version", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{where}.name must be lower-case letters, digits and _ (at most 48), got {name!r}.")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UsageError(f"{where}.version must be a whole number from 1, got {version!r}. Begin with `version = 1`.")
    if not (isinstance(cls.Parameters, type) and issubclass(cls.Parameters, Parameters)):
        raise UsageError(f"{where}.Parameters must be a class that derives from relabel.Parameters.")
    if not isinstance(cls.needs, tuple) or not all(isinstance(need, str) for need in cls.needs):
        raise UsageError(f"{where}.needs must be a tuple of field names such as ('image',), got {cls.needs!r}.")
    if missing := sorted(cls.__abstractmethods__):
        raise UsageError(f"{where} lacks {', '.join(missing)}: a labeler writes, prepares and labels.")


def registered() -> list[type[Labeler[Any]]]:
    """What is registered by now; entry points that nobody asked for are not among them."""
    return list(_labelers.values())


def restore(classes: list[type[Labeler[Any]]]) -> None:
    """Back to what `registered` gave."""
    _labelers.clear()
    _labelers.update({cls.name: cls for cls in classes})


BUILT_IN = (
    "..labelers.label_map",
    "..labelers.caption",
    "..labelers.caption_fuse",
    "..labelers.embed_text",
    "..labelers.given_class",
    "..labelers.mask",
    "..labelers.pseudo_label",
    "..labelers.routed_label",
    "..metrics.caption_match",
    "..metrics.confident_learning",
    "..metrics.image_text_score",
    "..refiners.dawid_skene",
    "..refiners.distil",
    "..refiners.fold_out",
    "..refiners.judge_ensemble",
    "..refiners.label_prior",
    "..selectors.hash_sample",
)
"""Modules of relabel that register operators, by name: the registry knows none of them."""


def load_built_in() -> None:
    """Registers relabel's own operators."""
    for module in BUILT_IN:
        importlib.import_module(module, __package__)


def labelers() -> dict[str, type[Labeler[Any]]]:
    """Every known labeler by name."""
    load_built_in()
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        _load(entry_point)
    return dict(sorted(_labelers.items()))


def _load(entry_point: EntryPoint) -> None:
    """Imports an installed plugin; a class that it points to is registered, whether or not the plugin did so."""
    from .plugins import explain_import

    try:
        found = entry_point.load()
    except OWN_CODE_ERRORS as error:
        if isinstance(error, RelabelError):
            raise
        distribution = entry_point.dist.name if entry_point.dist else "unknown"
        raise UsageError(
            f"{explain_import(entry_point.module, error)} It was installed by the distribution {distribution}: mend "
            "or uninstall it."
        ) from error
    if isinstance(found, type):
        register(found)


def labeler(name: str) -> type[Labeler[Any]]:
    """The labeler of that name; raises UnknownName with the nearest known one."""
    load_built_in()
    # What is known already needs no entry point, so that a broken plugin spoils only what uses it.
    known = _labelers if name in _labelers else labelers()
    if name not in known:
        raise UnknownName("operator", name, known, "Your own are named in the recipe's `plugins:`, or installed.")
    return known[name]
