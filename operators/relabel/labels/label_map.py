"""Label maps: for every cell of a grid over the image, the k most probable classes and the mass of all others.

Axes are `[y, x, k]`, y down, x right, in the orientation that the contract names (arXiv 2101.05022). Scores are
logits; with the residual r, the logsumexp of the classes left out, p_i = exp(s_i) / (sum_j exp(s_j) + exp(r)) is the
softmax over all classes: what lies outside the top k is known in sum and unknown only in its parts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Float32, Float64, Int32, Shaped, UInt16

from ..errors import Refused, UsageError
from .contract import Classes, Column, Geometry, LabelContract, Quantiser
from .presence import check_presence, name_rows
from .shard_file import dense

SCORE_ERROR = 2.0**-11
"""Half a unit in the last place of float16, relative."""

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The decoded label map of one image."""

    ids: UInt16[np.ndarray, "y x k"] | Int32[np.ndarray, "y x k"]
    """Classes, most probable first."""
    scores: Float16[np.ndarray, "y x k"]
    """Logits of `ids`, not increasing along k."""
    residual: Float16[np.ndarray, "y x"]
    """logsumexp of the logits of the classes left out; -inf where none is left out."""
    height: int
    """Of the source image in its labelled orientation, pixels."""
    width: int
    classes: int
    """How many classes there are; ids lie below."""

    def top_probabilities(self) -> tuple[Float64[np.ndarray, "y x k"], Float64[np.ndarray, "y x"]]:
        """Probabilities of `ids`, and of all other classes together; they sum to 1 in every cell."""
        scores, residual = self.scores.astype(np.float64), self.residual.astype(np.float64)
        highest = np.maximum(scores[..., 0], residual)
        top, rest = np.exp(scores - highest[..., None]), np.exp(residual - highest)
        total = top.sum(axis=-1) + rest
        return top / total[..., None], rest / total

    def probabilities(self) -> Float32[np.ndarray, "y x classes"]:
        """Dense softmax over all classes; the mass outside the top k is spread evenly over the others."""
        top, rest = self.top_probabilities()
        others = max(1, self.classes - self.ids.shape[-1])
        full = np.repeat((rest / others)[..., None], self.classes, axis=-1)
        np.put_along_axis(full, self.ids.astype(np.int64), top, axis=-1)
        return full.astype(np.float32)

    def top(self, num_classes: int) -> list[tuple[int, float]]:
        """The classes with the largest mean probability over all cells, largest first, as (id, probability)."""
        mean = self.probabilities().mean(axis=(0, 1), dtype=np.float64)
        best = np.argsort(-mean, kind="stable")[:num_classes]
        return [(int(index), float(mean[index])) for index in best]


def label_map_contract(
    name: str, classes: Classes, grid: tuple[int, int], top_k: int, geometry: Geometry
) -> LabelContract:
    """The contract of a label map of `grid` cells (y, x); raises UsageError where there are fewer classes than k."""
    if not 1 <= top_k <= classes.count:
        raise UsageError(f"top_k must be between 1 and the {classes.count} classes, got {top_k}.")
    return LabelContract(
        name=name,
        kind="label_map",
        columns=(
            Column(name=f"{name}_ids", dtype=id_dtype(classes.count), shape=(*grid, top_k), axes=("y", "x", "k")),
            Column(name=f"{name}_scores", dtype="<f2", shape=(*grid, top_k), axes=("y", "x", "k")),
            Column(name=f"{name}_residual", dtype="<f2", shape=grid, axes=("y", "x")),
            Column(name=f"{name}_height", dtype="<i4"),
            Column(name=f"{name}_width", dtype="<i4"),
        ),
        classes=classes,
        score_domain="logit",
        top_k=top_k,
        residual="logsumexp_of_the_rest",
        quantiser=Quantiser(dtype="<f2", max_relative_error=SCORE_ERROR),
        geometry=geometry,
    )


def id_dtype(num_classes: int) -> str:
    """uint16 where every id fits, else int32; never a float, which would lose ids above 2048."""
    return "<u2" if num_classes < 2**16 else "<i4"


