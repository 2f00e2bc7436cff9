"""Milestones: partial releases of a run that goes on. Each has a run id of its own, `RUN.m1`, `RUN.m2` ..."""

import dataclasses
import math
import time
from collections.abc import Callable

from relabel.releases.commit import Draft, commit
from relabel.releases.versions import Version
from relabel.storage.objects import ObjectStore

from .recipe import Milestones


class MilestonePublisher:
    """Publishes what is finished whenever enough has come since the last release; never what is complete."""

    def __init__(self, every: Milestones | None, num_shards: int, finished: int) -> None:
        self.every, self.num_shards = every, num_shards
        self.published: list[Version] = []
        self._finished, self._since = finished, time.monotonic()

    def due(self, finished: int) -> bool:
        """Whether the next one is, with so many shards of the source finished."""
        if self.every is None or not self._finished < finished < self.num_shards:
            return False
        if self.every.share is not None:
            return finished - self._finished >= math.ceil(self.every.share * self.num_shards)
        return time.monotonic() - self._since >= (self.every.seconds or 0.0)

    def publish(self, store: ObjectStore, finished: int, draft: Callable[[], Draft]) -> None:
        """`draft` makes the release of what is finished."""
        whole = draft()
        number = len(self.published) + 1
        partial = dataclasses.replace(whole, run_id=f"{whole.run_id}.m{number}", coverage=finished / self.num_shards)
        self.published.append(commit(store, partial))
        self._finished, self._since = finished, time.monotonic()
