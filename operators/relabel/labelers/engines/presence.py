"""Presence: whether a service answers at all, which tells an outage from a request that fails for itself.

A failure says nothing by itself. Where others are answered after it, or a probe is, it is the request's own. Where a
probe fails, too, or nobody listens, the service is away: nothing goes out but one probe at a time until one is
answered, and no request is to blame. A probe that is asked to come back later (429) tells neither, and does. A service
that stays away longer than patience lasts is given up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from ...errors import EngineUnreachable
from .wire import Failure

DOUBT_SECONDS = 0.5
"""In a busy engine somebody is answered before; else a probe is sent."""
FIRST_PROBE_SECONDS = 0.05
"""After a connection broke or was refused: a service that ended must not be back before it was missed."""
PROBE_SHARE = 0.1
"""The next probe goes out when the service has been away for so much longer: what waiting costs is in proportion."""
MAX_PROBE_SECONDS = 5.0

Probe = Callable[[], Awaitable[Failure | None]]
"""Asks something small: None where it is answered or refused, else what happened."""


class Presence:
    """What is known of one service in one event loop."""

    def __init__(self, name: str, probe: Probe, patience_seconds: float) -> None:
        self._name, self._probe, self._patience = name, probe, patience_seconds
        self.answers = 0
        """Requests that were answered, probes included."""
        self.outages = 0
        """Times that the service was away."""
        self.away = False
        """Nothing may go out but the probe."""
        self.last_answer = time.monotonic()
        self._answered = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def answered(self) -> None:
        self.answers += 1
        self.last_answer = time.monotonic()
        self.away = False
        self._answered.set()

    def doubt(self, broken: bool = False, refused: bool = False) -> None:
        """Something went wrong. `broken`: with the connection, it seems; `refused`: nobody listens, which needs no
        second opinion.
        """
        if self._asking is None:
            self._answered.clear()
            self._asking = asyncio.ensure_future(self._ask(FIRST_PROBE_SECONDS if broken else DOUBT_SECONDS))
            self._asking.add_done_callback(self._asked)
        if refused:
            self._gone()

    async def require(self) -> None:
        """Returns when requests may go out; raises EngineUnreachable where patience ends before."""
        while self.away and self._asking is not None:
            await asyncio.shield(self._asking)

    async def judge(self, answers: int) -> None:
        """Returns when somebody was answered since there were so many answers; if need be, a probe is. Raises as
        `require` does.
        """
        if self.answers == answers:
            self.doubt()
        if self._asking is not None:
            await asyncio.shield(self._asking)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _gone(self) -> None:
        self.outages, self.away = self.outages + (not self.away), True

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking, self.away = None, False
        if not task.cancelled():
            task.exception()  # whoever waits gets it; where nobody does, it is no news

    async def _ask(self, pause: float) -> None:
        """Returns when anybody is answered; raises EngineUnreachable."""
        begun = time.monotonic()
        while not await self._answered_within(pause):
            happened = await self._probe()
            if happened is None:
                return self.answered()
            if self._answered.is_set():
                return None
            if not happened.throttled:
                self._gone()
            waited, later = time.monotonic() - begun, (happened.after or 0.0) * happened.throttled
            if max(waited, later) > self._patience:
                raise EngineUnreachable(
                    f"{self._name} has not answered for {waited:.0f} s (patience_seconds: {self._patience:g}): "
                    f"{happened.detail}. No sample is lost: run again to go on when it is back."
                )
            pause = max(later, min(MAX_PROBE_SECONDS, FIRST_PROBE_SECONDS + PROBE_SHARE * waited, self._patience))
        return None

    async def _answered_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._answered.wait(), seconds)
        except TimeoutError:
            return False
        return True
