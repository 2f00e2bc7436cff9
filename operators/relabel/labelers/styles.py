"""Styles: in which words, how long and how freely a text is asked for; and what is changed when it must be asked again.

A style's prompt is a template (see `prompts`). A retry always has another seed; what else it changes is its rung.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from ..errors import UsageError
from .engines.protocol import Decoding
from .guards import Guards
from .labeler import Parameters
from .prompts import Template

STYLE = re.compile(r"[a-z][a-z0-9_]{0,23}")
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
RESERVED = frozenset({"old", "new", "language", "style", "true", "false", "none", "True", "False", "None"})
MOST_RUNGS = 12


class Style(Parameters):
    """One way in which a text is asked for; all of it is part of the label's meaning, to the last comma."""

    prompt: str
    """Jinja2: `{{ old }}`, `{{ language }}` and the names in `fields`, `{% if old %}...{% endif %}`, a few filters."""
    system: str = ""
    """The system turn, a template, too; empty: none. Only of a chat."""
    max_tokens: int = Field(default=64, ge=1, le=8192)
    """The most new tokens. What does not end before them is `cut`."""
    temperature: float = Field(default=0.0, ge=0, le=5)
    """0: the most probable token, always."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Tokens are drawn from the fewest that together have this probability."""
    top_k: int = Field(default=0, ge=0)
    """Tokens are drawn from so many most probable ones; 0: from all."""
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    """Logits of tokens that occurred are divided by it; 1: not at all."""
    stop: tuple[str, ...] = ()
    """Text that ends an answer and is no part of it."""
    guards: Guards | None = None
    """Other guards than the step's, for this style alone; what is not said stays as the step has it."""

    @field_validator("prompt", "system")
    @classmethod
    def is_a_template(cls, source: str) -> str:
        from .prompts import compiled

        compiled(source)
        return source

    def decoding(self, temperature: float | None = None, top_p: float | None = None) -> Decoding:
        """As the style says, but for what is given."""
        return Decoding(
            max_tokens=self.max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p if top_p is None else top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            stop=self.stop,
        )


class Rung(Parameters):
    """What one more attempt changes beside the seed; what is not said stays as the style has it."""

    temperature: float | None = Field(default=None, ge=0, le=5)
    """At least this one: a style that is freer already stays as free."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    image_scale: float = Field(default=1.0, gt=0, le=1)
    """Of the sides of the image."""
    max_chars: int | None = Field(default=None, ge=0)
    """The most of every field (the old caption, metadata) that is put into the prompt; 0: none of it."""

    @property
    def shortens(self) -> bool:
        """Whether the prompt takes less room."""
        return self.image_scale < 1 or self.max_chars is not None


LADDER = (Rung(), Rung(temperature=0.7), Rung(temperature=1.0, image_scale=0.5, max_chars=64))
"""Another seed (passed over where decoding is greedy: the answer would be the same), then warmer, then hotter with a
smaller image and a shorter prompt."""


def as_styles(value: Any, defaults: Mapping[str, Mapping[str, Any]], guards: Guards | None = None) -> Any:
    """What a recipe says of styles, with the defaults of those that have any: `[short]`, or `{short: {max_tokens: 8}}`.

    Guards of a style are completed by those of the step.

    Raises ValueError for a style that is neither named by the package nor given a prompt.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {str(name): {} for name in value}
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise ValueError(f"expected at least one style, e.g. {', '.join(defaults)}")
    made = {}
    for name, given in value.items():
        if not STYLE.fullmatch(str(name)):
            raise ValueError(f"a style is called by lower-case letters, digits and _ (at most 24), got {name!r}")
        given = {} if given is None else {"prompt": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            made[name] = given
            continue
        if name not in defaults and "prompt" not in given:
            raise ValueError(f"the style {name!r} needs a `prompt`; only {', '.join(defaults)} bring one")
        made[name] = {**defaults.get(name, {}), **given}
        if guards is not None and isinstance(own := given.get("guards"), Mapping):
            made[name]["guards"] = {**guards.model_dump(), **own}
    return made


def check_templates(styles: Mapping[str, Style], names: Sequence[str]) -> None:
    """Raises ValueError, naming the style, where a prompt speaks of what it will not be given."""
    for name, style in styles.items():
        for part in ("prompt", "system"):
            try:
                Template(getattr(style, part), names)
            except UsageError as error:
                raise ValueError(f"{name}.{part}: {error}") from None


def check_fields(fields: Sequence[str]) -> None:
    """Raises ValueError where a field's name cannot be a name in a template."""
    for name in fields:
        if not FIELD.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"{name!r} is no name that a prompt can speak of (letters, digits and _, none of its own such as "
                "old): give the field another one in `source.fields`"
            )
