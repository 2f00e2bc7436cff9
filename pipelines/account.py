"""Account: where the time of a run's slots went, from the reports of its parts, and what that costs so far.

A device is held from the moment that the run asks for it until its graph ends, by the driver's clock: what passed
before it was there is `start`, what it did not report `idle`, so its stages sum to what it is held. Other slots are
held from their first stage to their last report.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from relabel.digests import Json
from relabel.labelers.engines.spending import Spent
from relabel.labelers.engines.spending import plus as spent_plus

from .bottleneck import Load, find
from .prices import Cost, Prices, cost_of
from .stages import WORK, Report, Seconds, Stages, plus, walls

KINDS = ("device", "reader", "writer", "driver")
Loads = dict[tuple[str, str], Load]


@dataclasses.dataclass(frozen=True)
class Graph:
    """One that runs."""

    begun: float
    """By the driver's clock, which only ever goes on."""
    epoch: float
    """The same moment, since the epoch: comparable with other machines' clocks."""
    least: int
    """Devices that are asked for at once."""
    most: int
    readers: int
    """Shards read at a time."""


@dataclasses.dataclass(frozen=True)
class Used:
    """Slots of one kind together."""

    slots: int = 0
    held: float = 0.0
    """Seconds."""
    seconds: Seconds = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Used") -> "Used":
        return Used(self.slots + other.slots, self.held + other.held, plus(self.seconds, other.seconds))

    def to_json(self) -> Json:
        stages = {
            stage: {"wall": round(wall, 3), "cpu": round(cpu, 3)} for stage, (wall, cpu) in sorted(self.seconds.items())
        }
        return {"slots": self.slots, "held_seconds": round(self.held, 3), "stages": stages}


@dataclasses.dataclass
class Slot:
    """One slot of a graph, as far as it reported."""

    kind: str
    name: str
    begun: float
    """When it was asked for, or first there, by the driver's clock."""
    last: float
    """When its last report came."""
    seconds: Seconds = dataclasses.field(default_factory=dict)
    ended: float | None = None
    """When another one took the place of this device, which must have died."""

    @property
    def of(self) -> str:
        return self.name.rpartition("-")[0]

    def used(self, now: float) -> Used:
        """So far; what a device that died did last is done again."""
        told = sum(walls(self.seconds).values(), 0.0)
        if self.kind != "device":
            return Used(1, told, self.seconds)
        held = (now if self.ended is None else self.ended) - self.begun
        rest = "idle" if self.ended is None else "retry"
        return Used(1, held, plus(self.seconds, {rest: (max(0.0, held - told), 0.0)}))


