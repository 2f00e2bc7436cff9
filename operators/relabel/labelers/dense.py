"""Dense classifiers: a classifier's linear head applied to every cell of its last feature map.

The mean over cells of the dense logits is the classifier's ordinary logits, because pooling and a linear layer
commute. That is proved on two inputs whenever a network is loaded; what fails the proof never labels anything.
"""

import copy
from typing import Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from ..errors import Refused
from .classifiers import Classifier

Precision = Literal["fp32", "bf16"]

TOLERANCE = 1e-4
"""Largest difference between a mean dense logit and the ordinary one, fp32."""
BF16_TOLERANCE = 0.05
"""The same in bf16, as a fraction of the largest ordinary logit: the classifier pools with 8 bits."""
PROOF_SEED = 2101


class DenseClassifier(nn.Module):
    """uint8 images to dense logits. In bf16 the head still works in fp32: rounded logits tie."""

    def __init__(self, classifier: Classifier, device: str, precision: Precision) -> None:
        super().__init__()
        self.classifier = classifier
        self.device = torch.device(device)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = classifier.network.to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self.head = copy.deepcopy(classifier.head)

    @torch.inference_mode()
    def prove(self, size: int) -> tuple[int, int]:
        """Prove the surgery at `size` x `size` and settle into the working precision; returns the grid (y, x).

        Raises Refused where the mean of the dense logits is not the classifier's output.
        """
        pixels = _proof_images(size).to(self.device)
        dense, ordinary = self._both(pixels, torch.float32)
        self._compare(dense, ordinary, TOLERANCE)
        if self.dtype == torch.bfloat16:
            self.network.to(torch.bfloat16)
            dense, ordinary = self._both(pixels, torch.bfloat16)
            self._compare(dense, ordinary, BF16_TOLERANCE * float(ordinary.abs().max()))
        return dense.shape[2], dense.shape[3]

    def _both(
        self, pixels: UInt8[Tensor, "n size size 3"], dtype: torch.dtype
    ) -> tuple[Float32[Tensor, "n classes y x"], Float32[Tensor, "n classes"]]:
        """Dense logits, and the classifier's own of the same input."""
        ordinary = self.classifier.logits(self.classifier.normalisation.apply(pixels).to(dtype))
        return self._dense(pixels, dtype), ordinary.float()

    def _compare(
        self, dense: Float32[Tensor, "n classes y x"], ordinary: Float32[Tensor, "n classes"], tolerance: float
    ) -> None:
        difference = float((dense.mean(dim=(2, 3)) - ordinary).abs().max())
        if not difference <= tolerance:
            raise Refused(
                f"{type(self.network).__name__} cannot be made dense: the mean of its dense logits differs from its "
                f"ordinary logits by {difference:.3g}, allowed is {tolerance:.3g}. Something between its feature map "
                "and its head is not linear, e.g. the LayerNorm after pooling of ConvNeXt. Use a classifier that "
                "pools by the mean and ends in a linear layer: ResNet, RegNet, EfficientNet, MobileNet."
            )

    @torch.inference_mode()
    def forward(self, pixels: UInt8[Tensor, "n size size 3"]) -> Float32[Tensor, "n classes y x"]:
        """Logits of every cell, classes innermost in memory; a row does not depend on its neighbours."""
        return self._dense(pixels, self.dtype)

    def _dense(self, pixels: UInt8[Tensor, "n size size 3"], dtype: torch.dtype) -> Float32[Tensor, "n classes y x"]:
        features = self.classifier.features(self.classifier.normalisation.apply(pixels).to(dtype))
        if features.dim() != 4:
            raise Refused(
                f"{type(self.network).__name__} gives features of shape {list(features.shape)}, expected a map "
                "[n, channels, y, x]. Token models (ViT, Swin) are not supported by `label_map`; use a convolutional "
                "classifier: ResNet, RegNet, EfficientNet, MobileNet."
            )
        cells = features.permute(0, 2, 3, 1).float()
        return nn.functional.linear(cells, self.head.weight, self.head.bias).permute(0, 3, 1, 2)


def _proof_images(size: int) -> UInt8[Tensor, "2 size size 3"]:
    """Noise, and a smooth ramp with a bright block: two contents, so that no constant output passes by chance."""
    generator = torch.Generator().manual_seed(PROOF_SEED)
    noise = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
    ramp = torch.linspace(0, 255, size)
    smooth = torch.stack([ramp[:, None].expand(size, size), ramp.expand(size, size), ramp.flip(0).expand(size, size)])
    scene = smooth.permute(1, 2, 0).to(torch.uint8).contiguous()
    scene[: size // 3, : size // 2] = torch.tensor([250, 30, 60], dtype=torch.uint8)
    return torch.stack([noise, scene])
