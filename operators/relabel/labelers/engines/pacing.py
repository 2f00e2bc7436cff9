"""Pacing: budgets of requests and tokens per minute, spent evenly: no burst at the start of a minute.

Every request is given the moment from which it may go out. Tokens are reserved by an estimate, and set right when the
answer tells how many there were. A budget is one process's.
"""

import asyncio
import time
from collections.abc import Callable

MINUTE = 60.0


class Meter:
    """Units that flow at an even rate; `book` may run ahead of the clock, and its caller waits."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_per_unit, self._clock = MINUTE / per_minute, clock
        self._free_at = 0.0

    def book(self, units: float) -> float:
        """The moment from which these units may be used."""
        begin = max(self._clock(), self._free_at)
        self._free_at = begin + units * self._seconds_per_unit
        return begin

    def correct(self, units: float) -> None:
        """So many more were used than booked (fewer: negative)."""
        self._free_at += units * self._seconds_per_unit


class Pace:
    """Both budgets; None is no limit."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Meter(requests_per_minute) if requests_per_minute else None
        self._tokens = Meter(tokens_per_minute) if tokens_per_minute else None

    async def wait(self, tokens: int) -> None:
        """Returns when one more request of about so many tokens may go out."""
        moments = [
            self._requests.book(1.0) if self._requests else 0.0,
            self._tokens.book(float(tokens)) if self._tokens else 0.0,
        ]
        if (rest := max(moments) - time.monotonic()) > 0:
            await asyncio.sleep(rest)

    def give_back(self, tokens: int) -> None:
        """A request that waited was not sent after all."""
        if self._requests:
            self._requests.correct(-1.0)
        if self._tokens:
            self._tokens.correct(-float(tokens))

    def used(self, tokens: int, booked: int) -> None:
        """An answer told how many tokens it took."""
        if self._tokens:
            self._tokens.correct(float(tokens - booked))
