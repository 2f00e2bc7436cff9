"""Label rows: the labels of one shard, decoded row by row, only the wanted columns read."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from ..errors import Refused
from ..labels.contract import Column, LabelContract
from ..labels.label_map import LabelMap, decode_column
from ..labels.shard_file import dense
from ..reasons import Reason, Status
from ..releases.release import DECODERS, ROW_COLUMNS, decode
from .wanted import Pinned, Wanted

Decode = Callable[[int], Any]


class LabelRows:
    """One shard's rows in one release."""

    def __init__(self, pinned: Pinned, shard: str) -> None:
        names = [column.name for contract in pinned.labels.values() for column in contract.columns]
        table = pinned.release.table(shard, [*ROW_COLUMNS, *dict.fromkeys(names)])
        self.shard, self.size_bytes = shard, table.nbytes
        self.keys: list[str] = table["key"].to_numpy().tolist()
        self.ok = equal(table["status"], Status.OK)
        self.withdrawn = equal(table["reason"], Reason.WITHDRAWN)
        for other in pinned.line[1:]:
            self.withdrawn |= other.withdrawn.rows(shard, table["key"])
        self.ok &= ~self.withdrawn
        self._digests = table["sample_digest"]
        self.decoders = {name: decoder(contract, table) for name, contract in pinned.labels.items()}

    @functools.cached_property
    def digests(self) -> list[bytes | None]:
        """Of the media that was labelled, by row."""
        digests: list[bytes | None] = self._digests.to_pylist()
        return digests

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Key -> row."""
        return {key: row for row, key in enumerate(self.keys)}


class JoinedRows:
    """One shard's rows of all releases, side by side; row numbers are those of the first."""

    def __init__(self, wanted: Wanted, shard: str) -> None:
        self.shard = shard
        self.parts: list[tuple[LabelRows, Int64[np.ndarray, " rows"] | None]] = []
        """Of every release: its rows, and which of them stands for each of the first's; None: the same one, -1: none.
        A release that has no labels of this shard is left out."""
        self.absent: list[str] = []
        """Names of labels that no row of the shard has."""
        self.main = LabelRows(wanted.main, shard)
        self.parts.append((self.main, None))
        self.part_of = [0]
        self.ok: Bool[np.ndarray, " rows"] = self.main.ok
        self.withdrawn: Bool[np.ndarray, " rows"] = self.main.withdrawn
        for number, pinned in enumerate(wanted.pinned[1:], start=1):
            entry = pinned.release.entries.get(shard)
            if entry is None or entry.data is None:
                self.absent += pinned.labels
                self.ok = np.zeros_like(self.ok)
                continue
            rows = LabelRows(pinned, shard)
            places = aligned(self.main, rows)
            self.parts.append((rows, places))
            self.part_of.append(number)
            self.ok = self.ok & at(rows.ok, places)
            self.withdrawn = self.withdrawn | at(rows.withdrawn, places)
        self.keys = self.main.keys
        self.ok = self.ok & ~self.withdrawn

    @property
    def size_bytes(self) -> int:
        """In memory, about."""
        return sum(rows.size_bytes for rows, _ in self.parts)

    def labels(self, row: int) -> dict[str, Any]:
        """The decoded labels of one row by name; None where a release has none for it."""
        if self.ok[row] and len(self.parts) == 1:
            return {name: decode(row) for name, decode in self.main.decoders.items()}
        found: dict[str, Any] = dict.fromkeys(self.absent)
        for rows, places in self.parts:
            place = row if places is None else int(places[row])
            there = place >= 0 and bool(rows.ok[place])
            found |= {name: decode(place) if there else None for name, decode in rows.decoders.items()}
        return found


def equal(column: pa.ChunkedArray, value: str) -> Bool[np.ndarray, " rows"]:
    """False where it is null; may be written to."""
    same = pc.fill_null(pc.equal(column, pa.scalar(str(value), column.type)), False)
    return np.array(same.to_numpy(), np.bool_)


def aligned(main: LabelRows, other: LabelRows) -> Int64[np.ndarray, " rows"] | None:
    """Which row of `other` has the key of each of main's; None where they are the same, -1 where none has."""
    if main.keys == other.keys:
        return None
    return np.array([other.rows.get(key, -1) for key in main.keys], np.int64)


def at(mask: Bool[np.ndarray, " others"], places: Int64[np.ndarray, " rows"] | None) -> Bool[np.ndarray, " rows"]:
    """The mask in the order of `places`; False where there is no row."""
    if places is None:
        return mask
    return np.asarray(np.append(mask, False)[places], np.bool_)


def decoder(contract: LabelContract, table: pa.Table) -> Decode:
    """What `Release.get` gives of one label, by row; a row must hold it."""
    if contract.kind == "label_map":
        return map_decoder(contract, table)
    cells = {column.name: cell_reader(contract, column, table) for column in contract.columns}
    if contract.kind in DECODERS:
        return lambda row: decode(contract, {name: read(row) for name, read in cells.items()})
    return lambda row: {name: read(row) for name, read in cells.items()}


def map_decoder(contract: LabelContract, table: pa.Table) -> Decode:
    """Views of the column's own buffers."""
    if contract.classes is None:
        raise Refused(f"the label map {contract.name!r} does not say what its classes are.")
    maps, classes = decode_column(contract, table), contract.classes.count
    ids, scores, residual = maps.ids, maps.scores, maps.residual
    heights, widths = maps.height.tolist(), maps.width.tolist()
    return lambda row: LabelMap(ids[row], scores[row], residual[row], heights[row], widths[row], classes)


def cell_reader(contract: LabelContract, column: Column, table: pa.Table) -> Decode:
    """One cell as `decode` wants it: dense ones as arrays of their own, which may be written to."""
    cells = table.column(column.name)
    if column.shape:
        values = dense(table, column)
        if contract.kind in DECODERS:
            return lambda row: values[row].tobytes()
        return lambda row: values[row].copy()
    if pa.types.is_large_binary(cells.type):
        return lambda row: cells[row].as_py()
    listed = cells.to_pylist()
    return lambda row: listed[row]
