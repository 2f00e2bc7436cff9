"""Opening: the source that a recipe means, a release among them, and the labels that such a one brings."""

import dataclasses
from collections.abc import Sequence

from relabel.errors import UsageError
from relabel.labelers.labeler import origin_of
from relabel.labels.contract import LabelContract
from relabel.releases.release import Store
from relabel.releases.release_source import ReleaseSource
from relabel.releases.versions import MARKER, LabelIdentity, read_marker
from relabel.shards import source as files
from relabel.shards.shard import Source
from relabel.shards.source import SourceConfig
from relabel.storage.opening import open_store

from .recipe import Recipe


@dataclasses.dataclass(frozen=True)
class KnownLabel:
    """A label that a step may read: one of an earlier step, or of the release that is the source."""

    contract: LabelContract
    fingerprint: str
    class_names: Sequence[str]
    origin: str
    """As `labeler.origin_of` tells."""

    @classmethod
    def of(cls, label: LabelIdentity) -> "KnownLabel":
        origin = origin_of(label.operator, label.version, label.identity)
        return cls(label.contract, label.fingerprint, label.class_names, origin)


def open_source(config: SourceConfig) -> Source:
    """Raises UsageError where a release is meant by another name than its number (see `pinned`)."""
    if config.kind != "release":
        return files.open_source(config)
    if not config.release.isdecimal():
        raise UsageError(f"the release to read is not settled yet, got {config.release!r}: give its number.")
    return ReleaseSource(str(config.path), config.storage_options, int(config.release))


def pinned(recipe: Recipe) -> Recipe:
    """The recipe with the number of the release that it reads, which may not change on the way.

    Raises Recalled where that release was recalled, Refused where it is partial, UnknownName where there is none.
    """
    source = recipe.source
    if source.kind != "release":
        return recipe
    store = Store(open_store(str(source.path), source.storage_options))
    if is_store(recipe, store.uuid):
        raise UsageError(
            "the labels of a release cannot go into the store that they come from: a store holds one line of releases. "
            "Give `store` another path."
        )
    release = store.release(source.release, source.accept_partial, recalled="error")
    return recipe.model_copy(update={"source": source.model_copy(update={"release": str(release.number)})})


def is_store(recipe: Recipe, uuid: str) -> bool:
    """Whether the labels go into the store of this uuid, by whatever path or link."""
    store = open_store(recipe.store.url, recipe.store.storage_options)
    return store.exists(MARKER) and str(read_marker(store)["uuid"]) == uuid


def source_labels(config: SourceConfig) -> dict[str, KnownLabel]:
    """Those of the release that is the source; none of another source."""
    source = open_source(config) if config.kind == "release" else None
    if not isinstance(source, ReleaseSource):
        return {}
    labels = source.release.version.labels
    return {name: KnownLabel.of(label) for name, label in labels.items()}
