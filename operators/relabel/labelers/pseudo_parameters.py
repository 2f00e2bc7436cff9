"""Pseudo-label parameters: how a text gets its classes from a language model; all of it is part of what they mean."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..errors import UsageError
from .label_sets import Given, label_set, normal
from .labeler import Parameters
from .prompts import MAX_TEMPLATE, compiled
from .pseudo_prompts import How, Options, default_prompt
from .styles import check_fields

NAMES = ("text", "labels", "definitions", "options", "other")
"""What every prompt may speak of, beside the fields."""
MOST_LETTERS = 26


class PseudoLabelSettings(Parameters):
    """All that pseudo-labels are made with but the engine."""

    labels: Given
    """The classes: `[sports, business]`, `{sports: matches, players and clubs, ...}`, or the path of a taxonomy, a JSON
    file `{"classes": [{"id": ..., "name": ..., "description": ...}]}` whose content, not its name, is part of the
    label's meaning."""
    how: How = "score"
    """score: the log-likelihood of every label, and so a probability; choose: the model writes one of the labels, held
    to them token by token; json: it writes JSON freely, which is read, and asked for again where it is none."""
    prompts: tuple[str, ...] = Field(default=(), max_length=16)
    """Jinja2 templates: `{{ text }}`, `{{ labels }}` (in a row), `{{ definitions }}` (a line each, with descriptions),
    `{{ options }}` (a line each, with letters), `{{ other }}` and the names in `fields`. Several: each votes. Default:
    one of our own for every `how`."""
    chat: bool | None = None
    """Whether prompts go through the model's chat template; false: the model goes on with plain text. Default: not
    where labels are scored."""
    fields: tuple[str, ...] = ()
    """Further fields of the data set, by the names in `source.fields`, that prompts may speak of."""
    text_tokens: int = Field(default=256, ge=4, le=4096)
    """The most of the text that a prompt holds, in tokens as `labelers.excerpts` estimates them; of longer texts the
    beginning and the end, and `truncated` says so."""
    head: float = Field(default=0.75, ge=0, le=1)
    """Of these tokens, the share that the beginning of a long text gets; 1: its beginning alone."""
    max_chars: int = Field(default=300, ge=0, le=8192)
    """The most of every further field that is put into a prompt."""
    options: Options = "labels"
    """score: what is scored. letters: one letter for every label, as `{{ options }}` has them; up to 26 labels."""
    lead: str | None = None
    """What stands between a plain prompt and a label; default: a space, in a chat nothing."""
    terminator: str = "\n"
    """score: what follows a label in this format, and is scored with it, so that no label gains by being another one's
    beginning. A line break; the end of a chat turn costs small models a sixth of their accuracy."""
    combine: Literal["log_probs", "probs"] = "log_probs"
    """score: what the mean over prompts is taken of."""
    most: int = Field(default=1, ge=1, le=100)
    """choose, json: so many labels may a text have."""
    other: str = ""
    """json: what the model says where no label fits (`Other`); empty: there is no such answer."""
    held: bool | None = None
    """json: whether the engine is given the JSON schema that answers must fit. Default: where it can hold to one."""
    attempts: int = Field(default=3, ge=1, le=12)
    """json: an answer that does not parse, or names no label, is asked for so often."""
    retry_temperature: float = Field(default=0.7, ge=0, le=5)
    """json: of every attempt but the first; each has another seed."""
    max_tokens: int = Field(default=64, ge=1, le=8192)
    """json: of an answer."""
    seed: int = Field(default=0, ge=0)
    """Of all that is drawn, together with the sample's key, the prompt and the attempt."""

    @field_validator("fields")
    @classmethod
    def can_be_spoken_of(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        check_fields(fields)
        if taken := sorted({*fields} & {*NAMES}):
            raise ValueError(
                f"{', '.join(taken)}: give the field another name in `source.fields`, prompts have their own"
            )
        return fields

    @field_validator("prompts", mode="before")
    @classmethod
    def from_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("prompts")
    @classmethod
    def are_templates(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if len(prompt) <= MAX_TEMPLATE:
                compiled(prompt)
        if len(set(prompts)) < len(prompts):
            raise ValueError("the same prompt twice would vote twice")
        return prompts

    @model_validator(mode="after")
    def fits_together(self) -> "PseudoLabelSettings":
        faults = {
            "`most` above 1 needs `how: choose` or `how: json`: scores are of one label": self.how == "score"
            and self.most > 1,
            "`other` needs `how: json`": self.how != "json" and self.other,
            "`options: letters` needs `how: score`": self.how != "score" and self.options == "letters",
            "`terminator` must hold a character; a line break ends a label": self.how == "score"
            and not self.terminator,
        }
        if fault := next((fault for fault, broken in faults.items() if broken), None):
            raise ValueError(fault)
        if not isinstance(self.labels, str):  # a path is read when the labeler is inspected
            try:
                self.check_labels()
            except UsageError as error:
                raise ValueError(f"labels: {error}") from None
        return self

    def check_labels(self) -> None:
        """Raises UsageError where these labels do not go with the rest."""
        labels = label_set(self.labels)
        if self.most > 1:
            labels.require_separable()
        if self.options == "letters" and len(labels.names) > MOST_LETTERS:
            raise UsageError(f"`options: letters` takes {MOST_LETTERS} labels at most, got {len(labels.names)}.")
        if self.other and labels.match(self.other) is not None:
            raise UsageError(f"`other` ({normal(self.other)!r}) must be none of the labels.")

    @property
    def is_chat(self) -> bool:
        return self.how != "score" if self.chat is None else self.chat

    @property
    def before(self) -> str:
        """What a label begins with."""
        return self.lead if self.lead is not None else "" if self.is_chat else " "

    @property
    def templates(self) -> tuple[str, ...]:
        """The sources of all prompts, at least one."""
        return self.prompts or (default_prompt(self.how, self.options, self.most > 1),)
