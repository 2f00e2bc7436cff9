"""Metric `image_text_score`: how well captions fit their image: the cosine of CLIP's or SigLIP's two vectors.

CLIPScore (Hessel et al., arXiv 2104.08718) without its factor 2.5 and its cut at 0. It tells better which captions help
training than CIDEr does (Nguyen et al., arXiv 2307.10350). Old and new captions are scored by one model, side by side.

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labelers.checkpoints import HUB_FILES, TEXT_FILES, find_checkpoint, require_same, text_weight_files
from ..labelers.images import MAX_PIXELS, Rgb, decode_image, resize_square
from ..labelers.labeler import Batch, Fields, Labels, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..reasons import Reason
from .caption_metric import OLD, CaptionMetric, CaptionMetricParameters, read_text

NO_TEXT = -2.0
PACKAGES = ("torch", "transformers", "tokenizers")


class ImageTextScoreParameters(CaptionMetricParameters):
    """What captions are scored with."""

    model: str
    """`hf:org/name[@revision]`, or a folder that transformers saved: CLIP, SigLIP, or another dual encoder, with its
    tokenizer and image processor. Images are resized and cut as its image processor says."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What both encoders compute in; the cosine is always computed in fp32."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters."""


@register
class ImageTextScore(CaptionMetric[ImageTextScoreParameters]):
    """Per style, and as `old` of the old caption: the cosine of image and text, in [-1, 1], and `cut`, how many tokens
    of the text the encoder could not read.

    Also of SigLIP it is the cosine, not the logit of its sigmoid. Where there is no text it is -2.
    """

    name, version = "image_text_score", 1
    needs = ("image",)

    def __init__(self, parameters: ImageTextScoreParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self._pairs: Any = None
        self._numerics: dict[str, Json] = {}

    def weight_files(self) -> Sequence[Path]:
        return text_weight_files(self.parameters.model)

    def inspected_parameters(self) -> dict[str, Json]:
        return {"model": self.parameters.model}

    def inspect(self) -> dict[str, Json]:
        """Loads both encoders on the CPU and runs them once: what cannot work fails here, before any cluster."""
        from .dual_encoder import FixedPairs, load_dual_encoder

        encoder = load_dual_encoder(find_checkpoint(self.parameters.model, None, (*HUB_FILES, *TEXT_FILES)))
        frame = encoder.frame
        return {
            **encoder.facts,
            "features": FixedPairs(encoder, "cpu", "fp32", 2).prove(),
            "family": encoder.family,
            "budget": encoder.budget,
            "normalisation": encoder.normalisation.to_json(),
            "frame": {"size": frame.size, "share": frame.share, "interpolation": frame.interpolation},
        }

    def identity(self) -> dict[str, Json]:
        """What the model is called and which commit it was is for people; its digests are the identity."""
        parameters = self.parameters.model_dump(mode="json", exclude={"model"})
        facts = {name: value for name, value in self.known_facts().items() if name != "revision"}
        return {"parameters": parameters, **facts}

    def writes(self) -> LabelContract:
        measured = [*self.texts.styles, *([OLD] if self.measures_old else [])]
        names = [*measured, *(f"{each}_cut" for each in measured)]
        if len(set(names)) < len(names):
            raise UsageError(f"{self.label} needs a name for every column, got {', '.join(names)}. Rename a style.")
        return LabelContract(
            name=self.label,
            kind="score",
            columns=(
                *(Column(name=f"{self.label}_{each}", dtype="<f4") for each in measured),
                *(Column(name=f"{self.label}_{each}_cut", dtype="<i4") for each in measured),
            ),
            score_domain="cosine",
            no_score=NO_TEXT,
            rivals=tuple((style, OLD) for style in self.texts.styles) if self.measures_old else None,
        )

    def prepare(self, sample: Fields) -> Prepared:
        """The square that the encoder sees, and the old caption where the data set has it."""
        data, frame = sample["image"], self.known_facts()["frame"]
        if not isinstance(data, bytes):
            raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
        image = middle(decode_image(data, self.parameters.max_pixels), frame["share"])
        square = {"image": resize_square(image, frame["size"], frame["interpolation"])}
        if not self.old_field:
            return square
        return {**square, OLD: np.array(read_text(sample.get(self.old_field), self.old_field))}

    def load(self, device: str) -> None:
        """Raises Refused where the weights are not those of the facts, or the encoders do not run on this device."""
        from ..labelers.inference import fix_kernels, numerics
        from .dual_encoder import FixedPairs, load_dual_encoder

        facts = self.known_facts()
        encoder = load_dual_encoder(
            find_checkpoint(self.parameters.model, facts["revision"], (*HUB_FILES, *TEXT_FILES))
        )
        for what in ("weights", "tokenizer"):
            require_same(self.parameters.model, what, encoder.facts[what], facts[what])
        fix_kernels(self.threads)
        self._pairs = FixedPairs(encoder, device, self.parameters.dtype, self.compute_batch)
        self._pairs.prove()
        packages = {name: version(name) for name in PACKAGES}
        self._numerics = {**numerics(self._pairs.device), **packages, "compute_batch": self.compute_batch}

    def numerics(self) -> dict[str, Json]:
        return self._numerics

    def __call__(self, batch: Batch) -> Labels:
        assert self._pairs is not None, "load() comes before the first batch"
        images = self._pairs.images(np.asarray(batch["image"]))
        columns: dict[str, np.ndarray] = {}
        for name, texts in self.spoken(batch).items():
            vectors, cut = self._pairs.texts(texts)
            said = np.array([bool(text.strip()) for text in texts])
            cosines = (images * vectors).sum(-1).cpu().numpy()
            columns[name] = np.where(said, np.clip(cosines, -1, 1), np.float32(NO_TEXT))
            columns[f"{name}_cut"] = np.where(said, cut, 0).astype(np.int32)
        return self.columns(**columns)


def middle(image: Rgb, share: float | None) -> UInt8[np.ndarray, "height width 3"]:
    """The square in the middle of an image whose side is `share` of its shorter one; None: the whole image."""
    if share is None:
        return image
    height, width, _ = image.shape
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
