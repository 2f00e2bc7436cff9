"""Dense classifiers: a classifier's linear head applied to every cell of its last feature map.

Proven on two inputs whenever a network is loaded; what fails the proof never labels anything:

- `mean_of_cells`: the mean over cells of the dense logits is the classifier's ordinary logits, because pooling and a
  linear layer commute.
- `class_token`: the head reads a class token, so that no mean over cells can give its answer. Proven instead: the
  head applied to that token gives the ordinary logits; the cells are the patch tokens beside it, after the same final
  norm (MaskCLIP, arXiv 2112.01071; TokenLabeling, arXiv 2104.10858).
"""

import copy
import dataclasses
import importlib.util
import os
import shutil
import warnings
from typing import Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from ..errors import Refused, UsageError
from .classifiers import Classifier, Features

Proof = Literal["mean_of_cells", "class_token"]

TOLERANCE = 1e-4
"""Largest difference between a proven logit and the ordinary one, fp32."""
BF16_TOLERANCE = 0.05
"""The same in bf16, as a fraction of the largest ordinary logit: the classifier pools with 8 bits."""
PROOF_SEED = 2101
CXX_COMPILERS = ("g++", "clang++", "c++")


@dataclasses.dataclass(frozen=True, slots=True)
class Surgery:
    """What was proven of a dense classifier."""

    grid: tuple[int, int]
    """Cells (y, x)."""
    proof: Proof


