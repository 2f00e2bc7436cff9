"""Bottleneck: which stage a run waited for: the one that would take longest if it had never to wait for the others.

A run cannot be faster than any of its stages alone: the busy seconds of a stage over the slots that share them.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from relabel.digests import Json

STAGES: Mapping[str, tuple[str, str]] = {
    "read": ("reading from storage", "more `resources.readers`, storage nearer to the cluster, larger shards"),
    "decode": ("decoding", "more CPUs for readers (`resources.readers`), smaller images, a lower input size"),
    "infer": ("the model", "more actors or devices (`resources.actors`), a smaller `dtype`, a larger compute batch"),
    "retry": ("work done again", "look at the dead letters and at why processes end (`relabel dead STORE --open`)"),
    "encode": ("encoding labels", "more actors (`resources.actors`): each writes what it labels"),
    "write": ("writing to storage", "storage nearer to the cluster, larger shards"),
    "commit": ("writing receipts", "storage nearer to the cluster, larger shards"),
}
"""Stage -> what it is called, and what makes it faster."""


@dataclasses.dataclass(frozen=True)
class Load:
    """Slots that share one kind of work."""

    kind: str
    of: str
    """The label, of devices."""
    slots: int
    busy: Mapping[str, float]
    """Stage -> seconds, over all slots."""
    wall: float
    """Of the graph."""

    def __add__(self, other: "Load") -> "Load":
        busy = {stage: self.busy.get(stage, 0.0) + other.busy.get(stage, 0.0) for stage in {**self.busy, **other.busy}}
        return Load(self.kind, self.of, max(self.slots, other.slots), busy, self.wall + other.wall)

    def scaled(self, factor: float) -> "Load":
        """The same work `factor` times."""
        return dataclasses.replace(self, busy={stage: seconds * factor for stage, seconds in self.busy.items()})

    @property
    def working(self) -> dict[str, float]:
        """Without what is done once, whatever there is to label."""
        return {stage: seconds for stage, seconds in self.busy.items() if stage in STAGES}

    @property
    def alone(self) -> float:
        """Seconds that the run would take if only this worked."""
        return sum(self.working.values()) / max(1, self.slots)


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """What limits a run."""

    stage: str
    """A key of `STAGES`."""
    load: Load

    @property
    def share(self) -> float:
        """Of the graph's time in which its slots were busy, in [0, 1]."""
        return min(1.0, self.load.alone / self.load.wall) if self.load.wall else 0.0

    def __str__(self) -> str:
        what, remedy = STAGES[self.stage]
        name = f" of {self.load.of}" if self.load.kind == "device" else ""
        slots = f"{self.load.slots} {self.load.kind}{'s' if self.load.slots > 1 else ''}"
        return f"{what}{name}: {slots} busy {self.share:.0%} of the time. Faster by: {remedy}"

    def to_json(self) -> dict[str, Json]:
        return {
            "stage": self.stage,
            "slot": self.load.kind,
            "of": self.load.of,
            "slots": self.load.slots,
            "share": round(self.share, 3),
            "text": str(self),
        }


def find(loads: Iterable[Load]) -> Bottleneck | None:
    """None where nothing worked."""
    found = max(loads, key=lambda load: load.alone, default=None)
    if found is None or not found.alone:
        return None
    return Bottleneck(max(found.working, key=lambda stage: found.working[stage]), found)
