"""Segmenters: transformers' families and networks of one's own open alike; what does not fit is refused with why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from relabel.errors import Refused
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.mask import MaskLabeler, MaskParameters
from relabel.labelers.pretrained import Normalisation
from relabel.labelers.registry import registered, restore
from relabel.labelers.segmenters import FixedLogits, Segmenter, from_module, load_segmenter

TOKENS = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64,
    "patch_size": 16, "num_labels": 4,
}  # fmt: skip
TOKEN_HEAD = {"out_indices": [1, 2, 3, 4], "pool_scales": [1, 2], "auxiliary_channels": 8}
FAMILIES: dict[str, tuple[dict[str, Any], str, int]] = {
    "MobileNetV2": ({"depth_multiplier": 0.25, "num_labels": 4}, "MobileNetV2", 2),
    "Beit": ({**TOKENS, **TOKEN_HEAD}, "Beit", 16),
    "Data2VecVision": ({**TOKENS, **TOKEN_HEAD}, "Beit", 16),
    "DPT": (
        {**TOKENS, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8,
         "is_hybrid": False},
        "DPT", 64,
    ),
}  # fmt: skip
HALVED = Normalisation(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Threshold(torch.nn.Module):
    """A network of one's own: every second pixel, dark or bright."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        brightness = pixels.mean(dim=1)[:, ::2, ::2]
        return 9 * torch.stack([-brightness, brightness], dim=1)


def saved(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    options, processor, _ = FAMILIES[family]
    config = getattr(transformers, f"{family}Config")(**options)
    getattr(transformers, f"{family}ForSemanticSegmentation")(config).save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")().save_pretrained(folder)
    return folder


def logits_of(segmenter: Segmenter, size: int = 64) -> FixedLogits:
    network = FixedLogits(segmenter, "cpu", "fp32", 2)
    network.prove(size)
    return network


@pytest.mark.parametrize("family", FAMILIES)
def test_families_open(family: str, tmp_path: Path) -> None:
    made = MaskLabeler(MaskParameters(model=str(saved(tmp_path, family)), input_size=64))
    made.facts = made.inspect()
    assert made.facts["grid"] == [FAMILIES[family][2]] * 2
    made.load("cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    labels = made({"image": images, "height": np.array([40, 64, 9], np.int32), "width": np.full(3, 50, np.int32)})
    assert [len(mask) for mask in labels["mask_map"]] == [2000, 3200, 450]


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    segmenter = load_segmenter(find_checkpoint(str(saved(tmp_path, "Data2VecVision"))))
    with pytest.raises(Refused, match="does not run on images of 96 x 96 pixels.*Set `input_size`"):
        logits_of(segmenter, 96)


def test_a_network_of_ones_own() -> None:
    segmenter = from_module(Threshold(), normalisation=HALVED, class_names=["dark", "bright"])
    images = np.zeros((3, 64, 64, 3), np.uint8)
    images[1, :, 32:] = 255
    grids = [logits.argmax(dim=0) for logits in logits_of(segmenter)(images)]
    assert [tuple(grid.shape) for grid in grids] == [(32, 32)] * 3
    assert grids[0].sum() == grids[2].sum() == 0
    assert grids[1][:, 16:].all()
    assert not grids[1][:, :16].any()


def test_a_labeler_of_ones_own() -> None:
    """Three lines: the class, its name and what it opens."""
    before = registered()

    class Brightness(MaskLabeler):
        name, version = "brightness_mask", 1

        def open_segmenter(self, revision: str | None) -> Segmenter:
            return from_module(Threshold(), normalisation=HALVED, class_names=["dark", "bright"])

    made = Brightness(MaskParameters(model="hf:mine/own", input_size=64))
    made.facts = made.inspect()
    made.load("cpu")
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, :16] = 255
    labels = made({"image": image, "height": np.array([100], np.int32), "width": np.array([20], np.int32)})
    found = np.frombuffer(labels["brightness_mask_map"][0], np.uint8).reshape(100, 20)
    assert (found == (np.arange(100) < 25)[:, None]).all()
    restore(before)


def test_output_that_is_no_logits_of_the_classes_is_refused() -> None:
    three = from_module(Threshold(), normalisation=HALVED, class_names=["a", "b", "c"])
    with pytest.raises(Refused, match=r"finite logits \[3 classes, rows, columns\] per image, got \[2, 32, 32\]"):
        logits_of(three)
    broken = torch.nn.Conv2d(3, 2, 1)
    broken.bias = torch.nn.Parameter(torch.full((2,), torch.nan))
    with pytest.raises(Refused, match="its weights are broken"):
        logits_of(from_module(broken, normalisation=HALVED, class_names=["a", "b"]))