def encode(logits: Float32[np.ndarray, "rows classes y x"], top_k: int) -> Arrays:
    """`ids`, `scores` and `residual` of dense logits: sorted, ties to the lower id, -inf residual if k is all classes.

    The reference for faster encoders (see `labelers.top_k`).
    """
    cells = np.array(np.moveaxis(logits, 1, -1), order="C")
    order = np.argsort(-cells, axis=-1, kind="stable")[..., :top_k]
    scores = np.take_along_axis(cells, order, axis=-1)
    np.put_along_axis(cells, order, -np.inf, axis=-1)
    residual = np.full(cells.shape[:-1], -np.inf, np.float32)
    if top_k < cells.shape[-1]:
        highest = cells.max(axis=-1)
        residual = np.log(np.exp(cells - highest[..., None]).sum(axis=-1)) + highest
    return {
        "ids": order.astype(id_dtype(cells.shape[-1])),
        "scores": scores.astype(np.float16),
        "residual": residual.astype(np.float16),
    }


def decode_row(contract: LabelContract, row: Mapping[str, Any]) -> LabelMap:
    """One row of a label shard (a mapping of column name to value) as a LabelMap."""
    assert contract.classes is not None
    values = {suffix: row[contract.column(suffix).name] for suffix in ("ids", "scores", "residual", "height", "width")}
    if any(value is None for value in values.values()):
        raise UsageError(
            f"this row holds no {contract.name!r}: its status is {row.get('status', 'unknown')!r}, "
            f"reason {row.get('reason', 'unknown')!r}."
        )
    arrays = {suffix: _from_bytes(contract.column(suffix), values[suffix]) for suffix in ("ids", "scores", "residual")}
    return LabelMap(**arrays, height=values["height"], width=values["width"], classes=contract.classes.count)


def _from_bytes(column: Column, data: bytes) -> Shaped[np.ndarray, "..."]:
    return np.frombuffer(data, column.dtype).reshape(column.shape)


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """The label maps of a table, stacked; rows without a label are unspecified where `present` is false."""

    present: Bool[np.ndarray, " rows"]
    ids: UInt16[np.ndarray, "rows y x k"] | Int32[np.ndarray, "rows y x k"]
    scores: Float16[np.ndarray, "rows y x k"]
    residual: Float16[np.ndarray, "rows y x"]
    height: Int32[np.ndarray, " rows"]
    width: Int32[np.ndarray, " rows"]


def decode_column(contract: LabelContract, table: pa.Table) -> LabelMaps:
    """All rows at once; the arrays are views of the table's buffers where it has one chunk."""
    if contract.kind != "label_map":
        raise Refused(f"the label {contract.name!r} is of kind {contract.kind!r}, expected label_map.")
    ids = contract.column("ids")
    return LabelMaps(
        present=table.column(ids.name).is_valid().to_numpy(),
        ids=dense(table, ids),
        scores=dense(table, contract.column("scores")),
        residual=dense(table, contract.column("residual")),
        height=_scalars(table, contract.column("height")),
        width=_scalars(table, contract.column("width")),
    )


def _scalars(table: pa.Table, column: Column) -> Shaped[np.ndarray, " rows"]:
    return np.asarray(table.column(column.name).fill_null(0).to_numpy(), column.dtype)


def check_column(contract: LabelContract, table: pa.Table) -> list[str]:
    """What is wrong with the values of a label map column, one line per kind of fault; empty where nothing is."""
    assert contract.classes is not None
    maps = decode_column(contract, table)
    scores, residual = maps.scores.astype(np.float32), maps.residual
    everything = contract.top_k == contract.classes.count
    bad_residual = np.isnan(residual) | (residual == np.inf) | ((residual == -np.inf) != everything)
    faults = {
        f"ids must lie below {contract.classes.count}": (maps.ids >= contract.classes.count) | (maps.ids < 0),
        "ids must be unique within a cell": np.diff(np.sort(maps.ids, axis=-1).astype(np.int64), axis=-1) == 0,
        "scores must be finite": ~np.isfinite(scores),
        "scores must not increase along k": np.diff(scores, axis=-1) > 0,
        "residual must be finite (-inf where k is all classes)": bad_residual,
        "height and width must be at least 1": np.minimum(maps.height, maps.width) < 1,
    }
    found = {what: _rows_with(fault) & maps.present for what, fault in faults.items()}
    lines = [f"{contract.name}: {what}, broken in {name_rows(bad, table)}" for what, bad in found.items() if bad.any()]
    return lines + check_presence(contract, table, maps.present)


def _rows_with(fault: Bool[np.ndarray, "rows ..."]) -> Bool[np.ndarray, " rows"]:
    return np.asarray(fault.reshape(len(fault), -1).any(axis=1)) if fault.size else np.zeros(len(fault), np.bool_)
