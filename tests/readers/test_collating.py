"""Collating: samples to a batch that a loop, CutMix and label_pooling take."""

from typing import Any

import numpy as np
import pytest
import torch
from samples import gradient, sample
from torch.utils.data import DataLoader

import relabel
from relabel.errors import UsageError
from relabel.labels.caption import Caption


def test_every_kind_of_field() -> None:
    rows = [
        {"key": "a", "raw": b"x", "n": 1, "f": 0.5, "flag": True, "array": np.ones(3, np.float32), "w": np.float32(2),
         "tensor": torch.ones(2, 2), "odd": np.ones(place + 1), "caption": Caption({}, "x"), "none": None,
         "columns": {"ids": np.array([1, 2], np.uint16), "text": "t"}}
        for place in range(2)
    ]  # fmt: skip
    batch = relabel.collate(rows)
    assert batch["key"] == ["a", "a"]
    assert batch["raw"] == [b"x", b"x"]
    assert (batch["n"].dtype, batch["f"].dtype, batch["flag"].dtype) == (torch.int64, torch.float32, torch.bool)
    assert batch["array"].shape == (2, 3)
    assert batch["w"].tolist() == [2, 2]
    assert batch["tensor"].shape == (2, 2, 2)
    assert [one.shape for one in batch["odd"]] == [(1,), (2,)]
    assert [one.old for one in batch["caption"]] == ["x", "x"]
    assert batch["none"] == [None, None]
    assert batch["columns"]["ids"].shape == (2, 2)
    assert batch["columns"]["text"] == ["t", "t"]


def test_labels_that_are_pooled_later_are_those_that_are_pooled_at_once() -> None:
    given = [sample(gradient(60, 80), seed) for seed in range(4)]
    later = relabel.collate([relabel.RandomResizedCrop(16)(each) for each in given])
    at_once = relabel.collate([relabel.RandomResizedCrop(16, pool="label_map")(each) for each in given])
    assert later["crop"].dtype == torch.float64
    pooled = relabel.label_pooling(later["label_map"].to("cpu"), later["crop"])
    assert torch.allclose(pooled, at_once["label_map"], atol=1e-6)
    assert torch.equal(later["image"], at_once["image"])
    mixed = relabel.CutMix()(at_once)
    assert torch.allclose(mixed["label_map"].sum(dim=1), torch.ones(4), atol=1e-5)


def test_a_plain_loop_over_a_loader() -> None:
    crop = relabel.RandomResizedCrop(16, pool="label_map")
    rows: Any = [crop(sample(gradient(60, 80), seed)) for seed in range(6)]
    own = list(DataLoader(rows, batch_size=3, collate_fn=relabel.collate))
    torchs = list(DataLoader(rows, batch_size=3))
    for one, two in zip(own, torchs, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["label_map"], two["label_map"])
        loss = relabel.soft_cross_entropy(torch.zeros(3, 20), two["label_map"])
        assert loss.item() == pytest.approx(np.log(20), abs=1e-5)
        assert relabel.Mixup()(two)["share"].shape == (3,)


def test_samples_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="same fields"):
        relabel.collate([{"a": 1}, {"b": 1}])
    with pytest.raises(UsageError, match="at least one"):
        relabel.collate([])
