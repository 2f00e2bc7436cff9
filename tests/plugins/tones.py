"""Tones: dark, middling or bright, for every pixel."""

from pathlib import Path

import torch

from relabel import register
from relabel.labelers.mask import MaskLabeler
from relabel.labelers.pretrained import Normalisation
from relabel.labelers.segmenters import Segmenter, from_module


class Tone(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # [n, 3, y, x] -> logits [n, classes, rows, columns]
        grey = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 8)
        return -30 * (grey - torch.tensor([0.15, 0.45, 0.8], device=pixels.device)[:, None, None]) ** 2


@register
class Tones(MaskLabeler):
    name, version = "tones", 1

    def weight_files(self) -> tuple[Path, ...]:
        return ()  # the files that the network is read from

    def open_segmenter(self, revision: str | None) -> Segmenter:
        scaled = Normalisation(scale=1 / 255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return from_module(Tone(), normalisation=scaled, class_names=["dark", "middling", "bright"])
