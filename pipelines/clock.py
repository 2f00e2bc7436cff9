"""Clock: seconds by stage."""

import time


class Clock:
    """Seconds by stage since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def restart(self) -> None:
        self._last = time.perf_counter()

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return {stage: round(seconds, 6) for stage, seconds in taken.items()}
