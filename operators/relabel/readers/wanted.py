"""Wanted: which labels of which releases stand beside the media, and under which names.

Every release that takes part is one immutable release. Each brings what it says of the source: a release that was made
from another one (a refined one) names the same samples, and what is withdrawn in either is withdrawn.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ..digests import digest
from ..errors import Refused, UnknownName, UsageError
from ..labels.contract import LabelContract
from ..releases.release import Release, Store
from ..releases.segments import Entry
from ..shards.source import SourceConfig
from ..storage.opening import open_store

Columns = Sequence[str] | Mapping[str, "str | tuple[Release, str]"] | None
"""Names of labels; or the name in the sample -> the label's name, or (another release, its label's name); or all."""


@dataclasses.dataclass(frozen=True)
class Pinned:
    """One release and what it was made from: the last of `line` read the media, every other one the labels after it."""

    line: tuple[Release, ...]
    labels: Mapping[str, LabelContract]
    """Name in the sample -> contract of the label that is wanted."""

    @property
    def release(self) -> Release:
        return self.line[0]

    @property
    def base(self) -> Release:
        """The one that was made from media."""
        return self.line[-1]

    def media_entry(self, shard: str) -> Entry | None:
        """What is said of the source shard when its media were read."""
        return self.base.entries.get(shard)

    def withdrawn(self, shard: str, key: str) -> bool:
        return any(release.withdrawn.holds(shard, key) for release in self.line)

    def check_recall(self) -> None:
        """Look again at recalls and withdrawals of all of them."""
        for release in self.line:
            release.check_recall()


@dataclasses.dataclass(frozen=True)
class Wanted:
    """All releases that take part; the first says which shards and rows there are."""

    pinned: tuple[Pinned, ...]

    @property
    def main(self) -> Pinned:
        return self.pinned[0]

    @property
    def contracts(self) -> dict[str, LabelContract]:
        """Name in the sample -> contract."""
        return {name: contract for each in self.pinned for name, contract in each.labels.items()}

    @property
    def fingerprints(self) -> list[str]:
        """Of all wanted labels: what they mean, whatever shards they lie in."""
        return sorted(
            each.release.version.fingerprints[contract.name]
            for each in self.pinned
            for contract in each.labels.values()
        )

    @property
    def identity(self) -> dict[str, object]:
        """What a state is bound to."""
        release = self.main.release
        others = [[each.release.content_digest, sorted(each.labels)] for each in self.pinned[1:]]
        return {
            "release": release.number,
            "content_digest": release.content_digest,
            "others": digest(others) if others else "",
        }

    def check_recall(self) -> None:
        """Look again at recalls and withdrawals of all releases."""
        for each in self.pinned:
            each.check_recall()

    def withdrawn(self, shard: str, key: str) -> bool:
        return any(each.withdrawn(shard, key) for each in self.pinned)


def wanted(release: Release, columns: Columns) -> Wanted:
    """Raises UnknownName for a label that a release does not have, UsageError where columns are written wrongly."""
    if isinstance(columns, str):
        raise UsageError(
            f"columns must be a list of names or a mapping, got the text {columns!r}: write [{columns!r}]."
        )
    names = list(release.labels) if columns is None else columns
    chosen = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    found: dict[int, tuple[Release, dict[str, LabelContract]]] = {id(release): (release, {})}
    for name, choice in chosen.items():
        other, label = (release, choice) if isinstance(choice, str) else checked_pair(name, choice)
        if name.startswith("__") or name in ("", "image"):
            raise UsageError(f"no label can be called {name!r} in a sample; give it another name by a mapping.")
        if label not in other.labels:
            raise UnknownName("label", label, other.labels, f"(release {other.number} of {other.objects.url})")
        found.setdefault(id(other), (other, {}))[1][name] = other.labels[label]
    return Wanted(tuple(Pinned(line_of(other), labels) for other, labels in found.values()))


def checked_pair(name: str, choice: object) -> tuple[Release, str]:
    if isinstance(choice, tuple) and len(choice) == 2:
        other, label = choice
        if isinstance(other, Release) and isinstance(label, str):
            return other, label
    raise UsageError(f"columns[{name!r}] must be the name of a label or (release, name), got {choice!r}.")


def line_of(release: Release) -> tuple[Release, ...]:
    """The release, the one that it was made from, and so on to the one that was made from media."""
    line = [release]
    while (config := source_config(line[-1])) is not None and config.kind == "release":
        if not config.release.isdecimal():
            raise Refused(f"release {line[-1].number} does not say which release it was made from: {config.release!r}.")
        store = Store(open_store(str(config.path), config.storage_options))
        line.append(store.release(int(config.release), accept_partial=True, recalled=release.policy))
    return tuple(line)


def source_config(release: Release) -> SourceConfig | None:
    """The source that a release's recipe names, or None where it has no recipe that says so."""
    recipe = release.recipe
    source = recipe.get("source") if isinstance(recipe, Mapping) else None
    return None if source is None else SourceConfig.model_validate(source)
