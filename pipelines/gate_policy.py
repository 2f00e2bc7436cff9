"""Gate policy: what a release must keep to be published, as a recipe says it; every limit has a default."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from relabel.digests import Json

from .section import Section
from .store_config import StorageOptions, StoreUrl


class Gold(Section):
    """Labels that are known to be right: a release in another store, of some of the same samples."""

    store: StoreUrl
    """Its path or URL. Samples are joined by shard, key and digest: label the same source, or some shards of it."""
    release: str = "latest"
    """`latest`, a number or a tag."""
    label: str | None = None
    """Its label; default: the only one."""
    against: str | None = None
    """The recipe's label that must agree with it; default: the only one that can be compared."""
    least: float | None = Field(default=None, ge=0, le=1)
    """The agreement that every release must reach: the mean over samples of the share of cells (pixels) with the gold
    class, or of samples with it; of captions the word F1. Default: none but that of the last release."""
    drop: float = Field(default=0.02, ge=0, le=1)
    """By how much it may fall below that of the last release, beside what chance explains."""
    storage_options: StorageOptions = Field(default_factory=dict)
    """fsspec options of the store."""


class Slice(Section):
    """Some shards that must keep limits of their own, as small as they are. In YAML a pattern is `shards`."""

    shards: str = Field(min_length=1)
    """A pattern of shard names (`night/*`)."""
    labelled: float = Field(default=0.9, ge=0, le=1)
    """The least share of its samples with a label, of those that are not filtered."""

    @model_validator(mode="before")
    @classmethod
    def from_text(cls, value: Any) -> Any:
        return {"shards": value} if isinstance(value, str) else value


class Gate(Section):
    """What is checked before a release is published. Refused is exit code 3: nothing is published, nothing is lost.
    In YAML `gate: off` asks for nothing.
    """

    off: bool = False
    """Publish whatever was made. The release says so."""

    labelled: float | None = Field(default=None, ge=0, le=1)
    """The least share of samples with a label, of those that are not filtered. Default: the error budget decides
    (`dead_letters` of the recipe)."""
    dead_letters: float = Field(default=0.01, ge=0, le=1)
    """By how much the share of dead samples (shards) of any reason may rise above the last release's."""
    filtered: float = Field(default=0.2, ge=0, le=1)
    """By how much the share of filtered samples may differ from the last release's."""
    removed_shards: float = Field(default=0.1, ge=0, le=1)
    """The largest share of the last release's shards that may be gone from the source; one always may."""
    flags: float = Field(default=0.05, ge=0, le=1)
    """By how much the share of samples with any flag may rise, and of those that lack a score."""
    classes: float = Field(default=0.25, ge=0, le=1)
    """The largest Jensen-Shannon distance (base 2) between the classes of what was labelled now and of the last
    release, beside how far shards of that release differ among themselves."""
    scores: float = Field(default=1.0, ge=0)
    """How far the median of a score may fall below the last release's, in its interquartile ranges."""
    lengths: float = Field(default=1.0, ge=0)
    """How far the median length of a text may move, in the last release's interquartile ranges."""
    wins: float = Field(default=0.1, ge=0, le=1)
    """By how much the share of samples whose new caption scores above the old one may fall."""
    agreement: float = Field(default=0.5, ge=0, le=1)
    """Of a teacher that was changed on purpose: the least share of the same samples that keep their class."""
    gold: Gold | None = None
    """Labels that are known to be right."""
    slices: dict[str, Slice] = Field(default_factory=dict)
    """By name: shards that are also judged by themselves."""
    expect_change: str | None = Field(default=None, min_length=1)
    """Why these labels are meant to mean something else than the last release's: another teacher, prompt, taxonomy.
    Without it they are refused. Recorded in the release. With it scores and lengths are told, not judged."""
    canary: float = Field(default=0.0, ge=0, lt=1)
    """This share of the shards to label, chosen by a hash of their names, is labelled and judged first; the rest is
    only paid for where it passes. 0: none. Its actors are started for itself, so models are loaded twice."""
    replay: int = Field(default=16, ge=0)
    """So many random samples of the last release, of two shards, are labelled again before all else where labels mean
    the same as there; labels that differ say that an engine or a service did. 0: none."""
    singly: int = Field(default=4, ge=0)
    """So many samples of the run's own are labelled once more, each alone: a label must not depend on others. Not of
    engines that do not promise to repeat themselves. 0: none."""
    same: float = Field(default=0.9, ge=0, le=1)
    """The least agreement of labels made twice: the share of cells, pixels or classes that are equal, of words of texts
    (F1), of numbers that differ by at most 2 %. One sample may always differ. A replay by an engine that does not
    promise to repeat itself is told, not judged."""
    approval: tuple[str, ...] = ()
    """Groups of people (`[owners]`) that must each approve what passed before it is published: `relabel approve`."""
    approval_days: float = Field(default=7.0, gt=0)
    """So long a candidate may be approved."""
    sample_shards: int = Field(default=32, ge=2)
    """So many label shards of a release are read, chosen by a hash of their names."""

    @field_validator("approval")
    @classmethod
    def are_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [group for group in groups if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", group)]:
            raise ValueError(f"expected names of letters, digits, `.`, `_`, `-`, got {bad[0]!r}")
        if len(set(groups)) < len(groups):
            raise ValueError(f"expected each group once, got {list(groups)}")
        return groups

    @model_validator(mode="after")
    def asks_somebody(self) -> "Gate":
        if self.off and self.approval:
            raise ValueError("off asks for nothing, approval for people: leave one out")
        return self

    @model_validator(mode="before")
    @classmethod
    def from_switch(cls, value: Any) -> Any:
        """`off` is false to YAML; nothing at all (`gate:`) is every default."""
        if value in (False, "off"):
            return {"off": True}
        return {} if value in (None, True, "on") else value


def declared_now(gate: Gate, before: Json) -> str | None:
    """Why a change is meant; None where the last release, with this verdict, was declared to be the same already.

    A declaration holds for one change: the release that it explained carries it, and the next change needs its own.
    """
    told = before["expect_change"] if before else None
    return gate.expect_change if gate.expect_change != told else None
