"""Losses: cross-entropy against soft labels, with a weight per sample."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UsageError


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """-sum over classes of target times log softmax(logits), in float32 whatever the logits are.

    `target` is float [batch, classes], `weight` [batch]. `mean` is the weighted mean: the sum over samples of weight
    times loss, over the sum of weights (0 where that is 0).
    A target of zeros costs nothing. Gives a scalar; [batch] with `none`. Raises UsageError where shapes disagree.
    """
    if target.shape != logits.shape or not target.is_floating_point():
        raise UsageError(
            f"soft_cross_entropy needs float targets of the logits' shape {list(logits.shape)}, got {target.dtype} "
            f"{list(target.shape)}. Class numbers are made soft by relabel.hard_labels."
        )
    if weight is not None and weight.shape != logits.shape[:1]:
        raise UsageError(f"weight must have shape {list(logits.shape[:1])}, one per sample, got {list(weight.shape)}.")
    if reduction not in ("mean", "sum", "none"):
        raise UsageError(f"reduction must be mean, sum or none, got {reduction!r}.")
    each = -(target.float() * torch.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
    weighed = each if weight is None else each * weight.float()
    if reduction == "none":
        return weighed
    if reduction == "sum":
        return weighed.sum()
    if weight is None:
        return weighed.sum() / max(len(each), 1)
    return weighed.sum() / weight.float().sum().clamp_min(torch.finfo(torch.float32).tiny)
