"""Masks: one class per pixel of an image, at the image's own size, in the orientation that the contract names.

A mask is `map` [height, width], uint8 where at most 255 classes leave 255 free for `ignore`, else uint16 and 65535.
Beside it lie the classes that occur and, for each, the mean probability of its pixels. Sizes vary, so a row's map is
plain bytes in C order: `np.frombuffer(row["mask_map"], "|u1").reshape(row["mask_height"], row["mask_width"])`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Shaped, UInt8, UInt16

from ..errors import Refused, UsageError
from .contract import Classes, Column, Geometry, LabelContract, Varying
from .presence import check_presence, name_rows

SUFFIXES = ("map", "height", "width", "classes", "confidence")
MAX_CLASSES = 65535
"""Ids are uint16, and the highest means ignore."""
CONFIDENCE_SLACK = 2.0**-20
"""Means are rounded to float32."""

Ids = UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Mask:
    """The decoded mask of one image."""

    map: UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]
    """Class of every pixel, or `ignore_index`."""
    classes: UInt8[np.ndarray, " present"] | UInt16[np.ndarray, " present"]
    """Classes that occur in `map`, ascending."""
    confidence: Float32[np.ndarray, " present"]
    """Mean over the pixels of each of `classes` of its probability there."""
    num_classes: int
    """How many classes there are; ids lie below."""
    ignore_index: int
    """What pixels hold whose most probable class was not probable enough."""

    def shares(self) -> Float32[np.ndarray, " present"]:
        """The fraction of all pixels that each of `classes` has; what is missing to 1 is ignored."""
        counts = np.bincount(self.map.ravel(), minlength=self.ignore_index + 1)
        return np.asarray(counts[self.classes] / self.map.size, np.float32)

    def top(self, num_classes: int) -> list[tuple[int, float]]:
        """The classes with the most pixels, largest first, as (id, fraction of all pixels)."""
        shares = self.shares()
        best = np.argsort(-shares, kind="stable")[:num_classes]
        return [(int(self.classes[index]), float(shares[index])) for index in best]


def mask_contract(name: str, classes: Classes, geometry: Geometry, min_confidence: float) -> LabelContract:
    """The contract of masks; raises UsageError where no id is left for ignore."""
    if classes.count > MAX_CLASSES:
        raise UsageError(f"a mask has at most {MAX_CLASSES} classes, got {classes.count}. Merge classes.")
    dtype, ignore = id_dtype(classes.count)
    shape = Varying(dtype=dtype, axes=("y", "x"), lengths=(f"{name}_height", f"{name}_width"))
    return LabelContract(
        name=name,
        kind="mask",
        columns=(
            Column(name=f"{name}_map", dtype="bytes", varying=shape),
            Column(name=f"{name}_height", dtype="<i4"),
            Column(name=f"{name}_width", dtype="<i4"),
            Column(name=f"{name}_classes", dtype=f"list:{dtype}"),
            Column(name=f"{name}_confidence", dtype="list:<f4"),
        ),
        classes=classes,
        score_domain="probability",
        ignore_index=ignore,
        min_confidence=min_confidence,
        geometry=geometry,
    )


def id_dtype(num_classes: int) -> tuple[str, int]:
    """The dtype of a map and its ignore index, the highest id of that dtype."""
    return ("|u1", 2**8 - 1) if num_classes < 2**8 else ("<u2", 2**16 - 1)


def decode_row(contract: LabelContract, row: Mapping[str, Any]) -> Mask:
    """One row of a label shard (a mapping of column name to value) as a Mask.

    Raises UsageError for a row without a label, Refused where its columns do not fit each other.
    """
    values = {suffix: row[contract.column(suffix).name] for suffix in SUFFIXES}
    if any(value is None for value in values.values()):
        raise UsageError(
            f"this row holds no {contract.name!r}: its status is {row.get('status', 'unknown')!r}, "
            f"reason {row.get('reason', 'unknown')!r}."
        )
    return _decode(contract, values)


def _decode(contract: LabelContract, values: Mapping[str, Any]) -> Mask:
    assert contract.classes is not None
    assert contract.ignore_index is not None
    height, width, dtype = values["height"], values["width"], np.dtype(_varying(contract).dtype)
    if min(height, width) < 1 or len(values["map"]) != height * width * dtype.itemsize:
        raise Refused(
            f"{contract.name}: the map must be {height} x {width} {dtype.str}, at least one pixel, got "
            f"{len(values['map'])} bytes."
        )
    if len(values["confidence"]) != len(values["classes"]):
        raise Refused(f"{contract.name}: confidence must be one number per class.")
    return Mask(
        map=np.frombuffer(values["map"], dtype).reshape(height, width),
        classes=np.array(values["classes"], dtype),
        confidence=np.array(values["confidence"], np.float32),
        num_classes=contract.classes.count,
        ignore_index=contract.ignore_index,
    )


def _varying(contract: LabelContract) -> Varying:
    if contract.kind != "mask":
        raise Refused(f"the label {contract.name!r} is of kind {contract.kind!r}, expected mask.")
    varying = contract.column("map").varying
    assert varying is not None
    return varying


def decode_column(contract: LabelContract, table: pa.Table) -> Iterator[Mask | None]:
    """The masks of a table one by one, None where a row has none; a map is a view of the table's buffers."""
    _varying(contract)
    columns = {suffix: table.column(contract.column(suffix).name) for suffix in SUFFIXES}
    for row in range(table.num_rows):
        cells = {suffix: column[row] for suffix, column in columns.items()}
        if not all(cell.is_valid for cell in cells.values()):
            yield None
        else:
            others = {suffix: cell.as_py() for suffix, cell in cells.items() if suffix != "map"}
            yield _decode(contract, {"map": cells["map"].as_buffer(), **others})


def check_column(contract: LabelContract, table: pa.Table) -> list[str]:
    """What is wrong with the values of a mask column, one line per kind of fault; empty where nothing is."""
    present = table.column(contract.column("map").name).is_valid().to_numpy()
    faulty: dict[str, list[int]] = {}
    for row in np.flatnonzero(present).tolist():
        for fault in _row_faults(contract, table.slice(row, 1)):
            faulty.setdefault(fault, []).append(row)
    lines = [f"{contract.name}: {what}, broken in {name_rows(_marked(rows, table), table)}"
             for what, rows in faulty.items()]  # fmt: skip
    return lines + check_presence(contract, table, present)


def _marked(rows: list[int], table: pa.Table) -> Shaped[np.ndarray, " rows"]:
    marked = np.zeros(table.num_rows, np.bool_)
    marked[rows] = True
    return marked


def _row_faults(contract: LabelContract, row: pa.Table) -> list[str]:
    try:
        (mask,) = decode_column(contract, row)
    except Refused:
        return ["the map must have height x width elements, and confidence one number per class"]
    return [] if mask is None else _faults(mask, contract.min_confidence or 0.0)


def _faults(mask: Mask, least: float) -> list[str]:
    found = np.flatnonzero(np.bincount(mask.map.ravel(), minlength=1))
    ids = found[found != mask.ignore_index]
    confidence = mask.confidence
    checks = {
        f"ids must lie below {mask.num_classes} or be {mask.ignore_index}": (ids < mask.num_classes).all(),
        "classes must be the ids that occur, ascending": np.array_equal(ids, mask.classes),
        f"confidence must lie between {least:g} and 1": (
            (confidence >= least - CONFIDENCE_SLACK) & (confidence <= 1)
        ).all(),
    }
    return [what for what, kept in checks.items() if not kept]
