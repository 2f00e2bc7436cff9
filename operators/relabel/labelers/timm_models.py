"""timm models: networks of the timm library from the folder or hub snapshot that timm saved (`timm:NAME`).

timm is optional and is imported only for its own models; weights are read from safetensors alone.
"""

import importlib
import json
from collections.abc import Callable
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..digests import Json, digest
from ..errors import Refused, UsageError
from ..labels.class_map import ClassMap, imagenet1k
from .checkpoints import TIMM, Checkpoint
from .classifiers import Classifier, Features, from_tokens, linear_head
from .pretrained import Normalisation

VOLATILE = ("label_names", "label_descriptions")
IMAGENET_CLASSES = 1000


def load(checkpoint: Checkpoint) -> Classifier:
    """Raises UsageError where timm is not installed, Refused where the weights do not fit or the head is not linear."""
    config = json.loads((checkpoint.folder / "config.json").read_bytes())
    settings = {**config, **config.get("pretrained_cfg", {}), **config.get("model_args", {})}
    network = _network(checkpoint, config)
    mean, std = settings["mean"], settings["std"]
    return Classifier(
        network=network,
        features=_features(network),
        logits=network,
        head=linear_head(network, network.get_classifier()),
        normalisation=Normalisation(1 / 255, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])),
        architecture=digest({name: value for name, value in config.items() if name not in VOLATILE}),
        load_class_map=lambda: _class_map(checkpoint, config),
        weights=checkpoint.sha256(),
        revision=checkpoint.revision,
        packages=(TIMM,),
    )


def _network(checkpoint: Checkpoint, config: Json) -> Any:
    """A timm network (their types are dynamic), every weight of which came from the checkpoint."""
    options = {"num_classes": config.get("num_classes", IMAGENET_CLASSES), **config.get("model_args", {})}
    network = _timm().create_model(config["architecture"], pretrained=False, **options)
    try:
        network.load_state_dict(load_file(checkpoint.weights[0]), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise Refused(f"{checkpoint.folder}: the weights do not fit {config['architecture']}: {error}") from error
    return network.eval()


def _timm() -> Any:
    """The module. It imports torchvision, whose build must fit torch's: else that raises RuntimeError."""
    try:
        return importlib.import_module(TIMM)
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"this model needs timm, which does not import here: {error} Run `pip install timm` with the torchvision "
            "that fits this torch (for a CPU build of torch, a CPU build of torchvision)."
        ) from error


def _features(network: Any) -> Callable[[Tensor], Features]:
    num_prefix = getattr(network, "num_prefix_tokens", 0)
    channels_last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"

    def features(pixels: Tensor) -> Features:
        _check_size(network, int(pixels.shape[-1]))
        found = network.forward_features(pixels)
        if found.dim() == 3:
            return from_tokens(found, num_prefix)
        return Features(found.permute(0, 3, 1, 2) if channels_last else found)

    return features


def _check_size(network: Any, size: int) -> None:
    """Networks with learnt positions take one size only, unless they were made to interpolate."""
    patches = getattr(network, "patch_embed", None)
    native = getattr(patches, "img_size", None)
    if native is not None and getattr(patches, "strict_img_size", False) and size != native[-1]:
        raise UsageError(
            f"input_size must be {native[-1]} for this {type(network).__name__}, got {size}. Save it with "
            "`model_args: {dynamic_img_size: true}` in its config.json to use others."
        )


def _class_map(checkpoint: Checkpoint, config: Json) -> ClassMap:
    names = config.get("label_names") or config.get("pretrained_cfg", {}).get("label_names")
    if names:
        return ClassMap(tuple(str(name) for name in names))
    count = config.get("num_classes", IMAGENET_CLASSES)
    if count == IMAGENET_CLASSES:
        return imagenet1k()
    raise UsageError(f"{checkpoint.folder.name} does not name its {count} classes. Give `class_names`, in order.")
