"""Stages: where the time of a slot goes.

A slot (a reader's task, a labeler's actor, a thread that writes, the driver) is in exactly one stage at any moment, so
the seconds of its stages sum to the time that it was held.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

Seconds = Mapping[str, Sequence[float]]
"""Stage -> wall and CPU seconds."""


class Report(NamedTuple):
    """Where the time of a slot went since its last report."""

    kind: str
    """device | reader | writer | driver."""
    name: str
    """A device's begins with the label that it writes: `label_map-0f3a9c21`."""
    seconds: Seconds
    began: float
    """When the slot was first there, by its machine's clock, since the epoch."""


WORK = ("read", "decode", "load", "infer", "retry", "encode", "write", "commit")
"""Stages in which a slot does something; in the others it waits, or is not there yet."""


class Stages:
    """One slot; any thread may switch it."""

    def __init__(self, kind: str, stage: str, of: str = "", cpu: Callable[[], float] = time.thread_time) -> None:
        """In `stage` from now on. `cpu` says the CPU seconds of whoever switches: of the thread, or of the process
        where what works has threads of its own.
        """
        self.kind, self.name = kind, f"{of or kind}-{uuid.uuid4().hex[:8]}"
        self._cpu, self._lock = cpu, threading.Lock()
        self._stage, self._inside, self._began = stage, 0, time.time()
        self._seconds: dict[str, tuple[float, float]] = {}
        self._since = time.perf_counter(), cpu()

    def enter(self, stage: str) -> str:
        """Switch; returns the stage before."""
        with self._lock:
            return self._enter(stage)

    def _enter(self, stage: str) -> str:
        now, before = (time.perf_counter(), self._cpu()), self._stage
        wall, cpu = self._seconds.get(before, (0.0, 0.0))
        self._seconds[before] = wall + now[0] - self._since[0], cpu + now[1] - self._since[1]
        self._since, self._stage = now, stage
        return before

    @contextlib.contextmanager
    def in_(self, stage: str) -> Iterator[None]:
        """Inside, the slot is in this stage; afterwards in the one before."""
        before = self.enter(stage)
        try:
            yield
        finally:
            self.enter(before)

    @contextlib.contextmanager
    def shared(self, stage: str, rest: str = "idle") -> Iterator[None]:
        """As `in_` for several threads at once: in this stage while any is inside, else at `rest`."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._enter(stage)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._enter(rest)

    def move(self, wall: float, stage: str) -> None:
        """So many seconds of the stage that goes on were of another one, which computed as far as any did.

        For what alternates so often that switching would cost more than it tells.
        """
        with self._lock:
            self._enter(self._stage)
            here, there = self._seconds[self._stage], self._seconds.get(stage, (0.0, 0.0))
            wall = min(wall, here[0])
            cpu = min(wall, here[1])
            self._seconds[self._stage] = here[0] - wall, here[1] - cpu
            self._seconds[stage] = there[0] + wall, there[1] + cpu

    def take(self) -> Report:
        """What passed since the last call; the stage goes on."""
        with self._lock:
            self._enter(self._stage)
            taken, self._seconds = self._seconds, {}
        rounded = {stage: (round(wall, 6), round(cpu, 6)) for stage, (wall, cpu) in taken.items()}
        return Report(self.kind, self.name, rounded, self._began)


def plus(one: Seconds, other: Seconds) -> dict[str, tuple[float, float]]:
    """Stage by stage."""
    return {
        stage: (
            one.get(stage, (0.0, 0.0))[0] + other.get(stage, (0.0, 0.0))[0],
            one.get(stage, (0.0, 0.0))[1] + other.get(stage, (0.0, 0.0))[1],
        )
        for stage in {**one, **other}
    }


def walls(seconds: Seconds) -> dict[str, float]:
    """Stage -> wall seconds."""
    return {stage: round(wall, 6) for stage, (wall, _) in seconds.items()}
