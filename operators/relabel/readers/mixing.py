"""Mixing: CutMix (arXiv 1905.04899) and Mixup (arXiv 1710.09412) of a batch with soft labels.

Every sample is mixed with the one before it in the batch (the first with the last), by a share and a box that its own
`__seed__` gives: a batch of the same samples in the same order is mixed alike, also after a resume or on another rank.
Batches are dicts of tensors, on any device; nothing waits for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from ..errors import UsageError
from .draws import Draws

Batch = Mapping[str, Any]


class Mix:
    """What both do: `labels`, float [batch, classes], become (1 - share) of a sample's own and `share` of its
    partner's.

    With `probability` below 1 the other samples stay as they are. `partner`, int64 [batch], says whom a sample was
    mixed with, and `share`, float32 [batch], how much of it (0: not mixed); other fields stay the sample's own.
    Raises UsageError where a batch lacks `__seed__` or a label is no soft one.
    """

    purpose = ""

    def __init__(self, alpha: float = 1.0, probability: float = 1.0, labels: str | Sequence[str] = "label_map") -> None:
        if not alpha > 0:
            raise UsageError(f"alpha, of Beta(alpha, alpha), must be above 0, got {alpha}.")
        if not 0 <= probability <= 1:
            raise UsageError(f"probability must lie between 0 and 1, got {probability}.")
        self.alpha, self.probability = float(alpha), float(probability)
        self.labels = (labels,) if isinstance(labels, str) else tuple(labels)

    def mix_images(
        self, images: Tensor, partner: Tensor, draws: Sequence[Draws | None]
    ) -> tuple[Tensor, Float32[Tensor, " batch"]]:
        """The mixed images, and the share of the partner in each; None: not mixed."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> dict[str, Any]:
        images, soft = self._checked(batch)
        seeds = _seeds(batch, len(images))
        each = [Draws(seed, self.purpose) for seed in seeds]
        draws = [one if one.uniform() < self.probability else None for one in each]
        partner = torch.arange(len(images)).roll(1).to(images.device, non_blocking=True)
        mixed, share = self.mix_images(images, partner, draws)
        part = share.to(images.device, non_blocking=True)
        labels = {
            name: torch.lerp(own, own[partner.to(own.device)], share.to(own.device, own.dtype)[:, None])
            for name, own in soft.items()
        }
        return {**batch, "image": mixed, **labels, "partner": partner, "share": part}

    def _checked(self, batch: Batch) -> tuple[Tensor, dict[str, Float[Tensor, "batch classes"]]]:
        images = batch.get("image")
        if not isinstance(images, Tensor) or images.dim() != 4:
            raise UsageError(f"a mix needs `image`, a tensor [batch, channels, height, width], got {_shape(images)}.")
        soft = {name: batch.get(name) for name in self.labels}
        rows = len(images)
        for name, label in soft.items():
            fits = isinstance(label, Tensor) and label.is_floating_point() and label.dim() == 2 and len(label) == rows
            if not fits:
                raise UsageError(
                    f"{name!r} must be a soft label, a float tensor [{rows}, classes], got {_shape(label)}. Pool it by "
                    "a crop, read it by relabel.soft_labels, or name others by `labels`."
                )
        return images, {name: label for name, label in soft.items() if isinstance(label, Tensor)}


class CutMix(Mix):
    """A box of the partner is pasted over a sample, at the place where it is; labels are mixed by the pixels that it
    really covers. Its area is 1 - Beta(alpha, alpha) of the image before it is clipped to the image.
    """

    purpose = "cutmix"

    def mix_images(
        self, images: Tensor, partner: Tensor, draws: Sequence[Draws | None]
    ) -> tuple[Tensor, Float32[Tensor, " batch"]]:
        height, width = images.shape[-2:]
        boxes = torch.tensor([cut_box(one, self.alpha, height, width) if one else (0, 0, 0, 0) for one in draws])
        top, left, bottom, right = boxes.T
        share = ((bottom - top) * (right - left)).double() / (height * width)
        pasted = _inside(boxes.to(images.device, non_blocking=True), height, width)
        return torch.where(pasted[:, None], images[partner], images), share.float()


class Mixup(Mix):
    """Images and labels are means, with a share of Beta(alpha, alpha) of the partner; whole numbers are rounded."""

    purpose = "mixup"

    def mix_images(
        self, images: Tensor, partner: Tensor, draws: Sequence[Draws | None]
    ) -> tuple[Tensor, Float32[Tensor, " batch"]]:
        share = torch.tensor([one.beta(self.alpha) if one else 0.0 for one in draws], dtype=torch.float32)
        exact = images if images.is_floating_point() else images.float()
        part = share.to(images.device, exact.dtype, non_blocking=True)[:, None, None, None]
        mixed = torch.lerp(exact, exact[partner], part)
        return mixed if images.is_floating_point() else mixed.round().to(images.dtype), share


def cut_box(draws: Draws, alpha: float, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in pixels, clipped to the image; its centre lies anywhere."""
    side = (1 - draws.beta(alpha)) ** 0.5
    tall, wide = int(height * side), int(width * side)
    y, x = draws.below(height), draws.below(width)
    top, left = y - tall // 2, x - wide // 2
    return max(top, 0), max(left, 0), min(top + tall, height), min(left + wide, width)


def _inside(boxes: Tensor, height: int, width: int) -> Bool[Tensor, "batch height width"]:
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    top, left, bottom, right = (side[:, None] for side in boxes.T)
    down, across = (y >= top) & (y < bottom), (x >= left) & (x < right)
    inside: Tensor = down[:, :, None] & across[:, None, :]
    return inside


def _seeds(batch: Batch, rows: int) -> list[int]:
    seeds = batch.get("__seed__")
    found = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds) if seeds is not None else []
    if len(found) != rows:
        raise UsageError(
            f"a mix of {rows} samples draws from their `__seed__`, got {len(found)}. `release.dataset` gives it; keep "
            "it in the batch."
        )
    return found


def _shape(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
