"""Transforms in datasets: crops, mixes and picks where a training job has them, in real workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled_shards import write_tars
from torch.utils.data import DataLoader

import relabel
from relabel.errors import Refused, UnknownName


def batches(release: relabel.Release, workers: int, epoch: int = 0) -> list[dict[str, Any]]:
    crop = relabel.RandomResizedCrop(16, pool="label_map")
    dataset = release.dataset(columns=["label_map"], transform=crop, fields=[])
    dataset.set_epoch(epoch)
    return list(DataLoader(dataset, batch_size=8, num_workers=workers))


def by_key(found: list[dict[str, Any]]) -> dict[str, tuple[bytes, bytes]]:
    return {
        key: (batch["image"][row].numpy().tobytes(), batch["label_map"][row].numpy().tobytes())
        for batch in found
        for row, key in enumerate(batch["__key__"])
    }


def test_a_sample_is_cropped_alike_in_any_worker_and_anew_every_epoch(release: relabel.Release) -> None:
    alone, shared, later = batches(release, 0), batches(release, 2), batches(release, 0, epoch=1)
    assert len(by_key(alone)) == 51
    assert by_key(alone) == by_key(shared)
    assert all(by_key(later)[key][0] != image for key, (image, _) in by_key(alone).items())


def test_a_plain_loop_with_cutmix(release: relabel.Release) -> None:
    mix = relabel.CutMix(1.0)
    for batch in batches(release, 2):
        mixed = mix(batch)
        assert mixed["image"].shape[1:] == (3, 16, 16)
        loss = relabel.soft_cross_entropy(torch.zeros(len(mixed["image"]), 5), mixed["label_map"])
        assert loss.item() == pytest.approx(1.6094, abs=1e-3)


def test_picks_stay_when_the_data_set_is_cut_anew(
    publish: Callable[..., relabel.Release], tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    found = []
    for name, sizes in (("one", (10, 8)), ("two", (3, 9, 6))):
        write_tars(str(tmp_path / name), photos, sizes)
        picks: dict[str, tuple[int, int]] = {}

        def note(sample: dict[str, Any], picks: dict[str, tuple[int, int]] = picks) -> dict[str, Any]:
            picks[sample["__key__"]] = sample["__pick__"], sample["__seed__"]
            return sample

        dataset = publish(tmp_path / name / "*.tar", store=f"store {name}").dataset(columns=["mark"], transform=note)
        assert all("__pick__" not in sample for sample in dataset)
        found.append(picks)
    one, two = found
    assert len(one) == 18
    assert {key: pick for key, (pick, _) in one.items()} == {key: pick for key, (pick, _) in two.items()}
    assert all(one[key][1] != two[key][1] for key in one)


def test_what_a_transform_cannot_read_is_refused_before_anything_is_read(release: relabel.Release) -> None:
    with pytest.raises(UnknownName, match="label_map"):
        release.dataset(columns=["mark"], transform=relabel.RandomResizedCrop(16, pool="label_map"))
    with pytest.raises(Refused, match="of kind 'score', expected label_map"):
        release.dataset(columns=["mark"], transform=relabel.RandomResizedCrop(16, pool="mark"))
    renamed = release.dataset(columns={"dense": "label_map"}, transform=relabel.Resize(16, pool="dense"))
    assert next(iter(renamed))["dense"].shape == (5,)
