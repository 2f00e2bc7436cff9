"""Labeler `caption_fuse`: one caption from two, by a text engine: what the old one knows and what the new one sees.

CapsFusion (arXiv 2310.20550) and VeCLIP (arXiv 2310.07699): new captions are fluent and lose who and where; old ones
have names and much else. Both meet in one row, joined by key; names that got lost on the way are said.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import Field, field_validator

from ..errors import UsageError
from ..labels.caption import Flag, caption_contract
from ..labels.contract import LabelContract
from .caption import OLD_CAPTION
from .caption_writer import CaptionWriter, WriterParameters, read_text
from .engine_labeler import SampleCells
from .engines.choice import EngineChoice
from .engines.protocol import EngineConfig
from .guards import Action, Answer, Finding
from .labeler import KEY, Fields, Prepared
from .proper_nouns import lost_names
from .registry import register
from .styles import Style, as_styles, check_fields, check_templates

STYLES: dict[str, dict[str, Any]] = {
    "fused": {
        "system": "You merge two descriptions of one image into one{% if language %} in {{ language }}{% endif %}. The "
        "first was written by someone who looked at the image, the second was found beside it on a web page.",
        "prompt": 'Seen: "{{ new }}"\n{% if old %}Found: "{{ old }}"\n{% endif %}'
        "Write one or two sentences that say what is seen, with every name of a person, place, make or title that was "
        "found. Leave out prices, file names, advertising and where it was published. Write nothing else.",
        "max_tokens": 96,
    }
}
"""What `fused` means where a recipe says no more."""


class FuseSettings(WriterParameters):
    """All that captions are fused with but the engine."""

    caption: str = "caption"
    """The label of an earlier step that holds the new captions."""
    style: str = "short"
    """Which of its styles is `{{ new }}` in a prompt."""
    fields: tuple[str, ...] = ()
    """Further fields of the data set that prompts may speak of; empty where a sample has none."""
    old_caption: str = OLD_CAPTION
    """The field of the old caption, as `source.fields` has it: `{{ old }}` in a prompt, empty where there is none."""
    styles: dict[str, Style] = Field(default={"fused": {}}, validate_default=True)
    """`fused`, or your own with a `prompt`."""
    lost_names: Action = "flag"
    """What becomes of a text that lacks a proper noun of the old caption (see `labelers.proper_nouns`)."""

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
        if "fields" in known.data:
            check_templates(styles, names_for(known.data["fields"]))
        return styles


class FuseParameters(FuseSettings):
    """What captions are fused with."""

    engine: EngineChoice
    """The model that merges them; it sees no image."""


def names_for(fields: tuple[str, ...]) -> tuple[str, ...]:
    return ("style", "language", "old", "new", *fields)


S = TypeVar("S", bound=FuseSettings)


class Fuser(CaptionWriter[S]):
    """Old and new caption merged by any engine; a subclass says which one."""

    needs = (KEY,)

    def __init__(self, parameters: S, label: str = "") -> None:
        super().__init__(parameters, label)
        self.reads = (parameters.caption,)
        self.wants = tuple(dict.fromkeys([parameters.old_caption, *parameters.fields]))

    @property
    def styles(self) -> Mapping[str, Style]:
        return self.parameters.styles

    @property
    def prompt_names(self) -> tuple[str, ...]:
        return names_for(self.parameters.fields)

    @property
    def keeps_old(self) -> bool:
        return True

    def writes(self) -> LabelContract:
        """Raises UsageError where the label that it reads has no such style."""
        self.require_template()
        read, style = self.inputs.get(self.parameters.caption), self.parameters.style
        if read is not None and style not in (read.styles or ()):
            raise UsageError(
                f"{self.label} reads the style {style!r} of the label {read.name!r}, which has: "
                f"{', '.join(read.styles or ()) or 'none, it is no caption in styles'}. Set `style` to one of these."
            )
        config = self.engine_config
        return caption_contract(
            self.label,
            list(self.styles),
            logprobs=config.logprobs,
            reproducible=config.reproducible and (read is None or read.reproducible is not False),
            old=True,
            names=True,
        )

    def findings(self, style: str, answer: Answer) -> list[Finding]:
        """Those of the guards, and the names of the old caption that the text has not."""
        found, action = super().findings(style, answer), self.parameters.lost_names
        lost = [] if action == "off" else lost_names(answer.old, answer.text)
        if lost:
            found.append(Finding(Flag.LOST_NAMES, f"lacks {', '.join(lost)}", action == "reject"))
        return found

    def more_cells(self, text: str, old: str) -> dict[str, Any]:
        return {"names_lost": lost_names(old, text)}

    def prepare(self, sample: Fields) -> Prepared:
        """The key and the texts that prompts may speak of."""
        texts = {f"field {name}": np.array(read_text(sample.get(name), name)) for name in self.wants}
        return {"key": np.array(read_text(sample[KEY], "the key")), **texts}

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        old = str(sample[f"field {self.parameters.old_caption}"])
        new = str(sample[f"{self.parameters.caption}_{self.parameters.style}_text"])
        data = {name: str(sample[f"field {name}"]) for name in self.parameters.fields} | {"old": old, "new": new}
        cells: dict[str, Any] = {"old": old}
        for style in self.styles:
            written = await self.write(style, sample["key"], data, old=old)
            cells |= {f"{style}_{suffix}": value for suffix, value in written.items()}
        return cells


@register
class CaptionFuseLabeler(Fuser[FuseParameters]):
    """One caption from the old and the new one, by a language model."""

    name, version = "caption_fuse", 1

    @property
    def engine_config(self) -> EngineConfig:
        return self.parameters.engine
