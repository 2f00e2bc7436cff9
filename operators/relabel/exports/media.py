"""Media: the source that a release was made of, here or at another root, checked sample by sample by digest."""

import functools
import posixpath
from collections.abc import Iterator, Sequence

from ..digests import sample_digest
from ..errors import BadSample, UsageError
from ..releases.release import Release, Store
from ..shards.listing import GLOB, MAGIC, absolute, find_named, join
from ..shards.shard import Sample, Shard, Source
from ..shards.source import SourceConfig, has, open_source, pick
from ..storage.opening import open_store

FOLDERS = ("images", "texts")
IMAGE = "image"

Needs = tuple[tuple[str, ...], tuple[str, ...]]
"""Fields that all samples have, then those that some have: what a sample's digest is made of."""


class Media:
    """The samples of a release's source by shard; of a release that was made of another, those of the first."""

    def __init__(self, release: Release, root: str | None = None) -> None:
        self.release = origin(release)
        recipe = self.release.recipe or {}
        if "source" not in recipe:
            raise UsageError(
                f"release {self.release.number} of {self.release.objects.url} does not say what its source is; export "
                "its labels alone: --include labels."
            )
        config = SourceConfig.model_validate(recipe["source"])
        self.config = config if root is None else at_root(config, root, self.release.shards)
        self.source: Source = open_source(self.config)
        self._root = root
        self._needs: Needs | None = stated_needs(self.release)

    @functools.cached_property
    def shards(self) -> dict[str, Shard]:
        """Name in the release -> the shard that is there."""
        found = self.source.shards()
        if self._root is None or self.config.kind in FOLDERS or is_pattern(self._root):
            return {shard.name: shard for shard in found}
        below = absolute(self._root).rstrip("/") + "/"
        return {shard.url.removeprefix(below): shard for shard in found}

    def samples(self, shard: str) -> Iterator[Sample]:
        """In order; raises BadShard where the shard cannot be read."""
        return iter(self.source.read(self.shards[shard]))

    def withdrawn(self, shard: str, key: str) -> bool:
        """By the owner of the release that the labels came from first."""
        return self.release.withdrawn.holds(shard, key)

    def is_what_was_labelled(self, sample: Sample, expected: bytes | None) -> bool:
        """Whether the sample's media has this digest.

        Where the release does not say of which fields, those are taken of which the first sample's digest is.
        """
        if expected is None:
            return True
        if self._needs is None:
            self._needs = next((each for each in guesses(self.config) if self._digest(sample, each) == expected), None)
        return self._needs is not None and self._digest(sample, self._needs) == expected

    def _digest(self, sample: Sample, needs: Needs) -> bytes | None:
        """None where the sample lacks a field."""
        try:
            values = [pick(self.config, sample, need) for need in needs[0]]
            values += [value for want in needs[1] if (value := has(self.config, sample, want))]
        except BadSample:
            return None
        return sample_digest(b"".join(value.encode() if isinstance(value, str) else value for value in values))

    @property
    def columns(self) -> tuple[str, ...]:
        """What a table has of the media: the fields that were labelled from, and the old label."""
        needs = self._needs or ((IMAGE,) if IMAGE in self.config.choices else ("text",), ())
        return (*needs[0], *needs[1], *(["old_label"] if self.config.old_label else []))

    def value(self, sample: Sample, column: str) -> bytes | str | None:
        """Of one of `columns`."""
        if column == "old_label":
            found = sample.fields.get(self.config.old_label or "")
            return found if isinstance(found, bytes) or found is None else str(found)
        return has(self.config, sample, column)


def origin(release: Release) -> Release:
    """The release whose source is media: what was made of labels names the release that it read."""
    while (source := (release.recipe or {}).get("source") or {}).get("kind") == "release":
        config = SourceConfig.model_validate(source)
        store = Store(open_store(str(config.path), config.storage_options))
        release = store.release(config.release, accept_partial=True)
    return release


def stated_needs(release: Release) -> Needs | None:
    """None in a release from before they were stated."""
    stated = (release.version.source or {}).get("digested")
    return None if stated is None else (tuple(stated["needs"]), tuple(stated["wants"]))


def guesses(config: SourceConfig) -> list[Needs]:
    """What labelers read, the most likely first."""
    single = [IMAGE, "text", *config.choices]
    pairs = [(first, second) for first in single for second in config.choices if first != second]
    return [((each,), ()) for each in dict.fromkeys(single)] + [((one,), (other,)) for one, other in pairs]


def is_pattern(root: str) -> bool:
    return root.startswith("@") or bool(MAGIC.search(root)) or bool(GLOB.search(root))


def at_root(config: SourceConfig, root: str, shards: Sequence[str]) -> SourceConfig:
    """The same source elsewhere: a pattern, or a folder below which the shards have the names that they had."""
    if is_pattern(root) or config.kind in FOLDERS:
        return config.model_copy(update={"path": root})
    names = {join(absolute(root), posixpath.normpath(shard)): shard for shard in shards}
    found = find_named(list(names), config.storage_options)
    if not found:
        raise UsageError(
            f"--source {root} holds none of the {len(shards)} shards of the release (such as {shards[0]})."
        )
    return config.model_copy(update={"path": tuple(found)})
