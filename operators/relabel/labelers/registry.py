"""Registry: short names to operator classes; from this package, entry points, or a recipe's plugins."""

from importlib.metadata import entry_points
from typing import Any, TypeVar

from ..errors import UnknownName, UsageError
from .labeler import Labeler

ENTRY_POINT_GROUP = "relabel.operators"

_labelers: dict[str, type[Labeler[Any]]] = {}
L = TypeVar("L", bound=type[Labeler[Any]])


def register(cls: L) -> L:
    """Class decorator: makes a labeler known under its `name`."""
    held = _labelers.get(cls.name)
    if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
        raise UsageError(
            f"two labelers want the name {cls.name!r}: {held.__module__}.{held.__qualname__} and "
            f"{cls.__module__}.{cls.__qualname__}. Rename one of them."
        )
    _labelers[cls.name] = cls
    return cls


def labelers() -> dict[str, type[Labeler[Any]]]:
    """Every known labeler by name."""
    from . import label_map  # noqa: F401  registers the built-in labelers

    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
    return dict(sorted(_labelers.items()))


def labeler(name: str) -> type[Labeler[Any]]:
    """The labeler of that name; raises UnknownName with the nearest known one."""
    known = labelers()
    if name not in known:
        raise UnknownName("operator", name, known, "Others are registered by entry points.")
    return known[name]
