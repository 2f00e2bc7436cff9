"""Labeler `caption`: an image and a prompt in, a caption in every style out, with the old one beside them.

RECAP (arXiv 2310.16656): short and long captions by one captioner. Its successors found that new captions must not
replace the old ones but be mixed with them, so both lie in one row.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import Field, field_validator

from ..errors import BadSample
from ..reasons import Reason
from .caption_writer import CaptionWriter, WriterParameters, read_text, words_in
from .engine_labeler import SampleCells
from .engines.choice import EngineChoice
from .engines.protocol import EngineConfig
from .images import MAX_PIXELS, decode_image, fitted
from .labeler import KEY, Fields, Prepared
from .registry import register
from .styles import Style, as_styles, check_fields, check_templates

OLD_CAPTION = "old_caption"
"""The need that meets the old caption where a recipe says `old_caption: true`."""
SYSTEM = (
    "You write captions for images{% if language %} in {{ language }}{% endif %}. A caption is plain text: no markup, "
    "no list, no preamble, nothing that cannot be seen in the image or read in it."
)
STYLES: dict[str, dict[str, Any]] = {
    "short": {"prompt": "Write one sentence that says what this image shows.", "system": SYSTEM, "max_tokens": 48},
    "long": {
        "prompt": "Write a paragraph of two to four sentences, 60 words at most, that says what this image shows: the "
        "things in it, their colours and number, where they are, and what happens.",
        "system": SYSTEM,
        "max_tokens": 128,
    },
}
"""What `short` and `long` mean where a recipe says no more."""


class CaptionSettings(WriterParameters):
    """All that captions are made with but the engine."""

    fields: tuple[str, ...] = ()
    """Further fields of the data set, by the names in `source.fields`, that prompts may speak of; empty where a sample
    has none."""
    old_caption: bool | str = False
    """Whether the sample's old caption is read (`{{ old }}` in a prompt) and kept beside the new ones. A name: the
    field, as `source.fields` has it; true: `old_caption`."""
    styles: dict[str, Style] = Field(default={"short": {}, "long": {}}, validate_default=True)
    """`short`, `long`, or your own with a `prompt`; `[short]`, or `{short: {max_tokens: 32}}`."""
    image_size: int = Field(default=768, ge=16, le=8192)
    """The longest side, in pixels, of the image that the engine gets; a smaller image stays as it is."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are dead letters."""

    @field_validator("fields")
    @classmethod
    def can_be_spoken_of(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        check_fields(fields)
        return fields

    @field_validator("styles", mode="before")
    @classmethod
    def have_defaults(cls, value: Any, known: Any) -> Any:
        return as_styles(value, STYLES, known.data.get("guards"))

    @field_validator("styles")
    @classmethod
    def speak_of_what_there_is(cls, styles: dict[str, Style], known: Any) -> dict[str, Style]:
        if "fields" in known.data and "old_caption" in known.data:
            check_templates(styles, names_for(known.data["fields"], bool(known.data["old_caption"])))
        return styles


class CaptionParameters(CaptionSettings):
    """What captions are made with."""

    engine: EngineChoice
    """The model that writes them: `{kind: transformers, model: FOLDER}`, `{kind: endpoint, url: ..., model: ...}`."""


def names_for(fields: tuple[str, ...], old: bool) -> tuple[str, ...]:
    return ("style", "language", *(("old",) if old else ()), *fields)


S = TypeVar("S", bound=CaptionSettings)


class Captioner(CaptionWriter[S]):
    """Captions by any engine; a subclass says which one."""

    needs = ("image", KEY)

    def __init__(self, parameters: S, label: str = "") -> None:
        super().__init__(parameters, label)
        read = parameters.old_caption
        self.old_field = (OLD_CAPTION if read is True else read) or ""
        self.wants = tuple(dict.fromkeys([*([self.old_field] if self.old_field else []), *parameters.fields]))

    @property
    def styles(self) -> Mapping[str, Style]:
        return self.parameters.styles

    @property
    def prompt_names(self) -> tuple[str, ...]:
        return names_for(self.parameters.fields, self.keeps_old)

    @property
    def keeps_old(self) -> bool:
        return bool(self.old_field)

    def prepare(self, sample: Fields) -> Prepared:
        """The image upright and no larger than asked for, the key, and the texts that prompts may speak of."""
        data = sample["image"]
        if not isinstance(data, bytes):
            raise BadSample(Reason.NOT_AN_IMAGE, f"the image field holds {type(data).__name__}, expected bytes")
        image = fitted(decode_image(data, self.parameters.max_pixels), self.parameters.image_size)
        texts = {f"field {name}": np.array(read_text(sample.get(name), name)) for name in self.wants}
        return {"image": image, "key": np.array(read_text(sample[KEY], "the key")), **texts}

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        """Style after style: an engine is kept busy by many samples."""
        found = words_in(sample, [f"field {name}" for name in self.wants])
        data = {name: found[f"field {name}"] for name in self.parameters.fields}
        old = found.get(f"field {self.old_field}", "")
        cells: dict[str, Any] = {"old": old} if self.keeps_old else {}
        for style in self.styles:
            written = await self.write(style, sample["key"], {**data, "old": old}, sample["image"], old)
            cells |= {f"{style}_{suffix}": value for suffix, value in written.items()}
        return cells


@register
class CaptionLabeler(Captioner[CaptionParameters]):
    """An image's captions in every style, by a vision-language model."""

    name, version = "caption", 1

    @property
    def engine_config(self) -> EngineConfig:
        return self.parameters.engine
