"""Families: from a checkpoint to a classifier, by the library that knows the network."""

import inspect
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..digests import digest
from ..errors import Refused, UsageError
from ..labels.class_map import imagenet1k
from . import timm_models, torchvision_models
from .checkpoints import LITE_NETS, TIMM, TORCHVISION, TRANSFORMERS, Checkpoint
from .classifiers import Classifier, Features, from_tokens, linear_head
from .pretrained import Normalisation, load_pretrained, read_architecture, read_class_map, read_normalisation


def load_classifier(checkpoint: Checkpoint) -> Classifier:
    """Raises Refused where the weights do not fit the network, or its head is not one linear layer."""
    if checkpoint.architecture in LITE_NETS:
        return _load_lite(checkpoint)
    if checkpoint.architecture == TIMM:
        return timm_models.load(checkpoint)
    if checkpoint.architecture == TORCHVISION:
        return torchvision_models.load(checkpoint)
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
        head=linear_head(network, network.get_submodule("_fc")),
        normalisation=Normalisation(1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        architecture=digest(checkpoint.architecture),
        load_class_map=imagenet1k,
        weights=checkpoint.sha256(),
    )


def _load_transformers(checkpoint: Checkpoint) -> Classifier:
    network = load_pretrained(checkpoint, "ImageClassification")
    options = _position_options(network)
    return Classifier(
        network=network,
        features=_transformers_features(network, options),
        logits=lambda pixels: network(pixels, **options(pixels)).logits,
        head=linear_head(network, getattr(network, "classifier", None)),
        normalisation=read_normalisation(checkpoint),
        architecture=read_architecture(checkpoint),
        load_class_map=lambda: read_class_map(network),
        weights=checkpoint.sha256(),
        revision=checkpoint.revision,
        packages=(TRANSFORMERS,),
    )


def _position_options(network: Any) -> Callable[[Tensor], dict[str, bool]]:
    """Position embeddings are interpolated where the image is not of the size that the network was trained at."""
    native = getattr(network.config, "image_size", None)
    accepts = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters

    def options(pixels: Tensor) -> dict[str, bool]:
        return {"interpolate_pos_encoding": True} if accepts and int(pixels.shape[-1]) != native else {}

    return options


def _transformers_features(network: Any, options: Callable[[Tensor], dict[str, bool]]) -> Callable[[Tensor], Features]:
    """Of the body below the head. Patches of the configured size come last among the tokens; a hierarchical body
    (Swin) has fewer tokens than such patches, and all of them are cells.
    """
    body = network.base_model if network.base_model is not network else network.get_submodule("vision_model")
    patch = getattr(body.config, "patch_size", None)

    def features(pixels: Tensor) -> Features:
        hidden = body(pixels, **options(pixels)).last_hidden_state
        if hidden.dim() != 3:
            return Features(hidden)
        num_prefix = hidden.shape[1] - (pixels.shape[-1] // patch) ** 2 if isinstance(patch, int) else 0
        return from_tokens(hidden, max(0, int(num_prefix)))

    return features
