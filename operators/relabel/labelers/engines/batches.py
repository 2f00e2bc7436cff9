"""Batches: requests that come one by one, gathered into batches of one shape and computed in one thread.

A batch is full, or nothing else is on its way. Which requests meet in a batch is a matter of speed alone.
"""

import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ...errors import DeviceFailed

LULL_SECONDS = 0.01
"""A batch that is not full is computed when nothing came for so long."""
PATIENCE = 32
"""The request that has waited longest goes after so many batches without it, full or not."""


@dataclasses.dataclass(eq=False, slots=True)
class Job:
    """One request that waits."""

    key: Hashable
    """Jobs of one key can be computed together."""
    work: Any
    future: "concurrent.futures.Future[Any]" = dataclasses.field(default_factory=concurrent.futures.Future)
    begun: float = 0.0
    """On the clock of `time.perf_counter`."""
    passed_over: int = 0
    """Batches that were computed since it came."""


class Batches:
    """`run(jobs)` is called in one thread, with at most `rows` jobs of one key; it settles their futures.

    When the thread ends, for whatever reason, every job has an answer or an error.
    """

    def __init__(self, run: Callable[[Sequence[Job]], None], rows: int) -> None:
        self._run, self._rows = run, rows
        self._waiting: dict[Hashable, list[Job]] = {}
        self._at_work: Sequence[Job] = ()
        self._on_their_way = 0
        self._changed = threading.Condition()
        self._closed = False
        self._lost: DeviceFailed | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="engine")
        self._thread.start()

    def expect(self, more: int) -> None:
        """So many more jobs (or less) are being prepared: a batch that is not full waits for them."""
        with self._changed:
            self._on_their_way += more
            self._changed.notify_all()

    def submit(self, job: Job) -> None:
        """Raises DeviceFailed where the engine is lost."""
        with self._changed:
            if self._lost is not None:
                raise again(self._lost)
            self._waiting.setdefault(job.key, []).append(job)
            self._changed.notify_all()

    def lose(self, error: DeviceFailed) -> None:
        """The engine is lost: every job that waits, is computed, or comes later gets this error."""
        with self._changed:
            self._lost = self._lost or error
            jobs = [job for jobs in self._waiting.values() for job in jobs] + list(self._at_work)
            self._waiting.clear()
        for job in jobs:
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # has an answer, or nobody waits for it
                job.future.set_exception(again(error))

    def close(self) -> None:
        """Jobs that wait are computed first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while jobs := self._next():
                self._at_work = jobs
                self._run(jobs)
                self._at_work = ()
        finally:
            self.lose(DeviceFailed("the engine's thread has ended. Its log says why; run again to go on."))

    def _next(self) -> list[Job]:
        """The jobs to compute now; none when the engine is closed and everything is done."""
        with self._changed:
            while True:
                self._drop_cancelled()
                key = self._ready()
                if key is not None:
                    return self._taken(key)
                if self._closed and not self._waiting:
                    return []
                calm = not self._changed.wait(LULL_SECONDS if self._waiting and not self._on_their_way else None)
                if calm and self._waiting:
                    return self._taken(max(self._waiting, key=lambda each: len(self._waiting[each])))

    def _drop_cancelled(self) -> None:
        for key, jobs in list(self._waiting.items()):
            kept = [job for job in jobs if not job.future.cancelled()]
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]

    def _ready(self) -> Hashable | None:
        """The key of the longest waiting job if it has waited too long, else of a full batch."""
        if not self._waiting:
            return None
        oldest = max(self._waiting, key=lambda each: self._waiting[each][0].passed_over)
        if self._waiting[oldest][0].passed_over >= PATIENCE:
            return oldest
        fullest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        return fullest if len(self._waiting[fullest]) >= self._rows or self._closed else None

    def _taken(self, key: Hashable) -> list[Job]:
        jobs = self._waiting.pop(key)
        jobs, rest = jobs[: self._rows], jobs[self._rows :]
        if rest:
            self._waiting[key] = rest
        for waiting in self._waiting.values():
            for job in waiting:
                job.passed_over += 1
        return [job for job in jobs if job.future.set_running_or_notify_cancel()] or self._next()


def again(error: DeviceFailed) -> DeviceFailed:
    """The same error, for somebody else to raise."""
    return type(error)(*error.args)
