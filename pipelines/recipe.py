"""Recipe: what a run labels, with what, into which store. Every field of the YAML is documented here."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from relabel.digests import Json, canonical_json
from relabel.errors import describe_unknown
from relabel.reasons import DEAD_REASONS
from relabel.releases.leases import DEFAULT_SECONDS
from relabel.shards.source import SourceConfig
from relabel.storage.filesystems import check_url

from .gate_policy import Gate
from .nightly_policy import Nightly
from .prices import Prices
from .section import Section
from .store_config import StoreConfig

OWNER = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
"""What Kubernetes takes as the value of a label."""
LABEL_NAME = r"^[a-z][a-z0-9_]{0,47}$"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LATER: Mapping[str, Json] = {"license": None, "nightly": None, "report": False}
"""Fields, with their defaults, that a recipe without them does not show."""


class Step(Section):
    """One operator. In YAML: `- label_map: {model: efficientnet-lite0}`, with `as: NAME` to name its label."""

    operator: str
    """Short name of a registered operator (see `relabel operators`)."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The operator's parameters; part of the fingerprint."""
    label: str = Field(pattern=LABEL_NAME)
    """The label's name; its columns start with it. Default: the operator's name."""

    @field_validator("parameters")
    @classmethod
    def are_plain(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(parameters)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"expected plain values that JSON can hold ({error})") from None
        return parameters

    @model_validator(mode="before")
    @classmethod
    def from_short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or "operator" in value:
            return value
        operators = [key for key in value if key != "as"]
        if len(operators) != 1:
            raise ValueError(f"a step names one operator (`- label_map: {{...}}`), got {sorted(map(str, value))}")
        [operator] = operators
        return {"operator": operator, "parameters": value[operator] or {}, "label": value.get("as", operator)}


class ActorRange(Section):
    """As many actors as the cluster has room for, between these. In YAML one number means exactly so many."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="before")
    @classmethod
    def from_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def is_a_range(self) -> "ActorRange":
        if self.max < self.min:
            raise ValueError(f"max must be at least min, got {{min: {self.min}, max: {self.max}}}")
        return self


class Resources(Section):
    """What the run may use. Nothing here changes what a label means; it may change its last bits (numerics)."""

    actors: ActorRange | None = None
    """Model actors: a number, or `{min: 1, max: 8}` for nodes that come and go. Default: one per GPU of the cluster,
    or one without GPUs."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per actor. Default: 1 where the cluster has GPUs, else 0."""
    threads: int = Field(default=1, ge=1)
    """Model threads per actor on a CPU; also the CPUs that the actor reserves."""
    compute_batch: int = Field(default=8, ge=1)
    """Samples per forward pass; every pass has exactly this many (padded), so neighbours cannot change a label."""
    call_seconds: float = Field(default=600.0, gt=0)
    """The longest that one call of a labeler, or the preparation of one sample, may take. Then its process is ended,
    and a sample that is alone to blame becomes a dead letter (`timed_out`)."""
    part_rows: int = Field(default=256, ge=1)
    """Samples per part, the unit of work and of retry: lower it for very large inputs."""
    readers: int | None = Field(default=None, ge=1)
    """Shards read and decoded at a time. Default: as many as there are CPUs left."""
    lease_seconds: float = Field(default=DEFAULT_SECONDS, ge=3, le=86_400)
    """A run that was not heard of for so long, by the store's clock, may be taken over. It beats six times as often."""


class Limit(Section):
    """How many dead letters one reason may have: the larger of the two. With neither, none."""

    max_fraction: float = Field(default=0.0, ge=0, le=1)
    """Of all samples; for reasons of shards, of all shards."""
    allow: int = Field(default=0, ge=0)
    """Up to this many never fail a run, whatever the fraction."""


