"""Collating: samples to a batch, label maps among them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from ..labels.label_map import LabelMap
from .pooling import stack_maps


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Field by field: tensors, arrays and numbers are stacked, label maps become `StackedMaps`, all else a list.

    A field whose arrays differ in shape stays a list. For `DataLoader(collate_fn=relabel.collate)` where torch's own
    collate would fail on a label that was not pooled. Raises UsageError where samples have different fields.
    """
    if not samples:
        raise UsageError("a batch needs at least one sample, got none.")
    names = list(samples[0])
    if odd := next((sample for sample in samples if set(sample) != set(names)), None):
        raise UsageError(f"samples of a batch must have the same fields, got {names} and {list(odd)}.")
    return {name: _column([sample[name] for sample in samples]) for name in names}


def _column(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, LabelMap):
        return stack_maps(values)
    if isinstance(first, np.ndarray | np.generic) and first.dtype.kind not in "biuf":
        return values
    if isinstance(first, np.ndarray | np.generic | torch.Tensor):
        if not all(type(value) is type(first) and value.shape == first.shape for value in values):
            return values
        return torch.stack(values) if isinstance(first, torch.Tensor) else torch.from_numpy(np.stack(values))
    if isinstance(first, bool | int | float) and all(type(value) is type(first) for value in values):
        return torch.tensor(values, dtype=torch.float32 if isinstance(first, float) else None)
    if isinstance(first, Mapping) and all(isinstance(value, Mapping) and set(value) == set(first) for value in values):
        return {name: _column([value[name] for value in values]) for name in first}
    return values
