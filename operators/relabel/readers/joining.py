"""Joining: a stream's segments as samples beside their labels, found, compared and counted."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..errors import Refused
from ..shards.pinned import Pinned
from ..shards.shard import Sample, Shard
from ..storage.filesystems import is_local
from .cache import Cache
from .fetching import Found, fetch, open_listed
from .identity import Identity
from .label_rows import JoinedRows
from .media import Media
from .options import Options
from .plan import Plan, Segment
from .tally import Tally
from .wanted import Wanted

T = TypeVar("T")
U = TypeVar("U")

Held = tuple[JoinedRows, int, Sample]
"""A sample that was found, its row, and the labels of its shard."""


class Joiner:
    """Reads what one dataset wants. Picklable; holds nothing open between segments."""

    def __init__(self, wanted: Wanted, media: Media, options: Options, tally: Tally) -> None:
        self.wanted, self.media, self.tally = wanted, media, tally
        self._options = options
        self.identity = Identity(wanted, media.config, options.check)
        self._cache = None if options.cache is None else Cache(options.cache, options.cache_bytes)
        self._remote = not all(is_local(url) for url in (media.source.root, wanted.main.release.objects.url))

    def read(self, plan: Plan, parts: Iterable[Segment]) -> Generator[tuple[int, Held | None], None, None]:
        """Items of all segments, each once; None where it cannot be given, which is counted.

        Items of one segment come in the order in which the source has them.
        """
        prepare = lambda part: (part, JoinedRows(self.wanted, plan.shards[part.shard]))  # noqa: E731
        prepared = one_ahead(prepare, parts) if self._remote else map(prepare, parts)
        for part, rows in prepared:
            given, since = plan.rows(rows, part.shard)
            chosen = given[part.places]
            item_of = dict(zip(chosen.tolist(), part.items.tolist(), strict=True))
            for row in chosen[since[part.places]].tolist():
                self.tally.add("withdrawn")
                yield item_of.pop(row), None
            wanted_rows = np.fromiter(item_of, np.int64, len(item_of))
            for row, sample in self.rows(self.media.shards[rows.shard], rows, wanted_rows):
                yield item_of.pop(row), None if sample is None else (rows, row, sample)
            for row, item in item_of.items():
                self._missing(rows, row)
                yield item, None

    def rows(self, shard: Shard, rows: JoinedRows, wanted: np.ndarray) -> Iterator[tuple[int, Sample | None]]:
        """The wanted rows that the source has; None in the place of one that is not what was labelled."""
        trusted = self.identity.trusts(shard)
        digests, found = self.identity.needs_digests(trusted), Found()

        def proof(row: int, sample: Sample) -> bool:
            return self.identity.fault(rows, row, sample) is None

        for row, sample in fetch(self.media, shard, rows, wanted, trusted, found, self.opener, proof):
            fault = self.identity.fault(rows, row, sample) if digests else None
            if fault is not None:
                self._mismatched(fault)
                yield row, None
            else:
                yield row, sample
        self._met(rows.shard, found)

    def opener(self, shard: Shard) -> Pinned:
        """Opens a shard where it lies, or its copy in the cache."""
        there = open_listed(self.media.config.storage_options)
        return there(shard) if self._cache is None else self._cache.open(shard, there)

    def _missing(self, rows: JoinedRows, row: int) -> None:
        self.tally.add("missing")
        if self._options.on_missing == "error":
            raise Refused(
                f"sample {rows.keys[row]!r} of {rows.shard!r} is in the release and not in {self.media.source.root}. "
                "on_missing='skip' leaves such samples out and counts them."
            )

    def _mismatched(self, fault: str) -> None:
        self.tally.add("mismatched")
        if self._options.on_mismatch == "error":
            raise Refused(
                f"{fault}. Label the source again; on_mismatch='skip' leaves such samples out and counts them."
            )

    def _met(self, shard: str, found: Found) -> None:
        for name, keys in (("extra", found.extra), ("duplicate", found.duplicate)):
            if keys:
                self.tally.add(name, len(keys))
        if found.extra and self._options.on_extra == "error":
            raise Refused(
                f"{len(found.extra)} samples of {shard!r} are not in the release, the first is {found.extra[0]!r}. "
                "Label the source again, or on_extra='skip' leaves them out and counts them."
            )


def one_ahead(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`work` of each, in order, one of them made in a thread while its forerunner is used."""
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="relabel-labels") as pool:
        waiting = [pool.submit(work, item) for item in (next(source, None),) if item is not None]
        while waiting:
            ready = waiting.pop().result()
            waiting = [pool.submit(work, item) for item in (next(source, None),) if item is not None]
            yield ready
