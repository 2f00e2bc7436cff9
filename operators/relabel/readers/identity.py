"""Identity: whether a sample is the one that was labelled.

A shard of the name, size and version (ETag; mtime_ns on local disk) that the release names is what was labelled. Of any
other one, a copy on another disk above all, each sample's media must have the digest that stands beside its label.
Labelling digests what its labelers read, which may be one field or several: which ones is found with the first sample,
for no other bytes have that digest.
"""

import functools
from collections.abc import Iterator
from itertools import permutations
from typing import Literal

from ..digests import sample_digest
from ..errors import BadSample, Refused
from ..shards.shard import Sample, Shard
from ..shards.source import SourceConfig, has
from .label_rows import JoinedRows
from .wanted import Wanted

Check = Literal["auto", "digest", "shard", "none"]
MOST_FIELDS = 3
"""That are digested together, at most."""


class Identity:
    """Compares samples with what one dataset's releases say of them; remembers which fields are digested."""

    def __init__(self, wanted: Wanted, config: SourceConfig, check: Check) -> None:
        self._wanted, self._config, self._check = wanted, config, check
        self._fields: dict[int, tuple[str, ...]] = {}
        """By release: what its digests are over."""

    def trusts(self, shard: Shard) -> bool:
        """Whether the shard is, as it lies there, the one that every release names.

        Raises Refused where it is not and check="shard" wants that.
        """
        entries = [pinned.media_entry(shard.name) for pinned in self._wanted.pinned]
        same = all(entry is None or entry.token == shard.token for entry in entries)
        if not same and self._check == "shard":
            entry = next(entry for entry in entries if entry is not None and entry.token != shard.token)
            raise Refused(
                f"{shard.url} is not the shard that was labelled: expected {entry.size} bytes of version "
                f"{entry.etag}, found {shard.size} of {shard.etag}. Label it again, or check='auto' compares samples."
            )
        return same

    def needs_digests(self, trusted: bool) -> bool:
        return self._check == "digest" or (self._check == "auto" and not trusted)

    def fault(self, rows: JoinedRows, row: int, sample: Sample) -> str | None:
        """Why a sample is not what a release labelled, or None."""
        for (part, places), number in zip(rows.parts, rows.part_of, strict=True):
            place = row if places is None else int(places[row])
            expected = part.digests[place] if place >= 0 and part.ok[place] else None
            if expected is not None and not self._fits(number, sample, expected):
                release = self._wanted.pinned[number].release
                return (
                    f"sample {sample.key!r} of {rows.shard!r} is not what release {release.number} labelled: its media "
                    f"have another digest than {expected.hex()}"
                )
        return None

    def _fits(self, number: int, sample: Sample, expected: bytes) -> bool:
        known = self._fields.get(number)
        if known is not None and self._digest(sample, known) == expected:
            return True
        for names in self._combinations(sample):
            if names != known and self._digest(sample, names) == expected:
                self._fields[number] = names
                return True
        return False

    def _digest(self, sample: Sample, names: tuple[str, ...]) -> bytes | None:
        values = [value_of(self._config, sample, name) for name in names]
        if any(value is None for value in values):
            return None
        return sample_digest(
            values[0] if len(values) == 1 and values[0] is not None else b"".join(filter(None, values))
        )

    def _combinations(self, sample: Sample) -> Iterator[tuple[str, ...]]:
        """Needs of labelers, alone and together in any order; then single fields by their own names."""
        needs = [need for need in needs_of(self._config) if value_of(self._config, sample, need)]
        for count in range(1, min(len(needs), MOST_FIELDS) + 1):
            yield from permutations(needs, count)
        yield from ((name,) for name in sample.fields if name not in needs and not name.startswith("__"))


@functools.lru_cache(maxsize=8)
def names_for(kind: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("image", "text", *fields)))


def needs_of(config: SourceConfig) -> tuple[str, ...]:
    return names_for(config.kind, tuple(config.fields))


def value_of(config: SourceConfig, sample: Sample, need: str) -> bytes | None:
    """The bytes that labelling digests for a need; None where there are none."""
    try:
        value = has(config, sample, need)
    except BadSample:
        return None
    if value is None:
        return None
    return value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)
