"""Report pace: how fast a release's label shards were finished, by the store's clock: start-up, steady state, tail.

Receipts carry no times; when a label shard was written the store says of its file.
"""

import dataclasses
from collections.abc import Iterable

from relabel.errors import ObjectMissing
from relabel.releases.leases import Lease
from relabel.releases.release import Release
from relabel.releases.segments import Entry

from .report_charts import Phase

FEWEST = 8
"""Label shards, below which phases are not told apart."""
TAIL = 0.95
"""Of the samples: what comes later is the tail, in which some actors have nothing left to do."""
MOST_RUNS = 8
"""Folders that are listed."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """Of the label shards that one run wrote and the release holds."""

    run: str
    shards: int
    seconds: list[float]
    """Since the run took its lease (else since its first label shard), when each label shard was there, ascending."""
    samples: list[int]
    """Finished by then."""
    leased: bool
    """Whether the begin is the lease's."""

    @property
    def phases(self) -> list[Phase]:
        """Start-up until the first label shard, then the steady state, then the tail; none of a short run."""
        first, last = self.seconds[0], self.seconds[-1]
        if self.shards < FEWEST or last <= first:
            return []
        steady = next(
            at for at, done in zip(self.seconds, self.samples, strict=True) if done >= TAIL * self.samples[-1]
        )
        found = [Phase("start-up", 0.0, first), Phase("steady state", first, steady), Phase("tail", steady, last)]
        return [phase for phase in found if phase.end > phase.begin]

    def done(self, at: float) -> int:
        """Samples finished by then."""
        return max((done for second, done in zip(self.seconds, self.samples, strict=True) if second <= at), default=0)

    def rate(self, begin: float, end: float) -> float | None:
        """Samples a second in between; None of no time."""
        return (self.done(end) - self.done(begin)) / (end - begin) if end > begin else None


def paces(release: Release, entries: Iterable[Entry]) -> list[Pace]:
    """By run, that with the most samples first; none whose files came within a second (a copy of a store)."""
    by_folder: dict[str, dict[str, int]] = {}
    for entry in entries:
        if entry.data is not None:
            folder = entry.data.path.rpartition("/")[0]
            by_folder.setdefault(folder, {})[entry.data.path] = entry.rows
    largest = sorted(by_folder, key=lambda folder: (-sum(by_folder[folder].values()), folder))[:MOST_RUNS]
    found = (pace(release, folder, by_folder[folder]) for folder in largest)
    return [each for each in found if each is not None]


def pace(release: Release, folder: str, rows: dict[str, int]) -> Pace | None:
    times = sorted((info.modified, rows[info.path]) for info in release.objects.list(folder) if info.path in rows)
    if not times or times[-1][0] - times[0][0] < 1.0:
        return None
    run, begin = folder.partition("/")[2], None
    if release.version.lease is not None and release.version.run_id == run:
        begin = lease_time(release, release.version.lease)
    leased = begin is not None and begin <= times[0][0]
    zero = begin if leased and begin is not None else times[0][0]
    done, samples = 0, []
    for _, count in times:
        done += count
        samples.append(done)
    return Pace(run, len(times), [at - zero for at, _ in times], samples, leased)


def lease_time(release: Release, number: int) -> float | None:
    try:
        return release.objects.head(Lease(number, "").path).modified
    except ObjectMissing:  # collected
        return None
