"""Classifiers: image classifiers opened as features before pooling and the linear head behind it.

Whether mean(head(features)) really is the classifier is not assumed here: `dense` proves it.
"""

import dataclasses
import importlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from ..digests import Json, digest
from ..errors import Refused, UsageError
from ..labels.class_map import ClassMap, from_id2label, imagenet1k
from .checkpoints import LITE_NETS, Checkpoint

VOLATILE = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""Fields of config.json that do not change what the network computes."""
POINTWISE = (nn.Flatten, nn.Dropout, nn.Identity)
"""What may stand beside the linear layer of a head: nothing that changes a pooled vector at inference."""
NORMALISATION_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Model input = (pixel * scale - mean) / std, pixels 0 .. 255 in RGB."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, pixels: UInt8[Tensor, "n y x 3"]) -> Float32[Tensor, "n 3 y x"]:
        """Channels-last in memory, as the pixels are."""
        offset = torch.tensor(self.mean, device=pixels.device) / self.scale
        factor = self.scale / torch.tensor(self.std, device=pixels.device)
        return ((pixels.float() - offset) * factor).permute(0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """An image classifier in eval mode, fp32, on the CPU."""

    network: nn.Module
    features: Callable[[Tensor], Tensor]
    """[n, 3, y, x] to what the network pools."""
    logits: Callable[[Tensor], Tensor]
    """[n, 3, y, x] to the network's ordinary logits [n, classes]."""
    head: nn.Linear
    normalisation: Normalisation
    architecture: str
    """Digest of what the network computes, apart from weights."""
    load_class_map: Callable[[], ClassMap]


def load_classifier(checkpoint: Checkpoint) -> Classifier:
    """Raises Refused where the weights do not fit the network, or the network is no pooled convolution."""
    if checkpoint.architecture in LITE_NETS:
        return _load_lite(checkpoint)
    return _load_transformers(checkpoint)


def _load_lite(checkpoint: Checkpoint) -> Classifier:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            f"{checkpoint.architecture} needs its network code. Run `pip install --no-deps efficientnet-lite-pytorch`."
        ) from error
    network: Any = EfficientNet.from_name(checkpoint.architecture)
    state = torch.load(io.BytesIO(checkpoint.weights[0].read_bytes()), map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refused(f"the weights in {checkpoint.weights[0].name} do not fit the network: {error}") from error
    network.eval()
    return Classifier(
        network=network,
        features=network.extract_features,
        logits=network,
        head=_linear(network, network.get_submodule("_fc")),
        normalisation=Normalisation(1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        architecture=digest(checkpoint.architecture),
        load_class_map=imagenet1k,
    )


def _load_transformers(checkpoint: Checkpoint) -> Classifier:
    network = _transformers_network(checkpoint)
    body = network.base_model
    config = json.loads((checkpoint.folder / "config.json").read_bytes())
    return Classifier(
        network=network,
        features=lambda pixels: body(pixels).last_hidden_state,
        logits=lambda pixels: network(pixels).logits,
        head=_linear(network, getattr(network, "classifier", None)),
        normalisation=_transformers_normalisation(checkpoint),
        architecture=digest({name: value for name, value in config.items() if name not in VOLATILE}),
        load_class_map=lambda: from_id2label({str(index): name for index, name in network.config.id2label.items()}),
    )


def _transformers_network(checkpoint: Checkpoint) -> Any:
    """A PreTrainedModel (transformers' own types are dynamic), every weight of which came from the checkpoint."""
    transformers = _transformers()
    try:
        network, loading = transformers.AutoModelForImageClassification.from_pretrained(
            checkpoint.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True, trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise Refused(f"{checkpoint.folder} does not load as an image classifier: {error}") from error
    faults = {what: sorted(map(str, keys)) for what, keys in loading.items() if keys}
    if faults:
        raise Refused(f"{checkpoint.folder}: the weights do not fit the network: {faults}. It is no classifier's.")
    return network.eval()


def _transformers() -> Any:
    """The module: a large and partly untyped library, imported only for its own models, with its bars off."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError("this model needs transformers. Run `pip install transformers`.") from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _linear(network: nn.Module, head: nn.Module | None) -> nn.Linear:
    """The one linear layer of a head; raises Refused where there is anything else that changes a vector."""
    layers = [layer for layer in (head.modules() if head is not None else ()) if not isinstance(layer, nn.Sequential)]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) != 1 or any(not isinstance(layer, (nn.Linear, *POINTWISE)) for layer in layers):
        raise Refused(
            f"{type(network).__name__} must end in one linear layer after pooling, got {head}. A label map needs a "
            "classifier whose head is linear: ResNet, RegNet, EfficientNet, MobileNet."
        )
    return linear[0]


def _transformers_normalisation(checkpoint: Checkpoint) -> Normalisation:
    """Read from the image processor, then compared with what it does to an image: a processor may do more."""
    try:
        processor = _transformers().AutoImageProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{checkpoint.folder} has no image processor, so its normalisation is unknown: {error} "
            "Save the processor beside the model."
        ) from error
    normalisation = _declared_normalisation(processor.to_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    processed = processor(images=pixels, do_resize=False, do_center_crop=False, return_tensors="np")["pixel_values"]
    ours = normalisation.apply(torch.from_numpy(pixels)[None]).numpy()
    if ours.shape != processed.shape or np.abs(ours - processed).max() > NORMALISATION_TOLERANCE:
        raise Refused(
            f"{type(processor).__name__} does more to an image than scale, mean and std say (channel order, offset); "
            "such models are not supported. Use one with plain normalisation."
        )
    return normalisation


def _declared_normalisation(processor: dict[str, Json]) -> Normalisation:
    scale = float(processor["rescale_factor"]) if processor.get("do_rescale") else 1.0
    if not processor.get("do_normalize"):
        return Normalisation(scale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = processor["image_mean"], processor["image_std"]
    if processor.get("include_top"):  # EfficientNet divides by std twice
        std = [value * value for value in std]
    return Normalisation(scale, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
