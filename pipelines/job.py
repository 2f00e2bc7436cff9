"""Jobs: everything that a worker must know of a run, small and picklable; and the words that stages exchange."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from relabel.digests import Json, digest
from relabel.errors import UsageError
from relabel.labelers.labeler import KEY, Labeler
from relabel.labelers.provenance import definers, root_module
from relabel.labels.contract import LabelContract
from relabel.releases.receipts import Receipt
from relabel.releases.versions import LabelIdentity, meaning_digest
from relabel.releases.withdrawals import Withdrawn
from relabel.shards.shard import Shard
from relabel.shards.source import SourceConfig, selection
from relabel.statistics.statistic import Statistic
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store

from .recipe import Recipe


def describe_label(labeler: Labeler[Any], results: Sequence[Json]) -> LabelIdentity:
    """What a release says of a label, made with these results of statistics."""
    return LabelIdentity(
        operator=labeler.name,
        version=labeler.version,
        fingerprint=labeler.fingerprint(),
        identity={
            **labeler.identity(),
            **({"source": labeler.source} if labeler.source else {}),
            **({"statistics": list(results)} if results else {}),
        },
        contract=labeler.writes(),
        class_names=tuple(labeler.class_names()),
    )


def own_module(labeler: Labeler[Any]) -> str:
    """The module of an operator of the user's own; empty for relabel's."""
    return "" if labeler.source is None else type(labeler).__module__


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """What of a finished shard is labelled anew: all other rows stay as they are."""

    keys: frozenset[str]
    previous: Receipt
    """Names the label shard that holds the other rows."""

    @property
    def name(self) -> str:
        """Of these keys: parts of another replay are no parts of this one."""
        return digest([self.previous.generation, sorted(self.keys)])[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to label, and what a former run already did of it."""

    shard: Shard
    generation: int = 0
    """Of the receipt that this labelling will write; rises for replay, repair or data found gone."""
    finished_parts: Mapping[int, "Part"] = dataclasses.field(default_factory=dict)
    """By first row."""
    replay: Replay | None = None
    """None: every row is labelled."""
    again: Receipt | None = None
    """Only some samples are labelled, and compared with the labels that this receipt names; nothing is written."""
    check: int = 0
    """So many samples are labelled twice."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """The labels of a run of consecutive rows of one shard, lying in the store."""

    start: int
    rows: int
    path: str
    """Content-addressed: its name holds the digest of its bytes."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over all rows for one statistic."""

    index: int
    """Of the labeler that needs it."""
    label: str
    """What that one writes."""
    statistic: Statistic
    fingerprint: str
    """Digest of what is gathered, from which rows and fields."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run's meaning and settings."""

    run_id: str
    recipe: Recipe
    labelers: tuple[Labeler[Any], ...]
    """In the order of the recipe's steps, with their facts, without weights."""
    source_labels: Mapping[str, LabelContract] = dataclasses.field(default_factory=dict)
    """Of the release that is the source: those that labelers read."""
    results: Mapping[str, tuple[Json, ...]] = dataclasses.field(default_factory=dict)
    """Label -> of every statistic that went into it, in order, its `path` in the store and its `sha256`."""
    pending: "Pass | None" = None
    """The first statistic that is still to be gathered: until then no fingerprint is known."""
    withdrawn: Withdrawn = dataclasses.field(default_factory=Withdrawn)
    """What the store says must not be labelled, as of the plan; no part of the fingerprint."""

    @property
    def source(self) -> SourceConfig:
        return self.recipe.source

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of all labels' fingerprints and of which rows are labelled from which fields."""
        return meaning_digest(self.label_fingerprints, self.selection)

    @property
    def selection(self) -> Json:
        return selection(self.recipe.source)

    @functools.cached_property
    def label_fingerprints(self) -> dict[str, str]:
        return {labeler.label: labeler.fingerprint() for labeler in self.labelers}

    @property
    def needs(self) -> tuple[str, ...]:
        """Sample fields that any labeler reads, in order, each once."""
        return tuple(dict.fromkeys(need for labeler in self.labelers for need in labeler.needs))

    @property
    def wants(self) -> tuple[str, ...]:
        """Fields that a labeler reads only where they are there, and that no labeler needs."""
        wants = dict.fromkeys(want for labeler in self.labelers for want in labeler.wants)
        return tuple(want for want in wants if want not in self.needs)

    @property
    def digested(self) -> dict[str, list[str]]:
        """Of what a sample's digest is made, in order: the fields that all samples have, then those that some have.

        A release carries it, so that who reads the media again can tell whether they are those that were labelled.
        """
        return {"needs": [need for need in self.needs if need != KEY], "wants": list(self.wants)}

    @property
    def own_labelers(self) -> tuple[Labeler[Any], ...]:
        """Those that the user wrote."""
        return tuple(labeler for labeler in self.labelers if labeler.source is not None)

    @property
    def plugins(self) -> tuple[str, ...]:
        """Modules and packages that define operators of the user's own: workers need them."""
        classes = [cls for own in self.own_labelers for cls in definers(type(own))]
        return tuple(dict.fromkeys(root_module(cls.__module__).__name__ for cls in classes))

    def describe_labels(self) -> dict[str, LabelIdentity]:
        """What the release says of each label."""
        return {each.label: describe_label(each, self.results.get(each.label, ())) for each in self.labelers}

    def require_results(self) -> None:
        """Raises UsageError where a statistic is still to be gathered."""
        if self.pending is not None:
            raise UsageError(
                f"the step {self.labelers[self.pending.index].label!r} needs the statistic "
                f"{self.pending.statistic.name!r} of the whole data set, which is not gathered yet: `run` does it."
            )

    def open_store(self) -> ObjectStore:
        return open_store(self.recipe.store.url, self.recipe.store.storage_options)

    def part_folder(self, token: str, generation: int, replay: str = "") -> str:
        """Where the parts of one shard lie until its label shard is written; only equally cut parts lie together."""
        cut = f"by{self.recipe.resources.part_rows}{f'-only-{replay}' if replay else ''}"
        return f"parts/{self.fingerprint[:16]}/{token[:32]}-g{generation:04d}-{cut}"
