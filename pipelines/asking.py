"""Asking: the stage of a labeler that asks an engine. Many samples of several parts at once, each done when it is done.

A part is one unit of work here, too: it leaves when its last sample has an answer, and meanwhile the samples of the
next parts keep the engine busy.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pyarrow as pa

from relabel.errors import BadSample, DeviceFailed
from relabel.labelers.engine_labeler import EngineLabeler, sample_of
from relabel.labelers.engines.spending import Spent, minus
from relabel.labelers.labeler import Batch
from relabel.labels.shard_file import check_columns, label_columns
from relabel.reasons import Reason

from .dead_letters import attempt_async
from .job import Job, own_module
from .labelling import LabelStage, Stage
from .ledger import Keeper, Unit, Verdict
from .stages import Stages
from .watchdog import Watchdog, leave

TRUSTED_DEATHS = 1
"""A part whose process died so often is asked as a whole once more: one sample at a time leaves an engine idle."""


class Turns:
    """Many share, or one has all; whoever wants all is not overtaken by those that come later."""

    def __init__(self) -> None:
        self._gate = asyncio.Lock()
        self._sharing = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._gate:
            self._sharing += 1
            self._none.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._none.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._gate:
            await self._none.wait()
            yield


class EngineStage(Stage):
    """A labeler of samples through an engine; `label_part` is called from several threads."""

    labeler: EngineLabeler[Any]

    def __init__(
        self,
        job: Job,
        index: int,
        device: str,
        ledger: Keeper | None = None,
        watchdog: Watchdog | None = None,
        stages: Stages | None = None,
    ) -> None:
        super().__init__(job, index, device, ledger, watchdog, stages)
        self._room, self._turns = asyncio.Semaphore(self.labeler.concurrency), Turns()
        self._lock, self._open = threading.Lock(), 0
        self._told: Spent = {}

    def close(self) -> None:
        if self.refusal is None:
            self.labeler.close()

    def spent(self) -> Spent:
        """Of all requests that ended since the last call, whichever part they belong to."""
        with self._lock:
            spent = self.labeler.engine.spent()
            self._told, told = spent, self._told
        return minus(spent, told)

    @contextlib.contextmanager
    def guarded(self, unit: Unit) -> Iterator[Verdict]:
        verdict = self.ledger.begin(unit)
        verdict.require()
        try:
            with self._watched(unit):
                yield verdict
        except DeviceFailed as error:
            if self.watchdog is None:
                raise
            self.ledger.failing(unit, Reason.DEVICE_FAILED)
            leave(str(error))
        self.ledger.end(unit)

    @contextlib.contextmanager
    def _watched(self, unit: Unit) -> Iterator[None]:
        """While any part is open, some sample must be done from time to time; a service has time-outs of its own."""
        if self.watchdog is None or not self.labeler.engine.in_process:
            yield
            return
        with self._lock:
            self._open += 1
            self.watchdog.start(unit)
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self.watchdog.stop()

    def label_batch(
        self, batch: Batch, count: int, unit: Unit, verdict: Verdict
    ) -> tuple[pa.Table, dict[int, BadSample]]:
        failures, good, tables = verdict.letters(), [], []
        for place, outcome in self.labeler.loop.run(self._ask_all(batch, verdict.order(count), unit, verdict)):
            if isinstance(outcome, BadSample):
                failures[place] = outcome
            else:
                good.append(place)
                tables.append(outcome)
        return self.assembled(good, tables, count), failures

    def alone(self, batch: Batch, place: int) -> pa.Table | BadSample:
        outcome: pa.Table | BadSample = self.labeler.loop.run(self._ask(batch, place))[1]
        return outcome

    async def _ask_all(
        self, batch: Batch, order: Sequence[int], unit: Unit, verdict: Verdict
    ) -> list[tuple[int, pa.Table | BadSample]]:
        if not verdict.careful or verdict.deaths <= TRUSTED_DEATHS:
            async with self._turns.shared():
                return await gathered([self._ask(batch, place) for place in order])
        found = []
        async with self._turns.alone():
            for place in order:
                await asyncio.to_thread(self.ledger.at, unit, place)
                found.append(await self._ask(batch, place))
        return found

    async def _ask(self, batch: Batch, place: int) -> tuple[int, pa.Table | BadSample]:
        async with self._room:
            outcome = await attempt_async(self._label(batch, place), own_module(self.labeler))
        if self.watchdog and self.labeler.engine.in_process:
            self.watchdog.beat()
        return place, outcome

    async def _label(self, batch: Batch, place: int) -> pa.Table:
        labels = await self.labeler.label_row(sample_of(batch, place))
        check_columns(self.contract, labels)
        return label_columns(self.contract, labels, 1)


async def gathered(coroutines: Sequence[Any]) -> list[Any]:
    """What they return, in order; where one raises, the others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def parts_in_flight(concurrency: int, part_rows: int, lead: float = 1.5) -> int:
    """Of one actor: enough for its `lead`, one that ends with a slow answer, and one that is written."""
    return math.ceil(lead * concurrency / part_rows) + 2


def open_stage(
    job: Job,
    index: int,
    device: str,
    ledger: Keeper | None = None,
    watchdog: Watchdog | None = None,
    stages: Stages | None = None,
) -> Stage:
    """The stage of the job's labeler `index`."""
    cls = EngineStage if isinstance(job.labelers[index], EngineLabeler) else LabelStage
    return cls(job, index, device, ledger, watchdog, stages)
