"""Pooling of tensors: `pooling` on whatever device the maps lie on, without waiting for it."""

import math
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from ..errors import UsageError
from .pooling import Mode, StackedMaps, cell_weights


def pool_tensors(maps: StackedMaps, boxes: Any, mode: Mode, flip: Any) -> Float32[Tensor, "rows classes"]:
    """As `pooling.label_pooling`, of maps that are tensors.

    Boxes and flips are few numbers and are looked at on the CPU: give them as numpy arrays or CPU tensors, so that
    nothing waits for the device. Sums are float64 (float32 where the device has none).
    """
    device = maps.ids.device
    if maps.scores.device != device or maps.residual.device != device:
        raise UsageError(f"ids, scores and residual must lie on one device, got {device}, {maps.scores.device}.")
    exact = torch.float32 if device.type == "mps" else torch.float64
    rows, _, _, top_k = maps.ids.shape
    left_out = maps.classes - top_k
    found, weights = cell_weights(maps, _on_cpu(boxes), mode, _on_cpu(flip))
    cells = torch.from_numpy(found).to(device, non_blocking=True)
    weight = torch.from_numpy(weights).to(device, exact, non_blocking=True)
    listed = maps.scores.reshape(-1, top_k)[cells].float()
    unlisted = maps.residual.reshape(-1)[cells].float()
    if mode == "prob":
        # Softmax by hand: torch's over rows of six takes longer than all the rest.
        largest = torch.maximum(listed.amax(dim=1), unlisted)
        listed, unlisted = (listed - largest[:, None]).exp_(), (unlisted - largest).exp_()
        total = listed.sum(dim=1) + unlisted
        listed, unlisted = listed / total[:, None], unlisted / (total * max(left_out, 1))
    else:
        unlisted = unlisted - math.log(left_out) if left_out else torch.zeros_like(unlisted)
    base = weight * unlisted
    above = weight[:, None] * listed - base[:, None]
    row = cells // (maps.residual.numel() // rows)
    places = _chosen(maps.ids.reshape(-1, top_k), cells) + (row * maps.classes)[:, None]
    pooled = torch.zeros(rows * maps.classes, dtype=exact, device=device)
    pooled.scatter_add_(0, places.reshape(-1), above.reshape(-1))
    pooled = (
        pooled.reshape(rows, -1) + torch.zeros(rows, dtype=exact, device=device).scatter_add_(0, row, base)[:, None]
    )
    return (pooled if mode == "prob" else torch.softmax(pooled, dim=1)).float()


def _chosen(ids: Tensor, cells: Tensor) -> Tensor:
    """As int64; the kernels that devices lack for uint16 are there for int16."""
    if ids.dtype == torch.uint16:
        return ids.view(torch.int16)[cells].long() & 0xFFFF
    return ids[cells].long()


def _on_cpu(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
