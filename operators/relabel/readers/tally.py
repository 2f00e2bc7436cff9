"""Tally: what was delivered and what was not, and why; nothing is left out without being counted.

Counts lie in memory that all workers of a DataLoader share, where torch is there; each adds to a row of its own.
"""

import dataclasses
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("delivered", "unlabelled", "withdrawn", "missing", "extra", "duplicate", "mismatched")
ROWS = 64
"""Of workers that count apart; more share one and may lose a count."""


class JoinWarning(UserWarning):
    """Something of a release or of its media is not delivered; the message says what and how much."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a dataset delivered since it was made, in all workers of this rank that share its memory."""

    delivered: int = 0
    """Samples given out."""
    unlabelled: int = 0
    """Samples left out because they have no label: dead, filtered, or not in one of the releases."""
    withdrawn: int = 0
    """Samples left out because they were withdrawn."""
    missing: int = 0
    """Labelled rows whose media are not in the source."""
    extra: int = 0
    """Samples of the source that the release does not know."""
    duplicate: int = 0
    """Samples whose key came before in the same shard."""
    mismatched: int = 0
    """Samples that are not what was labelled, left out (on_mismatch="skip")."""
    missing_shards: tuple[str, ...] = ()
    """Shards of the release that the source does not have."""
    extra_shards: tuple[str, ...] = ()
    """Shards of the source that the release does not know."""
    dead_shards: tuple[str, ...] = ()
    """Shards that could not be labelled at all."""

    @property
    def complete(self) -> bool:
        """Whether nothing was left out but what the release itself leaves out."""
        found = (self.missing, self.extra, self.duplicate, self.mismatched)
        return not any(found) and not self.missing_shards and not self.extra_shards


def report_of(counts: Mapping[str, int]) -> Report:
    """A report of these counts, by name."""
    found: dict[str, Any] = dict(counts)
    return Report(**found)


class Tally:
    """Counters by name."""

    def __init__(self) -> None:
        self._counts: Any = shared_zeros((ROWS, len(NAMES)))
        self._row = 0
        self._begun = np.zeros(len(NAMES), np.int64)

    def begin(self, worker: int) -> None:
        """A pass of a worker begins."""
        self._row = worker % ROWS
        self._begun = self._values().copy()

    def add(self, name: str, count: int = 1) -> None:
        self._counts[self._row, NAMES.index(name)] += count

    def totals(self) -> dict[str, int]:
        """Over all workers."""
        return dict(zip(NAMES, (int(each) for each in np.asarray(self._counts).sum(axis=0)), strict=True))

    def this_pass(self) -> dict[str, int]:
        """Of this worker since `begin`."""
        return dict(zip(NAMES, (int(each) for each in self._values() - self._begun), strict=True))

    def warn(self, what: str) -> None:
        """Says what this pass left out that the release alone does not explain."""
        found = self.this_pass()
        odd = {name: found[name] for name in ("missing", "extra", "duplicate", "mismatched") if found[name]}
        if odd:
            told = ", ".join(f"{count} {name}" for name, count in odd.items())
            warnings.warn(f"{what}: {told} (see dataset.report())", JoinWarning, stacklevel=3)

    def _values(self) -> np.ndarray:
        return np.asarray(self._counts[self._row])


def shared_zeros(shape: tuple[int, ...]) -> Any:
    """int64 zeros, in shared memory where torch is there: a DataLoader's workers see the same ones."""
    if importlib.util.find_spec("torch") is None:
        return np.zeros(shape, np.int64)
    import torch

    zeros: Any = torch.zeros(shape, dtype=torch.int64)
    return zeros.share_memory_()
