"""Losses: cross-entropy against soft labels is torch's, weighted as it says."""

import pytest
import torch

from relabel import soft_cross_entropy
from relabel.errors import UsageError


def given() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=random)
    return logits, torch.softmax(torch.randn(5, 7, generator=random), dim=1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_it_is_what_torch_computes(reduction: str) -> None:
    logits, target = given()
    expected = torch.nn.functional.cross_entropy(logits, target, reduction=reduction)
    assert torch.allclose(soft_cross_entropy(logits, target, reduction=reduction), expected)  # type: ignore[arg-type]


def test_weights() -> None:
    logits, target = given()
    each = soft_cross_entropy(logits, target, reduction="none")
    weight = torch.tensor([0.0, 1, 2, 0, 1])
    assert torch.allclose(soft_cross_entropy(logits, target, weight), (each * weight).sum() / 4)
    assert torch.allclose(soft_cross_entropy(logits, target, weight, "none"), each * weight)
    assert soft_cross_entropy(logits, target, torch.zeros(5)).item() == 0
    assert torch.allclose(soft_cross_entropy(logits, target, torch.full((5,), 3.0)), each.mean())


def test_half_precision_logits_lose_nothing_more() -> None:
    logits, target = given()
    half = (logits * 30).bfloat16().requires_grad_()
    found = soft_cross_entropy(half, target)
    assert found.dtype == torch.float32
    assert torch.allclose(found, soft_cross_entropy(half.float(), target))
    found.backward()
    assert half.grad is not None
    assert torch.isfinite(half.grad).all()


def test_a_target_of_zeros_costs_nothing() -> None:
    logits, target = given()
    assert soft_cross_entropy(logits, torch.zeros_like(target)).item() == 0


def test_shapes_that_disagree_are_refused() -> None:
    logits, target = given()
    with pytest.raises(UsageError, match="relabel.hard_labels"):
        soft_cross_entropy(logits, torch.arange(5))
    with pytest.raises(UsageError, match=r"\[5, 7\]"):
        soft_cross_entropy(logits, target[:, :3])
    with pytest.raises(UsageError, match="one per sample"):
        soft_cross_entropy(logits, target, torch.ones(3))
