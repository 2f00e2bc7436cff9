"""Mixing: shares are the pixels that are really there, and the same batch is mixed alike."""

import numpy as np
import pytest
import torch

from relabel import CutMix, Mixup
from relabel.errors import UsageError
from relabel.readers.draws import Draws
from relabel.readers.mixing import cut_box

ROWS, CLASSES = 6, 4


def batch(rows: int = ROWS, seed: int = 0) -> dict[str, torch.Tensor]:
    """Images of one value each, its row; labels of one class each, its row modulo 4."""
    values = torch.arange(rows, dtype=torch.uint8)
    return {
        "image": values[:, None, None, None].expand(rows, 3, 12, 20).clone(),
        "label_map": torch.eye(CLASSES)[torch.arange(rows) % CLASSES],
        "weight": torch.ones(rows),
        "__seed__": torch.arange(rows) + seed,
    }


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_cutmix_mixes_labels_by_the_pixels_of_the_partner(alpha: float) -> None:
    shares = []
    for seed in range(0, 120, ROWS):
        before = batch(seed=seed)
        found = CutMix(alpha)(before)
        assert found["partner"].tolist() == [5, 0, 1, 2, 3, 4]
        for row in range(ROWS):
            partner = int(found["partner"][row])
            image, share = found["image"][row], float(found["share"][row])
            assert set(image.unique().tolist()) <= {row, partner}
            assert share == pytest.approx((image == partner).float().mean().item(), abs=1e-6)
            expected = (1 - share) * before["label_map"][row] + share * before["label_map"][partner]
            assert torch.allclose(found["label_map"][row], expected, atol=1e-6)
            shares.append(share)
    assert 0.1 < np.mean(shares) < 0.5


def test_the_box_is_pasted_where_it_was() -> None:
    before = batch()
    before["image"] = torch.arange(12 * 20, dtype=torch.uint8).reshape(1, 1, 12, 20) * torch.ones(ROWS, 3, 1, 1).byte()
    assert torch.equal(CutMix()(before)["image"], before["image"])


def test_boxes_have_the_area_that_beta_says_where_they_are_not_clipped() -> None:
    inner = []
    for seed in range(400):
        top, left, bottom, right = cut_box(Draws(seed, "cutmix"), 1.0, 1000, 1000)
        assert 0 <= top <= bottom <= 1000
        assert 0 <= left <= right <= 1000
        if min(top, left) > 0 and max(bottom, right) < 1000:
            draws = Draws(seed, "cutmix")
            inner.append(((bottom - top) * (right - left) / 1e6, 1 - draws.beta(1.0)))
    assert len(inner) > 50
    assert np.abs(np.subtract(*zip(*inner, strict=True))).max() < 0.01


def test_mixup_is_the_mean() -> None:
    before = batch()
    before["image"] = before["image"].float()
    found = Mixup(0.8)(before)
    share = found["share"][:, None, None, None]
    assert torch.allclose(found["image"], (1 - share) * before["image"] + share * before["image"].roll(1, 0), atol=1e-5)
    assert torch.allclose(found["label_map"].sum(dim=1), torch.ones(ROWS))
    whole = Mixup(0.8)(batch())
    assert whole["image"].dtype == torch.uint8
    assert torch.equal(whole["image"], found["image"].round().byte())


@pytest.mark.parametrize("mix", [CutMix(), Mixup(0.4)])
def test_the_same_samples_are_mixed_alike_and_others_otherwise(mix: CutMix | Mixup) -> None:
    first, again, other = mix(batch()), mix(batch()), mix(batch(seed=100))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["share"], again["share"])
    assert not torch.equal(first["share"], other["share"])
    torch.manual_seed(3)
    assert torch.equal(mix(batch())["share"], first["share"])


def test_only_some_samples_are_mixed() -> None:
    found = CutMix(probability=0.3)(batch(200))
    mixed = int((found["share"] > 0).sum())
    assert 30 < mixed < 90
    untouched = found["share"] == 0
    assert torch.equal(found["image"][untouched], batch(200)["image"][untouched])
    assert torch.equal(CutMix(probability=0.0)(batch())["label_map"], batch()["label_map"])


def test_several_labels_and_other_dtypes() -> None:
    before = {**batch(), "other": torch.rand(ROWS, 7, dtype=torch.float64), "image": batch()["image"].bfloat16()}
    found = Mixup(labels=("label_map", "other"))(before)
    assert (found["other"].dtype, found["image"].dtype) == (torch.float64, torch.bfloat16)
    share = found["share"].double()[:, None]
    assert torch.allclose(found["other"], (1 - share) * before["other"] + share * before["other"].roll(1, 0))
    assert found["weight"] is before["weight"]


def test_one_sample_is_mixed_with_itself() -> None:
    found = Mixup()(batch(1))
    assert torch.equal(found["image"], batch(1)["image"])
    assert torch.equal(found["label_map"], batch(1)["label_map"])


def test_what_cannot_be_mixed_is_refused() -> None:
    given = batch()
    for name, wrong, told in (
        ("__seed__", None, "`__seed__`, got 0"), ("__seed__", torch.arange(3), "got 3"),
        ("image", given["image"][0], r"\[batch, channels"), ("image", None, "NoneType"),
        ("label_map", torch.arange(ROWS), "soft label"), ("label_map", given["label_map"][:2], "soft label"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            CutMix()({**given, name: wrong})
    with pytest.raises(UsageError, match="alpha"):
        CutMix(0.0)
    with pytest.raises(UsageError, match="probability"):
        Mixup(probability=1.5)
