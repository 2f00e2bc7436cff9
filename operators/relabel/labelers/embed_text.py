"""Labeler `embed_text`: a text as one vector of length one, by an encoder of transformers (MiniLM, E5, BGE and others).

What classifiers over texts read (`fold_out`). A text's vector depends on no other text, to the last bit.

torch is imported where weights are touched, so that a recipe can be read and planned without it.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..digests import Json
from ..errors import BadSample, Refused, UsageError
from ..labels.contract import LabelContract
from ..labels.kinds import embedding
from ..reasons import Reason
from .checkpoints import HUB_FILES, TEXT_FILES, find_checkpoint, require_same, text_weight_files
from .labeler import KEY, Batch, Fields, Labeler, Labels, Parameters, Prepared
from .registry import register

PACKAGES = ("torch", "transformers", "tokenizers")
MAX_CHARACTERS = 1_000_000


class EmbedTextParameters(Parameters):
    """Which text is read, and by what."""

    model: str
    """`hf:org/name[@revision]`, or a folder that transformers saved: an encoder of texts with its tokenizer."""
    text: str = Field(default="text", min_length=1)
    """The field of the data set that holds the text, as `source.fields` names it."""
    column: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$")
    """A text of an earlier step instead: its label and the rest of the column's name, as `caption/short_text`."""
    max_characters: int = Field(default=20_000, ge=1, le=MAX_CHARACTERS)
    """What a text has beyond that is not read."""
    max_tokens: int = Field(default=256, ge=8, le=2048)
    """Nor what it has beyond so many tokens, its marks included, or beyond the encoder's longest text."""
    prefix: str = ""
    """What stands before every text: E5 wants `query: `."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """What the encoder computes in; the mean over tokens is taken in fp32."""
    stored: Literal["fp32", "fp16"] = "fp32"
    """What the vectors are written in."""


@register
class EmbedText(Labeler[EmbedTextParameters]):
    """One column: `vector` [features], of length one, in fp16 to 2^-11."""

    name, version = "embed_text", 1
    max_batches = 16

    def __init__(self, parameters: EmbedTextParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.needs = (parameters.text,) if parameters.column is None else (KEY,)
        self.reads = () if parameters.column is None else (parameters.column.split("/")[0],)
        self._encoder: Any = None
        self._numerics: dict[str, Json] = {}

    def weight_files(self) -> Sequence[Path]:
        return text_weight_files(self.parameters.model)

    def inspected_parameters(self) -> dict[str, Json]:
        return {"model": self.parameters.model}

    def inspect(self) -> dict[str, Json]:
        """Loads the encoder on the CPU and runs it once: what cannot work fails here, before any cluster."""
        from .text_encoder import FixedTexts, load_text_encoder

        encoder = load_text_encoder(find_checkpoint(self.parameters.model, None, (*HUB_FILES, *TEXT_FILES)))
        found = FixedTexts(encoder, "cpu", "fp32", 1, 8)(["a text"])
        if found.shape != (1, encoder.facts["features"]) or not np.isfinite(found).all():
            raise Refused(f"{self.parameters.model} does not give finite vectors; weights and configuration differ.")
        return encoder.facts

    def identity(self) -> dict[str, Json]:
        """What the model is called and which commit it was is for people; its digests are the identity."""
        parameters = self.parameters.model_dump(mode="json", exclude={"model"})
        return {"parameters": parameters, **{k: v for k, v in self.known_facts().items() if k != "revision"}}

    def writes(self) -> LabelContract:
        """Raises UsageError where the label that it reads has no such text."""
        if self.parameters.column is not None:
            label, suffix = self.parameters.column.split("/")
            columns = self.inputs[label].columns if label in self.inputs else ()
            texts = [column.name for column in columns if column.dtype == "string"]
            if f"{label}_{suffix}" not in texts:
                raise UsageError(
                    f"{self.label} reads the text {suffix!r} of the label {label!r}, which has: "
                    f"{', '.join(texts) or 'no text'}. Correct `column`, or put the step that writes it first."
                )
        dtype: Literal["<f2", "<f4"] = "<f2" if self.parameters.stored == "fp16" else "<f4"
        return embedding(self.label, int(self.known_facts()["features"]), dtype)

    def prepare(self, sample: Fields) -> Prepared:
        if self.parameters.column is not None:
            return {"key": np.array(str(sample[KEY])[:1000].encode("utf-8", "replace").decode())}
        value = sample[self.parameters.text]
        if not isinstance(value, str | bytes):
            raise BadSample(Reason.BAD_METADATA, f"{self.parameters.text} must be a text, got {type(value).__name__}")
        try:
            text = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise BadSample(Reason.BAD_METADATA, f"{self.parameters.text} is not UTF-8: {error}") from error
        if not text.strip():
            raise BadSample(Reason.EMPTY_FIELD, f"{self.parameters.text} has no text")
        return {"text": np.array(text[: self.parameters.max_characters].encode("utf-8", "replace").decode())}

    def load(self, device: str) -> None:
        """Raises Refused where the weights are not those of the facts."""
        from .inference import fix_kernels, numerics
        from .text_encoder import FixedTexts, load_text_encoder

        facts = self.known_facts()
        found = find_checkpoint(self.parameters.model, facts["revision"], (*HUB_FILES, *TEXT_FILES))
        encoder = load_text_encoder(found)
        for what in ("weights", "tokenizer"):
            require_same(self.parameters.model, what, encoder.facts[what], facts[what])
        fix_kernels(self.threads)
        longest = min(self.parameters.max_tokens, int(facts["longest"]))
        self._encoder = FixedTexts(encoder, device, self.parameters.dtype, self.compute_batch, longest)
        packages = {name: version(name) for name in PACKAGES}
        self._numerics = {**numerics(self._encoder.device), **packages, "compute_batch": self.compute_batch}

    def numerics(self) -> dict[str, Json]:
        return self._numerics

    def __call__(self, batch: Batch) -> Labels:
        assert self._encoder is not None, "load() comes before the first batch"
        name = "text" if self.parameters.column is None else self.parameters.column.replace("/", "_")
        texts = [f"{self.parameters.prefix}{text}"[: self.parameters.max_characters] for text in batch[name]]
        return self.columns(vector=self._encoder(texts))