class DeadLetters(Section):
    """How many samples may fail. A run that can no longer keep this stops early and publishes nothing (exit code 4)."""

    max_fraction: float = Field(default=0.05, ge=0, le=1)
    """Of all samples; a shard that cannot be read counts as its own fraction of all shards."""
    allow: int = Field(default=10, ge=0)
    """Up to this many dead samples never fail a run, whatever the fraction."""
    per_reason: dict[str, Limit] = Field(default_factory=dict)
    """Stricter limits by reason code: `{corrupt_image: {max_fraction: 0.01, allow: 5}}`. The total counts as well."""

    @field_validator("per_reason")
    @classmethod
    def are_reasons(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        for name in limits:
            if name not in DEAD_REASONS:
                raise ValueError(describe_unknown("reason", name, DEAD_REASONS))
        return limits


class Budget(Section):
    """What one run may cost. Where it is spent the run stops as on SIGTERM (exit code 4); running again goes on."""

    usd: float | None = Field(default=None, gt=0)
    """Device hours by `prices`, and what services charged by the prices of their engines."""
    device_hours: float | None = Field(default=None, gt=0)
    """Of GPUs that actors hold, from the graph's start to its end; without GPUs, of actors."""


class Milestones(Section):
    """Partial releases of a run that goes on. In YAML a plain `10%` or `24h` is `every`."""

    every: str = Field(pattern=r"^(\d+(\.\d+)?%|\d+(\.\d+)?[smhd])$")
    """A share of the source's shards (`10%`) or a time (`90m`, `24h`, `7d`); a release whenever so much has passed
    since the last one; at least `1%` or `10m`, for every release is kept for ever and read by every commit. Readers
    must accept partial releases: `latest` stays the newest complete one."""

    @model_validator(mode="before")
    @classmethod
    def from_text(cls, value: Any) -> Any:
        return {"every": value} if isinstance(value, str) else value

    @field_validator("every")
    @classmethod
    def is_a_step(cls, every: str) -> str:
        number, unit = float(every[:-1]), every[-1]
        if not (1 <= number <= 100 if unit == "%" else number * SECONDS[unit] >= 600):
            raise ValueError(f"expected 1% to 100% of the shards, or at least 10m, got {every}")
        return every

    @property
    def share(self) -> float | None:
        """Of the source's shards, in (0, 1]; None where a time is meant."""
        return float(self.every[:-1]) / 100 if self.every.endswith("%") else None

    @property
    def seconds(self) -> float | None:
        return None if self.every.endswith("%") else float(self.every[:-1]) * SECONDS[self.every[-1]]


class Meta(Section):
    """Whose labels these are, and who pays. In releases, in the tags of metrics, on the Ray job and on Kubernetes; it
    changes no label and no fingerprint.
    """

    team: str = Field(default="", pattern=OWNER)
    """Who runs it: `relabel cost PREFIX --by team` adds up."""
    owner: str = Field(default="", pattern=OWNER)
    """Whom to ask, and to call where an alert fires."""
    cost_center: str = Field(default="", pattern=OWNER)
    """Who pays."""

    @property
    def named(self) -> dict[str, str]:
        """What it says, without what it leaves empty."""
        return {name: value for name, value in self.model_dump().items() if value}


class Recipe(Section):
    """A relabeling job: source, steps, store, resources."""

    name: str = Field(default="relabel", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """For logs and run ids."""
    license: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+/:_-]{0,199}$")
    """Of the labels, for the cards of releases: an SPDX identifier or a URL. Default: unknown."""
    source: SourceConfig
    """The data set being relabeled."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """The operators, each writing one label."""
    store: StoreConfig
    """Where the releases go: one store holds one line of releases."""
    resources: Resources = Resources()
    """Actors, threads, batch."""
    dead_letters: DeadLetters = DeadLetters()
    """The error budget."""
    gate: Gate = Gate()
    """What a release must keep to be published. `gate: off`: nothing is asked."""
    report: bool = False
    """Whether a run writes a page about each complete release beside it, before it is published (`relabel card STORE
    --format report`); it costs seconds to a minute. `relabel report STORE` makes one of any release, at any time."""
    budget: Budget | None = None
    """What one run may cost. Default: whatever it costs."""
    max_recompute: float | None = Field(default=None, ge=0, le=1)
    """The largest share (`1%`) of the last release's shards that a run labels once more, for whatever reason, without
    --accept-recompute. Default: all."""
    publish: Milestones | None = None
    """Partial releases while the run goes on (`publish: 10%`). Default: one release, when every shard is finished."""
    prices: Prices = Prices()
    """What devices and CPUs cost: what a run says of its cost."""
    meta: Meta = Meta()
    """Team, owner, cost center."""
    nightly: Nightly | None = None
    """What `relabel nightly` waits for, whom it tells, what it keeps. Default: nothing, nobody, all."""
    plugins: tuple[str, ...] = ()
    """Operators of your own: modules that can be imported, or paths to .py files or package folders, relative to the
    recipe's file or the working directory. They travel to the workers. Installed plugins need no entry."""

    @field_validator("max_recompute", mode="before")
    @classmethod
    def from_percent(cls, share: Any) -> Any:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)%", share) if isinstance(share, str) else None
        return float(found[1]) / 100 if found else share

    @model_validator(mode="after")
    def fits_together(self) -> "Recipe":
        if self.budget is not None and self.budget.usd is not None and self.prices.device_hour is None:
            raise ValueError(
                "budget.usd needs prices.device_hour, what a device costs for an hour (0 where only services charge)"
            )
        if self.publish is not None and self.gate.approval:
            raise ValueError(
                "gate.approval and publish (milestones): each milestone would wait for people. Leave one out"
            )
        return self

    @field_validator("plugins")
    @classmethod
    def are_names(cls, plugins: tuple[str, ...]) -> tuple[str, ...]:
        for plugin in plugins:
            check_url(plugin)
        return plugins

    @field_validator("steps")
    @classmethod
    def labels_are_distinct(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        labels = [step.label for step in steps]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two steps write the label {twice[0]!r}; name one of them with `as: NAME`")
        return steps

    def to_json(self) -> Json:
        """As a release carries it: resolved, with every default, without secrets."""
        fields: dict[str, Json] = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name not in LATER or value != LATER[name]}