class DenseClassifier(nn.Module):
    """uint8 images to dense logits. In bf16 the head still works in fp32: rounded logits tie."""

    def __init__(self, classifier: Classifier, device: str) -> None:
        super().__init__()
        self.classifier = classifier
        self.device = torch.device(device)
        self.dtype = torch.float32
        network = classifier.network.to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self.head = copy.deepcopy(classifier.head)
        self.features = classifier.features

    @torch.inference_mode()
    def prove(self, size: int) -> Surgery:
        """Prove the surgery at `size` x `size` in the precision that the network has now; raises Refused."""
        pixels = _proof_images(size).to(self.device)
        features = self._features(pixels)
        ordinary = self.classifier.logits(self._input(pixels)).float()
        allowed = TOLERANCE if self.dtype == torch.float32 else BF16_TOLERANCE * float(ordinary.abs().max())
        dense = self._apply_head(features)
        gaps: dict[Proof, float] = {"mean_of_cells": _gap(dense.mean(dim=(2, 3)), ordinary)}
        if features.token is not None and features.token.shape[1] == self.head.in_features:
            token = nn.functional.linear(features.token.float(), self.head.weight, self.head.bias)
            gaps["class_token"] = _gap(token, ordinary)
        for proof, gap in gaps.items():
            if gap <= allowed:
                return Surgery((dense.shape[2], dense.shape[3]), proof)
        raise Refused(self._explain(gaps, allowed))

    def _explain(self, gaps: dict[Proof, float], allowed: float) -> str:
        token = f", and the head of its class token by {gaps['class_token']:.3g}" if "class_token" in gaps else ""
        return (
            f"{type(self.network).__name__} cannot be made dense: the mean of its dense logits differs from its "
            f"ordinary logits by {gaps['mean_of_cells']:.3g}{token}; allowed is {allowed:.3g}. Something between its "
            "feature map and its head is not linear, e.g. the LayerNorm after pooling of ConvNeXt and of BEiT with "
            "mean pooling, or attention pooling. Use a classifier that pools by the mean or reads a class token, and "
            "ends in one linear layer: ResNet, RegNet, EfficientNet, Swin, ViT, DeiT, DINOv2."
        )

    def to_bf16(self, size: int) -> None:
        """The body in bf16 from now on, proven again: raises Refused where rounding breaks the proof."""
        before = self.prove(size)
        self.network.to(torch.bfloat16)
        self.dtype = torch.bfloat16
        after = self.prove(size)
        if after != before:
            raise Refused(f"{type(self.network).__name__} proves as {after} in bf16 but as {before} in fp32: use fp32.")

    @torch.inference_mode()
    def compile_features(self, batch: int, size: int) -> None:
        """`torch.compile` the body for this shape: half a minute once per actor; UsageError without a compiler."""
        check_compiler(self.device)
        pixels = torch.zeros((batch, size, size, 3), dtype=torch.uint8, device=self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts, which it imports now
            self.features = torch.compile(self.classifier.features, dynamic=False)
            self.dense(pixels)

    @torch.inference_mode()
    def forward(self, pixels: UInt8[Tensor, "n size size 3"]) -> Float32[Tensor, "n classes y x"]:
        """Logits of every cell, classes innermost in memory; a row does not depend on its neighbours."""
        return self.dense(pixels)

    def dense(self, pixels: UInt8[Tensor, "n size size 3"]) -> Float32[Tensor, "n classes y x"]:
        """`forward` in whatever mode the caller is (an exporter traces it)."""
        return self._apply_head(self._features(pixels))

    def _input(self, pixels: UInt8[Tensor, "n size size 3"]) -> Tensor:
        return self.classifier.normalisation.apply(pixels).to(self.dtype)

    def _features(self, pixels: UInt8[Tensor, "n size size 3"]) -> Features:
        """As the network gives them; a head that reads the class token beside the mean gets it in every cell."""
        found = self.features(self._input(pixels))
        features = Features(found) if isinstance(found, Tensor) else found
        cells, token = features
        if cells.dim() == 4 and token is not None and self.head.in_features == cells.shape[1] + token.shape[1]:
            beside = token[:, :, None, None].expand(-1, -1, *cells.shape[2:])
            features = Features(torch.cat([beside, cells], dim=1))
        if features.cells.dim() != 4 or features.cells.shape[1] != self.head.in_features:
            raise Refused(
                f"{type(self.network).__name__} gives features of shape {list(features.cells.shape)}, expected a map "
                f"[n, {self.head.in_features}, y, x] as its linear head reads it: there is a layer between the two "
                "(MobileNetV3, MLP heads). Use a classifier whose head reads the pooled map or a class token: "
                "ResNet, RegNet, EfficientNet, Swin, ViT, DeiT, DINOv2."
            )
        return features

    def _apply_head(self, features: Features) -> Float32[Tensor, "n classes y x"]:
        cells = features.cells.permute(0, 2, 3, 1).float()
        return nn.functional.linear(cells, self.head.weight, self.head.bias).permute(0, 3, 1, 2)


def _gap(ours: Float32[Tensor, "n classes"], ordinary: Float32[Tensor, "n classes"]) -> float:
    return float((ours - ordinary).abs().max())


def check_compiler(device: torch.device) -> None:
    """Raises UsageError where `torch.compile` has nothing to compile with: g++ on a CPU, Triton on a GPU."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UsageError("compile: true needs Triton on a GPU. Run `pip install triton`, or leave `compile` out.")
        return
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else CXX_COMPILERS)):
        raise UsageError(
            f"compile: true needs a C++ compiler, found none of {', '.join([named] if named else CXX_COMPILERS)}. "
            "Install g++ (or set CXX to a compiler), or leave `compile` out."
        )


def _proof_images(size: int) -> UInt8[Tensor, "2 size size 3"]:
    """Noise, and a smooth ramp with a bright block: two contents, so that no constant output passes by chance."""
    generator = torch.Generator().manual_seed(PROOF_SEED)
    noise = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
    ramp = torch.linspace(0, 255, size)
    smooth = torch.stack([ramp[:, None].expand(size, size), ramp.expand(size, size), ramp.flip(0).expand(size, size)])
    scene = smooth.permute(1, 2, 0).to(torch.uint8).contiguous()
    scene[: size // 3, : size // 2] = torch.tensor([250, 30, 60], dtype=torch.uint8)
    return torch.stack([noise, scene])
