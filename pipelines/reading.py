"""Reading: one shard's samples, checked and prepared on a CPU, cut into parts.

A part's boundaries are row numbers (0, part_rows, 2 part_rows, ...), never bytes or time, so that a resumed run finds
the parts of a former one, and a replayed task yields the same ones.
"""

import hashlib
import time
from collections.abc import Generator, Iterator

import pyarrow as pa

from relabel.errors import BadShard, RelabelError
from relabel.reasons import Reason, Status
from relabel.releases.records import to_json
from relabel.shards.shard import Sample, ShardReading

from .job import Job, ShardTask
from .ledger import PREPARING, Keeper, Ledger, Unit, Verdict
from .opening import open_source
from .parts import Header, Picked, Row, dead, judge, kept, part_table, prepare_judged, row_identity
from .stages import Stages
from .watchdog import Watchdog


def read_parts(
    job: Job,
    task: ShardTask,
    ledger: Keeper | None = None,
    watchdog: Watchdog | None = None,
    stages: Stages | None = None,
) -> Generator[pa.Table, None, None]:
    """Every part of a shard that is still to be labelled, each a table of one row; the last one says so.

    A shard that cannot be read to its end yields one last part that carries the problem. A worker gives the run's
    ledger, its own watchdog, and the stages of its task.
    """
    return PartReader(job, task, ledger or Ledger(), watchdog, stages or Stages("reader", "read")).parts()


class PartReader:
    """One pass over one shard."""

    def __init__(self, job: Job, task: ShardTask, ledger: Keeper, watchdog: Watchdog | None, stages: Stages) -> None:
        shard = task.shard
        self._job, self._finished, self._ledger, self._watchdog = job, task.finished_parts, ledger, watchdog
        self._part_rows = job.recipe.resources.part_rows
        self._reading = open_source(job.source).read(shard)
        self._header = Header(shard.name, shard.size, shard.etag, shard.token, task.generation, check=task.check)
        self._only = None if task.replay is None else task.replay.keys
        if task.replay is not None:
            self._header.replay, self._header.previous = task.replay.name, to_json(task.replay.previous)
        self._stages, self._identity, self._count = stages, hashlib.sha256(), 0
        self._decoding = 0.0
        """Seconds of the stage `read` that were not for reading."""
        self._rows: list[Row] = []
        self._verdict = Verdict()
        self._done: Unit | None = None
        """The last part, where the ledger does not know yet that it is done."""
        self._last: dict[int, Picked] = {}
        """Rows of the part that are prepared after all others, because a process ended at each."""

    def parts(self) -> Generator[pa.Table, None, None]:
        header, stages = self._header, self._stages
        stages.enter("read")
        try:
            self._begin()
            for sample in well_formed(self._reading):
                if self._count and self._count % self._part_rows == 0:
                    if header.start not in self._finished:
                        part = self._cut()
                        stages.enter("wait")  # for whoever takes it
                        yield part
                        stages.enter("read")
                    self._begin()
                begun = time.perf_counter()
                self._take(sample)
                if not self._verdict.careful:  # whose samples say so themselves
                    self._decoding += time.perf_counter() - begun
            header.total_rows, header.content_sha256 = self._count, self._reading.content_sha256
            header.rows_sha256 = self._identity.hexdigest()
        except BadShard as error:
            self._rows, self._last = [], {}
            header.problem = (error.reason, error.detail)
        header.last = True
        part = self._cut()
        stages.enter("wait")
        yield part

    @property
    def _unit(self) -> Unit:
        return PREPARING, self._header.token, self._header.start

    def _begin(self) -> None:
        """The next part; raises BadShard where reading has cost too many processes."""
        self._header.start, self._rows = self._count, []
        if self._count in self._finished:
            return
        self._done, done = None, self._done
        with self._stages.in_("wait"):
            self._verdict = self._ledger.begin(self._unit, done)
        if self._verdict.problem:
            raise BadShard(Reason.PROCESS_DIED, self._verdict.problem)
        if self._watchdog:
            self._watchdog.start(self._unit)

    def _take(self, sample: Sample) -> None:
        """One sample judged, and prepared unless its part is there already."""
        row, picked = judge(self._job, sample, self._header.shard)
        if self._only is not None and row.key not in self._only:
            row = kept(row)
        self._identity.update(row_identity(row.key, row.sample_digest))
        self._count += 1
        if self._header.start in self._finished:
            return
        place = len(self._rows)
        if row.status is Status.OK and self._verdict.careful:
            if place in self._verdict.suspects:
                self._last[place] = picked
            elif place in self._verdict.blamed:
                row = dead(row.key, row.sample_digest, self._verdict.letters()[place])
            else:
                row = self._prepare_alone(place, row, picked)
        elif row.status is Status.OK:
            row = self._prepare(row, picked)
        self._rows.append(row)

    def _prepare(self, row: Row, picked: Picked) -> Row:
        if self._watchdog:
            self._watchdog.beat()
        return prepare_judged(self._job, row, picked)

    def _prepare_alone(self, place: int, row: Row, picked: Picked) -> Row:
        self._ledger.at(self._unit, place)
        with self._stages.in_("retry"):
            return self._prepare(row, picked)

    def _cut(self) -> pa.Table:
        """The rows so far as a part."""
        for place, picked in self._last.items():
            self._rows[place] = self._prepare_alone(place, self._rows[place], picked)
        self._last = {}
        self._stages.move(self._decoding, "decode")
        self._decoding = 0.0
        self._header.rows, self._header.usage = len(self._rows), [self._stages.take()]
        self._stages.enter("decode")
        table = part_table(self._job, self._header, self._rows)
        self._header.check = 0
        if self._watchdog:
            self._watchdog.stop()
        if self._verdict.careful or self._header.last:
            self._ledger.end(self._unit)
        else:
            self._done = self._unit
        return table


def well_formed(reading: ShardReading) -> Iterator[Sample]:
    """The samples; whatever a parser stumbles over beyond what it foresees is the shard's fault, never the run's."""
    try:
        yield from reading
    except RelabelError:
        raise
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise BadShard(Reason.CORRUPT_SHARD, f"{type(error).__name__}: {error}") from error
