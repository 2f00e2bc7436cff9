"""The watchdog: ends a worker process that hangs at a sample, so that Ray starts another one and the ledger knows why.

A hang cannot be interrupted from within Python, a process can be ended. Two clocks run: a thread of ours, which can
tell the ledger; and, a little later, faulthandler's, which needs no interpreter lock (a regular expression that never
ends holds it).
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from relabel.reasons import Reason

from .ledger import Keeper, Unit

LOOKS = 20
"""How often the thread looks within the limit, at least; and how often the second clock is set back."""
LOOK_SECONDS = 1.0
SLACK_SECONDS = 30.0


class Watchdog:
    """At most `limit` seconds between two beats of a watched unit, else the process ends with status 1."""

    def __init__(self, limit: float, ledger: Keeper) -> None:
        self._limit, self._ledger = limit, ledger
        self._unit: Unit | None = None
        self._deadline = self._armed = 0.0
        self._closed = False
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    @contextlib.contextmanager
    def watching(self, unit: Unit) -> Iterator[None]:
        self.start(unit)
        try:
            yield
        finally:
            self.stop()

    def close(self) -> None:
        """The thread ends soon."""
        self.stop()
        self._closed = True

    def start(self, unit: Unit) -> None:
        self.beat()
        self._unit = unit

    def stop(self) -> None:
        self._unit, self._armed = None, 0.0
        faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """The next call, or sample, begins now."""
        now = time.monotonic()
        self._deadline = now + self._limit
        if now - self._armed > self._limit / LOOKS:
            slack = min(self._limit, SLACK_SECONDS)
            faulthandler.dump_traceback_later(self._limit * (1 + 1 / LOOKS) + slack, exit=True)
            self._armed = now

    def _watch(self) -> None:
        while not self._closed:
            time.sleep(min(self._limit / LOOKS, LOOK_SECONDS))
            unit = self._unit
            if unit is not None and time.monotonic() > self._deadline:
                faulthandler.dump_traceback()
                self._ledger.failing(unit, Reason.TIMED_OUT)
                leave(f"one call took longer than {self._limit:g} s")


def leave(why: str) -> NoReturn:
    """End this worker process, uncleanly: after a clean exit Ray waits for it for ever."""
    print(f"relabel ends this process: {why}", file=sys.stderr, flush=True)
    os._exit(1)
