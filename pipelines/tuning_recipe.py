"""Tuning recipe: which captioner is tuned on whose captions, in which styles, for how long, into which folder."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from relabel.labelers.styles import STYLE
from relabel.shards.source import SourceConfig

from .recipe import DeadLetters
from .section import Section

JINJA = ("{{", "{%", "{#")
"""What begins something in a prompt of `caption`."""


class TunedStyle(Section):
    """One way of captioning. In YAML a plain text is the `field`."""

    field: str = Field(min_length=1)
    """The field of the source that holds its captions (`short.txt`). Samples without it do without this style."""
    prompt: str = ""
    """What the caption follows, without space around it. The step `caption` must be given the same one, with
    `chat: false`.
    """

    @field_validator("prompt")
    @classmethod
    def can_be_asked_again(cls, prompt: str) -> str:
        if any(mark in prompt for mark in JINJA):
            raise ValueError(f"a prompt that is tuned is plain text, without {', '.join(JINJA)}")
        return prompt.strip()

    @model_validator(mode="before")
    @classmethod
    def from_field(cls, value: Any) -> Any:
        return {"field": value} if isinstance(value, str) else value


class Training(Section):
    """How it is tuned."""

    steps: int = Field(default=2000, ge=1)
    """At most so many; the learning rate falls to its end along them."""
    batch: int = Field(default=32, ge=1)
    """Samples of one step, each with one of its styles, drawn by the sample's key and the epoch."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW, after `warmup` steps; then it falls along half a cosine."""
    warmup: int = Field(default=100, ge=0)
    """Steps on which the rate rises."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """The longest that a gradient may be, over all weights."""
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the image's features that is left out of every step; with few samples it keeps them from being
    learned by heart."""
    freeze_encoder: bool = True
    """The image encoder stays as it is, and every image goes through it once."""
    evaluate_every: int = Field(default=200, ge=1)
    """Steps between two looks at the held-out samples. Each is also a checkpoint."""
    patience: int = Field(default=5, ge=1)
    """So many looks in a row without a better one end the tuning."""
    threads: int = Field(default=1, ge=1)
    """Of the model on a CPU; part of what decides the last bits."""
    devices: int | None = Field(default=None, ge=1)
    """Processes that tune together, each with its share of a batch on a device of its own: a GPU where there is one,
    else `threads` of the CPU. Default: every GPU of this machine, or of the cluster; one where there is none."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn: first weights, order, styles, dropout, the held-out share."""


class TuningRecipe(Section):
    """A captioner, captions by people, and how one is tuned on the other."""

    name: str = Field(default="captioner", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """For the model card."""
    model: str = Field(min_length=1)
    """A folder that transformers saved, `hf:org/name[@revision]`, or `efficientnet-lite0` (1, 2): a new small captioner
    on the features of that network, which knows the words of the tuning captions."""
    source: SourceConfig
    """Images and captions."""
    styles: dict[str, TunedStyle] = Field(min_length=1)
    """By name: `{short: {field: short.txt, prompt: "short:"}}`."""
    held_out: float = Field(default=0.1, gt=0, le=0.5)
    """The share of the samples that is never trained on, by a hash of the key."""
    train: Training = Training()
    """Steps, batch, rate."""
    dead_letters: DeadLetters = DeadLetters()
    """How many samples may be unusable (no image, no caption)."""
    output: str = Field(min_length=1)
    """The folder to be written: model, tokenizer, image processor, model card. Beside it lies `<output>.tuning` until
    it is done."""

    @field_validator("styles")
    @classmethod
    def have_names(cls, styles: dict[str, TunedStyle]) -> dict[str, TunedStyle]:
        for name in styles:
            if not STYLE.fullmatch(name):
                raise ValueError(f"a style's name is lower-case letters, digits and _ (at most 24), got {name!r}")
        prompts = [style.prompt for style in styles.values()]
        if len(set(prompts)) < len(prompts):
            raise ValueError("styles are told apart by their prompts, which must differ; got one prompt twice")
        return styles

    @field_validator("output")
    @classmethod
    def is_a_folder(cls, output: str) -> str:
        if "://" in output:
            raise ValueError("expected a folder of this machine")
        return output.rstrip("/")
