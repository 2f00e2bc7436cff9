"""Same: how far two labels of one sample that were made by the same labeler agree, in [0, 1], whatever their kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from relabel.labelers.engine_labeler import EngineLabeler
from relabel.labelers.labeler import Labeler
from relabel.labels.contract import Column, LabelContract
from relabel.labels.label_map import LabelMap
from relabel.labels.mask import Mask
from relabel.metrics.caption_match import word_f1, words_of
from relabel.releases.release import decode, decode_cell

CLOSE = 0.02
"""Numbers that differ by less, of themselves or of the largest of their vector, are equal."""

Cells = Mapping[str, Any]
"""One row of label columns, as a label shard holds them."""


def repeats(labeler: Labeler[Any]) -> bool:
    """Whether equal samples are promised equal labels, whatever stands beside them."""
    if isinstance(labeler, EngineLabeler) and not labeler.engine_config.reproducible:
        return False
    return labeler.writes().reproducible is not False


def sameness(contract: LabelContract, one: Cells, other: Cells) -> float:
    """1 for equal bytes; else the share of cells or pixels with one class, whether the best class is one, word F1 of
    the texts, or the share of numbers that are close.
    """
    columns = contract.columns
    if all(one[column.name] == other[column.name] for column in columns):
        return 1.0
    if contract.kind in ("label_map", "mask"):
        first, second = (classes_of(decode(contract, cells)) for cells in (one, other))
        return float((first == second).mean()) if first.shape == second.shape else 0.0
    by_name = {column.name: column for column in columns}
    ids = by_name.get(f"{contract.name}_ids")
    if contract.kind == "classes" and ids is not None:
        first, second = (np.ravel(decode_cell(ids, cells[ids.name])) for cells in (one, other))
        return float(first[:1].tolist() == second[:1].tolist())
    texts = [column.name for column in columns if column.dtype == "string" and column.name.endswith("text")]
    if texts:
        return float(np.mean([text_sameness(one[name], other[name]) for name in texts]))
    return float(np.mean([number_sameness(column, one[column.name], other[column.name]) for column in columns]))


def classes_of(label: LabelMap | Mask) -> np.ndarray:
    """The best class of every cell, or pixel."""
    return label.map if isinstance(label, Mask) else label.ids[..., 0]


def text_sameness(one: str | None, other: str | None) -> float:
    return 1.0 if one == other else word_f1(words_of(one or ""), words_of(other or ""))


def number_sameness(column: Column, one: Any, other: Any) -> float:
    plain = column.dtype in ("string", "bytes", "|b1") or column.dtype.startswith("list:")
    if plain or one == other or one is None or other is None:
        return float(one == other)
    first, second = (np.asarray(decode_cell(column, cell), np.float64) for cell in (one, other))
    if first.shape != second.shape:
        return 0.0
    largest = float(np.abs(first).max(initial=0.0))
    return float(np.isclose(second, first, rtol=CLOSE, atol=CLOSE * largest if first.size > 1 else 1e-6).mean())