class Account:
    """Of one run; read by other threads while it grows."""

    def __init__(self, prices: Prices | None = None) -> None:
        self.prices = prices or Prices()
        self.driver = Stages("driver", "plan", cpu=time.process_time)  # several threads ask it
        self.begun = time.monotonic()
        self.labels = self.samples = 0
        self.spent: dict[str, Spent] = {}
        """What engines used, by label."""
        self.gpus = 0.0
        """Per device."""
        self.cpus_per_device = 1
        self.graph_seconds = 0.0
        """Of graphs that ended."""
        self.projected: Json = None
        """What the canary said of the rest, before that was labelled."""
        self._lock = threading.RLock()
        self._used: dict[str, Used] = {kind: Used() for kind in KINDS}
        self._loads: Loads = {}
        self._slots: dict[str, Slot] = {}
        self._graph: Graph | None = None
        self._ended: float | None = None

    def end(self) -> None:
        """The run is over: from now on nothing grows."""
        with self._lock:
            self._drive()
            self._ended = time.monotonic()

    @property
    def _now(self) -> float:
        return time.monotonic() if self._ended is None else self._ended

    def _drive(self) -> None:
        if self._ended is None:
            drove = plus(self._used["driver"].seconds, self.driver.take().seconds)
            self._used["driver"] = Used(1, time.monotonic() - self.begun, drove)

    @contextlib.contextmanager
    def graph(self, pools: int, least: int, most: int, readers: int, labels: bool = True) -> Iterator[None]:
        """Inside, a graph runs: so many actor pools, each of `least` to `most` devices, and so many readers at once.

        One that makes no `labels` counts, but does not say what a run that does will wait for.
        """
        with self._lock:
            self._graph = Graph(time.monotonic(), time.time(), pools * least, pools * most, readers)
        try:
            yield
        finally:
            with self._lock:
                now = time.monotonic()
                self.graph_seconds += self._running(now)
                self._used, loads = self._so_far(now)
                self._loads = loads if labels else self._loads
                self._slots, self._graph = {}, None

    def add(self, reports: Iterable[Report], samples: int = 0, dead: int = 0) -> None:
        """A part came."""
        now = time.monotonic()
        with self._lock:
            self.samples, self.labels = self.samples + samples, self.labels + samples - dead
            for report in reports:
                slot = self._slots.get(report.name) or self._first(report, now)
                slot.seconds, slot.last = plus(slot.seconds, report.seconds), now
                self._slots[report.name] = slot

    def spend(self, spent: Mapping[str, Spent]) -> None:
        """A part says what engines used."""
        with self._lock:
            for label, each in spent.items():
                self.spent[label] = spent_plus(self.spent.get(label, {}), each)

    def _first(self, report: Report, now: float) -> Slot:
        """A slot that reports for the first time; where it is one device too many, another one must have died."""
        graph, came = self._graph, now - sum(walls(report.seconds).values(), 0.0)
        if report.kind != "device" or graph is None:
            return Slot(report.kind, report.name, came, now)
        came = min(came, graph.begun + max(0.0, report.began - graph.epoch))
        devices = [slot for slot in self._slots.values() if slot.kind == "device"]
        alive = [slot for slot in devices if slot.ended is None]
        if len(alive) >= graph.most:
            died = min(alive, key=lambda slot: slot.last)
            died.ended = max(died.last, came)
        if len(devices) >= graph.least:
            return Slot(report.kind, report.name, came, now)
        return Slot(report.kind, report.name, graph.begun, now, {"start": (max(0.0, came - graph.begun), 0.0)})

    def _running(self, now: float) -> float:
        return 0.0 if self._graph is None else now - self._graph.begun

    def _so_far(self, now: float) -> tuple[dict[str, Used], Loads]:
        used, loads, graph = dict(self._used), dict(self._loads), self._graph
        slots = [*self._slots.values()]
        for slot in slots:
            used[slot.kind] += slot.used(now)
        if graph is not None:
            silent, wall = max(0, graph.least - sum(slot.kind == "device" for slot in slots)), self._running(now)
            used["device"] += Used(silent, silent * wall, {"idle": (silent * wall, 0.0)})
            for load in loads_of(slots, graph.readers, wall):
                key = load.kind, load.of
                loads[key] = loads[key] + load if key in loads else load
        return used, loads

    def cost(self) -> Cost:
        """So far."""
        with self._lock:
            return self._cost(self._so_far(self._now)[0])

    def _cost(self, used: Mapping[str, Used]) -> Cost:
        device = used["device"].held
        cpus = used["reader"].held + self._now - self.begun
        if not self.gpus and not self.prices.device_hour:
            cpus += device * self.cpus_per_device
        return cost_of(self.prices, device, self.gpus, cpus, self.spent.values(), self.labels)

    def loads(self) -> list[Load]:
        """What each kind of slot worked, of all graphs so far."""
        with self._lock:
            return [*self._so_far(self._now)[1].values()]

    def startup_seconds(self) -> float:
        """Until a device could label its first part."""
        with self._lock:
            device = self._so_far(self._now)[0]["device"]
        wall = walls(device.seconds)
        return (wall.get("start", 0.0) + wall.get("load", 0.0)) / max(1, device.slots)

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> wall seconds in which a slot worked, over all slots but the driver."""
        with self._lock:
            used, _ = self._so_far(self._now)
        work = plus(plus(used["reader"].seconds, used["device"].seconds), used["writer"].seconds)
        return {stage: wall for stage, wall in walls(work).items() if stage in WORK}

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        with self._lock:
            self._drive()
            now = self._now
            used, loads = self._so_far(now)
            found = find(loads.values())
            return {
                "wall_seconds": round(now - self.begun, 3),
                "graph_seconds": round(self.graph_seconds + self._running(now), 3),
                "startup_seconds": round(self.startup_seconds(), 3),
                "samples": self.samples,
                "slots": {kind: used[kind].to_json() for kind in KINDS},
                "spent": {label: dict(each) for label, each in self.spent.items()},
                "cost": self._cost(used).to_json(),
                "bottleneck": None if found is None else found.to_json(),
                "projected": self.projected,
            }


def loads_of(slots: Iterable[Slot], readers: int, wall: float) -> Iterator[Load]:
    """What slots that share one kind of work did in a graph that ran so long."""
    groups: dict[tuple[str, str], list[Slot]] = {}
    for slot in slots:
        groups.setdefault((slot.kind, slot.of), []).append(slot)
    for (kind, of), members in groups.items():
        busy = {stage: sum(slot.seconds.get(stage, (0.0, 0.0))[0] for slot in members) for stage in WORK}
        at_once = sum(slot.ended is None for slot in members)
        yield Load(kind, of, max(1, min(readers, at_once) if kind == "reader" else at_once), busy, wall)
