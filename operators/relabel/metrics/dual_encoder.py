"""Dual encoders: images and texts into one space, by CLIP and SigLIP as transformers saves them, in fixed batches.

SigLIP was trained on texts padded to their full length, without a mask, and so it reads them here; others get the mask.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int32, UInt8
from torch import Tensor

from ..digests import Json, digest, sha256
from ..errors import Refused, UsageError
from ..labelers.checkpoints import TRANSFORMERS, Checkpoint
from ..labelers.pretrained import (
    Normalisation,
    import_transformers,
    load_pretrained,
    read_architecture,
    read_normalisation,
    read_processor,
)

UNMASKED = ("siglip", "siglip2")
INTERPOLATIONS: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as image processors have them."""
VOCABULARY = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
WIDEST = 1_000_000
"""What a tokenizer says of its longest text where nobody told it."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Which square of an image the encoder sees."""

    size: int
    """Pixels of its side."""
    share: float | None
    """Of the image's shorter side, the side of the square in its middle; None: the whole image, stretched."""
    interpolation: Literal["bilinear", "bicubic"]


@dataclasses.dataclass(frozen=True)
class DualEncoder:
    """Both encoders in eval mode, fp32, on the CPU."""

    network: Any
    """A PreTrainedModel with `get_image_features` and `get_text_features`."""
    tokenizer: Any
    normalisation: Normalisation
    frame: Frame
    budget: int
    """Tokens of the longest text, its marks included."""
    family: str
    facts: dict[str, Json]
    """Digests of weights, tokenizer and architecture; the revision."""


def text_files(folder: Path) -> tuple[Path, ...]:
    """The files that decide how a text is cut into tokens, by name."""
    return tuple(sorted({path for pattern in VOCABULARY for path in folder.glob(pattern)}))


def load_dual_encoder(checkpoint: Checkpoint) -> DualEncoder:
    """Raises UsageError for a checkpoint of another library, Refused where it does not load whole or is none."""
    if checkpoint.architecture != TRANSFORMERS:
        raise UsageError(
            f"an image-text score needs a dual encoder of transformers (CLIP, SigLIP), got {checkpoint.architecture}. "
            "Give hf:org/name, or a folder that `AutoModel` and `AutoProcessor` can load."
        )
    network = load_pretrained(checkpoint, "ImageTextEncoding")
    if not all(hasattr(network, name) for name in ("get_image_features", "get_text_features")):
        raise Refused(
            f"{checkpoint.folder} holds a {type(network).__name__}, not an encoder of images and one of texts."
        )
    tokenizer = load_tokenizer(checkpoint, int(network.config.text_config.vocab_size))
    positions = int(network.config.text_config.max_position_embeddings)
    widest = int(tokenizer.model_max_length)
    files = text_files(checkpoint.folder)
    return DualEncoder(
        network=network,
        tokenizer=tokenizer,
        normalisation=read_normalisation(checkpoint),
        frame=read_frame(read_processor(checkpoint).to_dict(), checkpoint.folder),
        budget=min(positions, widest) if widest < WIDEST else positions,
        family=str(network.config.model_type),
        facts={
            "weights": checkpoint.sha256(),
            "tokenizer": digest({path.name: sha256(path.read_bytes()) for path in files}),
            "architecture": read_architecture(checkpoint),
            "revision": checkpoint.revision,
        },
    )


def load_tokenizer(checkpoint: Checkpoint, num_tokens: int) -> Any:
    """Raises Refused where the folder holds none that pads and gives tokens that the encoder knows."""
    if not text_files(checkpoint.folder):  # transformers would make one up that knows no word
        raise Refused(f"{checkpoint.folder} holds no tokenizer. Save it beside the model.")
    try:
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise Refused(
            f"{checkpoint.folder} holds no tokenizer that loads: {error}. Save it beside the model."
        ) from error
    if tokenizer.pad_token is None or len(tokenizer) > num_tokens:
        raise Refused(
            f"{checkpoint.folder}: its tokenizer must have a padding token and at most the {num_tokens} tokens that "
            f"the encoder knows, got {tokenizer.pad_token!r} and {len(tokenizer)}. Save its own."
        )
    return tokenizer


