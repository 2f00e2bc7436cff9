"""Pretrained: networks that transformers saved, loaded whole, with the normalisation and classes that came with them.

transformers is large and partly untyped: it is imported only when one of its own models is asked for.
"""

import dataclasses
import importlib
import json
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from torch import Tensor

from ..digests import Json, digest
from ..errors import Refused, UsageError
from ..labels.class_map import ClassMap, from_id2label
from .checkpoints import Checkpoint

Task = Literal["ImageClassification", "SemanticSegmentation", "ImageTextEncoding", "TextEncoding"]
MAKERS: dict[Task, tuple[str, str]] = {
    "ImageClassification": ("AutoModelForImageClassification", "image classifier"),
    "SemanticSegmentation": ("AutoModelForSemanticSegmentation", "image segmenter"),
    "ImageTextEncoding": ("AutoModel", "image-text encoder"),
    "TextEncoding": ("AutoModel", "text encoder"),
}
"""What opens a network of that task, and what such a network is called."""
VOLATILE = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""Fields of config.json that do not change what the network computes."""
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

    def to_json(self) -> dict[str, Json]:
        """As facts hold it."""
        return {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}


def load_pretrained(checkpoint: Checkpoint, task: Task) -> Any:
    """A PreTrainedModel (transformers' own types are dynamic) in eval mode, fp32, on the CPU.

    Raises Refused where the folder holds no model for the task, or any weight did not come from the checkpoint.
    """
    automatic, maker = MAKERS[task]
    transformers = import_transformers()
    try:
        network, loading = getattr(transformers, automatic).from_pretrained(
            checkpoint.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True, trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise Refused(f"{checkpoint.folder} does not load as an {maker}: {error}") from error
    faults = {what: sorted(map(str, keys)) for what, keys in loading.items() if keys}
    if faults:
        raise Refused(f"{checkpoint.folder}: the weights do not fit the network: {faults}. It is no {maker}'s.")
    return network.eval()


def import_transformers() -> Any:
    """The module, with its bars off."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError("this model needs transformers. Run `pip install transformers`.") from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def read_architecture(checkpoint: Checkpoint) -> str:
    """Digest of what the network computes, apart from weights."""
    config = json.loads((checkpoint.folder / "config.json").read_bytes())
    return digest({name: value for name, value in config.items() if name not in VOLATILE})


def read_class_map(network: Any) -> ClassMap:
    """The classes that the network's configuration names."""
    return from_id2label({str(index): name for index, name in network.config.id2label.items()})


def read_normalisation(checkpoint: Checkpoint) -> Normalisation:
    """Read from the image processor, then compared with what it does to an image: a processor may do more."""
    processor = read_processor(checkpoint)
    normalisation = _declared(processor.to_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    processed = processor(images=pixels, do_resize=False, do_center_crop=False, return_tensors="np")["pixel_values"]
    ours = normalisation.apply(torch.from_numpy(pixels)[None]).numpy()
    if ours.shape != processed.shape or np.abs(ours - processed).max() > NORMALISATION_TOLERANCE:
        raise Refused(
            f"{type(processor).__name__} does more to an image than scale, mean and std say (channel order, offset); "
            "such models are not supported. Use one with plain normalisation."
        )
    return normalisation


def read_processor(checkpoint: Checkpoint) -> Any:
    """The image processor; raises Refused where there is none."""
    try:
        return import_transformers().AutoImageProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{checkpoint.folder} has no image processor, so its normalisation is unknown: {error} "
            "Save the processor beside the model."
        ) from error


def _declared(processor: dict[str, Json]) -> Normalisation:
    scale = float(processor["rescale_factor"]) if processor.get("do_rescale") else 1.0
    if not processor.get("do_normalize"):
        return Normalisation(scale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = processor["image_mean"], processor["image_std"]
    if processor.get("include_top"):  # EfficientNet divides by std twice
        std = [value * value for value in std]
    return Normalisation(scale, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
