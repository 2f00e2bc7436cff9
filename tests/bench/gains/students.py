"""Students: one small network per kind of labels, trained side by side on the same crops, and their scores.

Students of one seed begin with the same weights and take the same steps on the same pixels: only targets differ, and
what CutMix pastes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

import relabel

Batch = Mapping[str, Any]
Targets = Callable[[Batch], tuple[Tensor, Tensor]]
"""From a batch to images, uint8 [batch, 3, size, size], and soft targets, float32 [batch, classes]."""
SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
WARM_UP = 0.1
"""Of all steps."""
WIDTHS = (16, 32, 64, 128)
"""Of the network's stages, each half as high and wide as the one before."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """On one split; shares in [0, 1]."""

    named: float
    """Top class is the one label."""
    there: float
    """Top class is one of those that are there."""
    mean_ap: float
    """Mean over classes of the average precision of the class's probability over scenes."""


def student(num_classes: int) -> nn.Module:
    """Five layers."""
    layers: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))


def one_label(batch: Batch) -> tuple[Tensor, Tensor]:
    """What the data set says of the scene."""
    return batch["image"], batch["cls"]


def smoothed(batch: Batch) -> tuple[Tensor, Tensor]:
    """The same, a share SMOOTHING spread over all classes."""
    return batch["image"], batch["cls"] * (1 - SMOOTHING) + SMOOTHING / batch["cls"].shape[1]


def pooled(batch: Batch) -> tuple[Tensor, Tensor]:
    """What the label map says of the crop."""
    return batch["image"], batch["label_map"]


def pooled_and_mixed(batch: Batch) -> tuple[Tensor, Tensor]:
    """The same after CutMix of every second image."""
    return pooled(relabel.CutMix(probability=0.5)(batch))


ARMS: Mapping[str, Targets] = {
    "one label": one_label,
    "label smoothing": smoothed,
    "label maps": pooled,
    "label maps, CutMix": pooled_and_mixed,
}


class Training:
    """One student on its way."""

    def __init__(self, targets: Targets, num_classes: int, seed: int, rate: float, steps: int) -> None:
        torch.manual_seed(seed)
        self.targets = targets
        self.network = student(num_classes).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=steps, pct_start=WARM_UP)

    def step(self, batch: Batch) -> None:
        images, targets = self.targets(batch)
        self.network.train()
        loss = relabel.soft_cross_entropy(self.network(scaled(images)), targets)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()


def train_together(batches: Iterable[Batch], steps: int, trainings: Mapping[str, Training]) -> dict[str, nn.Module]:
    """Every student on every batch; raises ValueError where there are fewer batches than steps."""
    taken = 0
    for batch in batches:
        for training in trainings.values():
            training.step(batch)
        taken += 1
        if taken == steps:
            return {name: training.network.eval() for name, training in trainings.items()}
    raise ValueError(f"expected {steps} batches, got {taken}")


def scaled(images: UInt8[Tensor, "batch 3 y x"]) -> Float[Tensor, "batch 3 y x"]:
    return ((images.float() - 118) / 66).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def scores(
    network: nn.Module,
    images: UInt8[np.ndarray, "scenes 3 y x"],
    label: Int64[np.ndarray, " scenes"],
    there: Float[np.ndarray, "scenes classes"],
) -> Scores:
    """Of an eval-mode network on whole scenes."""
    parts = [network(scaled(torch.from_numpy(images[start : start + 256]))) for start in range(0, len(images), 256)]
    likely = torch.cat(parts).softmax(dim=1).numpy()
    best = likely.argmax(axis=1)
    return Scores(
        named=float((best == label).mean()),
        there=float(there[np.arange(len(best)), best].mean()),
        mean_ap=float(np.mean([average_precision(likely[:, kind], there[:, kind]) for kind in range(there.shape[1])])),
    )


def average_precision(score: Sequence[float] | np.ndarray, positive: Sequence[float] | np.ndarray) -> float:
    """Mean over positives of the precision among those that score as high; 0 without positives."""
    right = np.asarray(positive, np.float64)[np.argsort(-np.asarray(score), kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float((precision * right).sum() / max(right.sum(), 1))