def read_frame(processor: Mapping[str, Json], folder: Path) -> Frame:
    """What the image processor does to an image's size; raises Refused where that is no square of a fixed size."""
    size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
    crops = bool(processor.get("do_center_crop"))
    interpolation = INTERPOLATIONS.get(int(processor.get("resample") or 0))
    side, whole = size.get("height"), side_of(size)
    shorter, cut = size.get("shortest_edge"), side_of(crop)
    if processor.get("do_resize") and interpolation is not None:
        if whole is not None and (not crops or cut == side):
            return Frame(whole, None, interpolation)
        if shorter is not None and crops and cut is not None and cut <= shorter:
            return Frame(cut, cut / shorter, interpolation)
    raise Refused(
        f"{folder}: its image processor must stretch an image to a square, or resize its shorter side and cut a square "
        f"from its middle, bilinear or bicubic; got size {size}, crop {crop if crops else 'none'}, resample "
        f"{processor.get('resample')}. Such models are not supported."
    )


def side_of(size: Mapping[str, Json]) -> int | None:
    """Of a square; None where it is none."""
    return int(size["height"]) if size.get("height") and size.get("height") == size.get("width") else None


class FixedPairs:
    """Images and texts to unit vectors, on a device: every call of either encoder has exactly `compute_batch` rows."""

    def __init__(self, encoder: DualEncoder, device: str, dtype: Literal["fp32", "bf16"], compute_batch: int) -> None:
        self.encoder, self.compute_batch = encoder, compute_batch
        self.device = torch.device(device)
        self.dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        encoder.network.to(self.device, self.dtype)

    @torch.inference_mode()
    def images(self, images: UInt8[np.ndarray, "batch size size 3"]) -> Float32[Tensor, "batch features"]:
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        found = self.encoder.network.get_image_features(self.encoder.normalisation.apply(pixels).to(self.dtype))
        return unit(found)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> tuple[Float32[Tensor, "batch features"], Int32[np.ndarray, " batch"]]:
        """And how many tokens of each were beyond the budget, and not read."""
        tokenizer, budget = self.encoder.tokenizer, self.encoder.budget
        lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
        given = tokenizer(list(texts), padding="max_length", truncation=True, max_length=budget, return_tensors="pt")
        mask = None if self.encoder.family in UNMASKED else given["attention_mask"].to(self.device)
        found = self.encoder.network.get_text_features(given["input_ids"].to(self.device), attention_mask=mask)
        return unit(found), np.maximum(np.array(lengths, np.int32) - budget, 0)

    def prove(self) -> int:
        """The number of features; raises Refused where images and texts do not meet in one space."""
        size, name = self.encoder.frame.size, type(self.encoder.network).__name__
        images = np.random.default_rng(0).integers(0, 256, (self.compute_batch, size, size, 3), np.uint8)
        try:
            seen, (said, _) = self.images(images), self.texts(["a photo"] * self.compute_batch)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise Refused(
                f"{name} does not run on images of {size} x {size} pixels and texts of {self.encoder.budget} tokens: "
                f"{error}"
            ) from error
        if seen.shape != said.shape or not bool(torch.isfinite(torch.stack([seen, said])).all()):
            raise Refused(
                f"{name} must give finite vectors of one length for images and texts, got {list(seen.shape)} and "
                f"{list(said.shape)}. Its configuration and its weights do not fit."
            )
        return int(seen.shape[1])


def unit(found: Any) -> Float32[Tensor, "batch features"]:
    """Of length one, in fp32; transformers gives the vectors themselves or (from version 5) an output that has them."""
    vectors = found if isinstance(found, Tensor) else found.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
