"""Changes: how the labels of the same samples differ between two label shards, by the kind of the label.

Classes are the same where their class maps are one, else where their names are one; what cannot be compared is said.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from ..digests import Json
from ..labels import label_map, mask
from ..labels.contract import LabelContract
from ..labels.label_map import LabelMaps
from ..labels.shard_file import dense
from .versions import LabelIdentity

IGNORED = "(ignored)"
SHOWN_CHARACTERS = 60

Tops = tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]
"""The class of each whole sample on both sides, by common id."""


def no_classes() -> Int64[np.ndarray, " classes"]:
    return np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """How one label of two releases is compared."""

    kind: str
    """cells | classes | pixels | texts | values | nothing."""
    before: LabelContract | None = None
    after: LabelContract | None = None
    names: tuple[str, ...] = ()
    """By common id."""
    first: Int64[np.ndarray, " classes1"] = dataclasses.field(default_factory=no_classes)
    second: Int64[np.ndarray, " classes2"] = dataclasses.field(default_factory=no_classes)
    """Common id of each class of one side; one more at the end for what is ignored."""
    notes: tuple[str, ...] = ()
    """What a person must know of it."""
    styles: tuple[str, ...] = ()
    """Of captions, those that both sides have."""


@dataclasses.dataclass
class LabelChanges:
    """What became of one label, over the samples that both releases have labelled; sums over shards."""

    compared: int = 0
    """Samples."""
    changed: int = 0
    """Samples with another value (classes: another class of the whole sample)."""
    cells: int = 0
    """Cells or pixels compared."""
    cells_changed: int = 0
    transitions: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """(class before, class after) -> samples, of those that changed."""
    examples: list[dict[str, Json]] = dataclasses.field(default_factory=list)
    """shard, key, before, after."""

    def add(self, other: "LabelChanges", examples: int) -> None:
        for name in ("compared", "changed", "cells", "cells_changed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.transitions.update(other.transitions)
        self.examples = [*self.examples, *other.examples][:examples]


def comparison(before: LabelIdentity | None, after: LabelIdentity | None) -> Comparison:
    """How to compare one label, or why it cannot be."""
    if before is None or after is None:
        return Comparison("nothing", notes=(f"only in release {'B' if before is None else 'A'}",))
    one, other = before.contract, after.contract
    notes = tuple(differing(before, after))
    if one.kind != other.kind:
        return Comparison("nothing", notes=(f"not compared: a {one.kind} in A, a {other.kind} in B",))
    if one.styles is not None and other.styles is not None:
        return caption_comparison(one, other, one.styles, other.styles, notes)
    if one.classes is None or other.classes is None:
        same = [column.name for column in one.columns] == [column.name for column in other.columns]
        return Comparison(
            "values" if same else "nothing", one, other, notes=notes if same else (*notes, "not compared")
        )
    if one.classes != other.classes and not (before.class_names and after.class_names):
        return Comparison("nothing", notes=(*notes, "not compared: the classes differ and have no names to match by"))
    names, first, second = common_classes(before, after)
    if one.classes != other.classes:
        shared = len(np.intersect1d(first[:-1], second[:-1]))
        notes += (f"class maps differ ({len(first) - 1} and {len(second) - 1}): {shared} names are in both",)
        if not shared:
            return Comparison("nothing", notes=(*notes, "not compared"))
    kind = {"label_map": "cells", "mask": "pixels", "classes": "classes"}.get(one.kind, "values")
    return Comparison(kind, one, other, names, first, second, notes=notes)


def caption_comparison(
    one: LabelContract, other: LabelContract, first: Sequence[str], second: Sequence[str], notes: tuple[str, ...]
) -> Comparison:
    """Captions are the same where their texts are, in the styles that both have; nothing else of them is compared."""
    both = tuple(style for style in first if style in second)
    for name, mine, others in (("A", first, second), ("B", second, first)):
        if alone := [style for style in mine if style not in others]:
            notes += (f"styles only in {name}: {', '.join(alone)}",)
    return Comparison("texts" if both else "nothing", one, other, styles=both, notes=notes)


def differing(before: LabelIdentity, after: LabelIdentity) -> list[str]:
    """What else is not the same, in few words."""
    found = []
    if (before.operator, before.version) != (after.operator, after.version):
        found.append(
            f"made by {before.operator} version {before.version}, then {after.operator} version {after.version}"
        )
    one, other = (
        each.contract.model_dump(mode="json", exclude={"classes", "name", "kind"}) for each in (before, after)
    )
    fields = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return found + ([f"the contracts differ in {', '.join(fields)}"] if fields else [])


def common_classes(
    before: LabelIdentity, after: LabelIdentity
) -> tuple[tuple[str, ...], Int64[np.ndarray, " classes1"], Int64[np.ndarray, " classes2"]]:
    """Names by common id, and the common id of every class of both sides; the last of each is what is ignored."""
    assert before.contract.classes is not None
    assert after.contract.classes is not None
    count = before.contract.classes.count
    names = list(before.class_names) or [f"class {index}" for index in range(count)]
    if before.contract.classes == after.contract.classes:
        places = np.arange(count + 1)
        return (*names, IGNORED), places, places
    ids: dict[str, int] = {}
    for name in (*names, *after.class_names, IGNORED):
        ids.setdefault(name, len(ids))
    first, second = (np.array([ids[name] for name in (*each, IGNORED)]) for each in (names, after.class_names))
    return tuple(ids), first, second


def compare(how: Comparison, shard: str, before: pa.Table, after: pa.Table, examples: int) -> LabelChanges:
    """Two tables of the same samples in the same order, labelled on both sides."""
    found = LabelChanges()
    if how.before is None or how.after is None or not before.num_rows:
        return found
    found.compared = before.num_rows
    if how.kind == "values":
        shown = [shown_values(contract, table) for contract, table in ((how.before, before), (how.after, after))]
        changed = differing_rows(how.before, before, after)
    elif how.kind == "texts":
        texts = [
            texts_of(contract, how.styles, table) for contract, table in ((how.before, before), (how.after, after))
        ]
        changed = np.fromiter((one != other for one, other in zip(*texts, strict=True)), np.bool_, before.num_rows)
        shown = [[shown_text(how.styles, row) for row in rows] for rows in texts]
    else:
        first, second = TOPS[how.kind](how, before, after, found)
        changed = first != second
        shown = [[how.names[index] for index in side] for side in (first, second)]
        found.transitions.update((shown[0][row], shown[1][row]) for row in np.flatnonzero(changed))
    found.changed = int(changed.sum())
    found.examples = [
        {"shard": shard, "key": before["key"][row].as_py(), "before": shown[0][row], "after": shown[1][row]}
        for row in np.flatnonzero(changed)[:examples].tolist()
    ]
    return found


def tops_of_classes(how: Comparison, before: pa.Table, after: pa.Table, found: LabelChanges) -> Tops:
    """The best class of each sample, or that it has none."""
    assert how.before is not None
    assert how.after is not None
    best = [dense(table, each.column("ids"))[:, 0] for each, table in ((how.before, before), (how.after, after))]
    first, second = (
        common[np.minimum(ids, len(common) - 1)] for common, ids in zip((how.first, how.second), best, strict=True)
    )
    return first, second


def tops_of_cells(how: Comparison, before: pa.Table, after: pa.Table, found: LabelChanges) -> Tops:
    """The class with the largest mean probability of each label map (`LabelMap.top`); counts cells by their best."""
    assert how.before is not None
    assert how.after is not None
    assert how.before.classes is not None
    assert how.after.classes is not None
    one, other = label_map.decode_column(how.before, before), label_map.decode_column(how.after, after)
    if one.ids.shape[:3] == other.ids.shape[:3]:
        found.cells = int(np.prod(one.ids.shape[:3]))
        found.cells_changed = int((how.first[one.ids[..., 0]] != how.second[other.ids[..., 0]]).sum())
    tops = top_of_maps(one, how.before.classes.count), top_of_maps(other, how.after.classes.count)
    return how.first[tops[0]], how.second[tops[1]]


def top_of_maps(maps: LabelMaps, classes: int) -> Int64[np.ndarray, " rows"]:
    """The class of each map with the largest mean probability, what lies outside the top k spread evenly."""
    scores, residual = maps.scores.astype(np.float64), maps.residual.astype(np.float64)[..., None]
    highest = np.maximum(scores[..., :1], residual)
    top, rest = np.exp(scores - highest), np.exp(residual - highest)
    total = top.sum(axis=-1, keepdims=True) + rest
    # The even share is everywhere but where a class is among the top k: only what is more than it tells classes apart.
    masses = top / total - rest / total / max(1, classes - scores.shape[-1])
    best = [
        np.bincount(ids.ravel(), mass.ravel(), classes).argmax() for ids, mass in zip(maps.ids, masses, strict=True)
    ]
    return np.array(best, np.int64)


def tops_of_pixels(how: Comparison, before: pa.Table, after: pa.Table, found: LabelChanges) -> Tops:
    """The class with the most pixels of each mask; counts pixels where sizes are equal."""
    assert how.before is not None
    assert how.after is not None
    tops = []
    pairs = zip(mask.decode_column(how.before, before), mask.decode_column(how.after, after), strict=True)
    for one, other in pairs:
        assert one is not None
        assert other is not None
        maps = [by_common_ids(each, common) for each, common in ((one, how.first), (other, how.second))]
        if maps[0].shape == maps[1].shape:
            found.cells += maps[0].size
            found.cells_changed += int((maps[0] != maps[1]).sum())
        tops.append([np.bincount(each.ravel(), minlength=len(how.names)).argmax() for each in maps])
    both = np.array(tops, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def by_common_ids(one: mask.Mask, common: Int64[np.ndarray, " classes"]) -> Int64[np.ndarray, "height width"]:
    table = np.full(one.ignore_index + 1, common[-1], np.int64)
    table[: one.num_classes] = common[:-1]
    return np.asarray(table[one.map])


TOPS: dict[str, Callable[[Comparison, pa.Table, pa.Table, LabelChanges], Tops]] = {
    "cells": tops_of_cells,
    "pixels": tops_of_pixels,
    "classes": tops_of_classes,
}


def differing_rows(contract: LabelContract, before: pa.Table, after: pa.Table) -> Bool[np.ndarray, " rows"]:
    """Which rows differ in any column of a label."""
    differ = np.zeros(before.num_rows, np.bool_)
    for column in contract.columns:
        pairs = zip(before[column.name].to_pylist(), after[column.name].to_pylist(), strict=True)
        differ |= np.fromiter((one != other for one, other in pairs), np.bool_, before.num_rows)
    return differ


def texts_of(contract: LabelContract, styles: Sequence[str], table: pa.Table) -> list[tuple[str, ...]]:
    """Each row's texts, style by style."""
    columns = [table[contract.column(f"{style}_text").name].to_pylist() for style in styles]
    return list(zip(*columns, strict=True))


def shown_text(styles: Sequence[str], texts: Sequence[str]) -> str:
    """`a cat`, or `short: a cat; long: A cat lies on ...`, all of it."""
    if len(styles) == 1:
        return texts[0]
    return "; ".join(f"{style}: {text}" for style, text in zip(styles, texts, strict=True))


def shown_values(contract: LabelContract, table: pa.Table) -> list[str]:
    """Each row's label in a few characters: `mean 0.412, spread 0.2`, or a text as it is."""
    columns = {column.name.removeprefix(f"{contract.name}_"): column for column in contract.columns}
    cells = [[shown_cell(cell) for cell in table[column.name].to_pylist()] for column in columns.values()]
    alone = len(columns) == 1
    labels = zip(*cells, strict=True)
    rows = (row[0] if alone else ", ".join(map(" ".join, zip(columns, row, strict=True))) for row in labels)
    return [row if len(row) <= SHOWN_CHARACTERS else row[: SHOWN_CHARACTERS - 1] + "…" for row in rows]


def shown_cell(cell: Json) -> str:
    if isinstance(cell, bytes):
        return f"{len(cell)} bytes"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
