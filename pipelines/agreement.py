"""Agreement: how far two labels of one image say the same. Classes are matched by id in one class map, else by name."""

import dataclasses
import functools
import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from relabel.labels.contract import Classes

from .readings import NOTHING, Classified, name_of
from .wording import percent, short_name


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """Two labels' classes by common ids: equal where the classes are the same one."""

    first: Int64[np.ndarray, " classes1"]
    second: Int64[np.ndarray, " classes2"]
    names: Sequence[str]
    """By common id."""
    same_classes: bool
    """One class map: ids are compared."""

    @functools.cached_property
    def num_shared(self) -> int:
        """Classes that are in both."""
        return len(np.intersect1d(self.first, self.second))

    @property
    def note(self) -> str:
        """What is compared, for people."""
        if self.same_classes:
            return f"one class map of {len(self.names)} classes"
        return (
            f"different class maps ({len(self.first)} and {len(self.second)} classes): compared by name, "
            f"{self.num_shared} names are in both"
        )


def correspond(
    first: Classes, first_names: Sequence[str], second: Classes, second_names: Sequence[str]
) -> Correspondence:
    """By id where both have one class map, else by name."""
    names = [name_of(first_names, index) for index in range(first.count)]
    if first == second:
        return Correspondence(np.arange(first.count), np.arange(first.count), names, same_classes=True)
    others = [name_of(second_names, index) for index in range(second.count)]
    shown: dict[str, str] = {}
    for name in (*names, *others):
        shown.setdefault(canonical(name), name)
    ids = {name: index for index, name in enumerate(shown)}
    one, other = (np.array([ids[canonical(name)] for name in each], np.int64) for each in (names, others))
    return Correspondence(one, other, list(shown.values()), same_classes=False)


def canonical(name: str) -> str:
    """Names that differ in case, underscores or further synonyms only are one."""
    return " ".join(short_name(name).replace("_", " ").casefold().split())


def by_common_ids(found: Classified, ids: Int64[np.ndarray, " classes"], num_common: int) -> Classified:
    """The same with common ids for the label's own."""
    return dataclasses.replace(
        found,
        masses=np.bincount(ids, found.masses, minlength=num_common),
        cells=np.where(found.cells == NOTHING, NOTHING, ids[np.maximum(found.cells, 0)]),
    )


@dataclasses.dataclass(frozen=True)
class CellAgreement:
    """How far two labels of one image agree, cell by cell."""

    equal: float
    """The fraction of the compared cells that have one class on both sides; 0 where none is compared."""
    compared: float
    """The fraction of all cells that have any class on both sides: masks leave pixels out."""

    def __str__(self) -> str:
        return f"{percent(self.equal)}" + (f" of {percent(self.compared)}" if self.compared < 1 else "")


def cell_agreement(first: Classified, second: Classified) -> CellAgreement:
    """Where the grids differ, both are taken to the finer one: a cell has the class that lies at its centre."""
    rows, columns = (max(first.cells.shape[axis], second.cells.shape[axis]) for axis in (0, 1))
    one, other = (nearest(each.cells, rows, columns) for each in (first, second))
    both = (one != NOTHING) & (other != NOTHING)
    return CellAgreement(float((one == other)[both].mean()) if both.any() else 0.0, float(both.mean()))


def mean_agreement(agreements: Sequence[CellAgreement]) -> CellAgreement | None:
    """Over several images, each of equal weight per compared cell; None where there is none."""
    if not agreements:
        return None
    compared = statistics.fmean(each.compared for each in agreements)
    equal = statistics.fmean(each.equal * each.compared for each in agreements)
    return CellAgreement(equal / compared if compared else 0.0, compared)


def nearest(cells: Int64[np.ndarray, "y1 x1"], rows: int, columns: int) -> Int64[np.ndarray, "y x"]:
    height, width = cells.shape
    down = (2 * np.arange(rows) + 1) * height // (2 * rows)
    across = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return np.asarray(cells[np.ix_(down, across)])


def old_class(text: str | None, classes: Correspondence) -> int | None:
    """The common id that an old label means: by index where there is one class map, or by name; None where neither."""
    if text is None:
        return None
    if text.isdecimal():
        return int(text) if classes.same_classes and int(text) < len(classes.names) else None
    names = [canonical(name) for name in classes.names]
    return names.index(canonical(text)) if canonical(text) in names else None
