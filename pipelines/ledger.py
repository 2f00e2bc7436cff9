"""The ledger: what every process is working on, kept outside of them, so that a sample that kills one is found.

A worker tells what it begins and what it has ended. A unit of work that is begun again while it is still open has cost
a process: it died, hung, or lost its device. The next attempt goes sample by sample, each told beforehand, those that
were seen at a death last. A sample that was alone at three deaths, the last two after all others of its unit passed,
becomes a dead letter; who was killed by hand or with a spot node never does.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from relabel.errors import BadSample, DeviceFailed, RelabelError
from relabel.reasons import Reason

Unit = tuple[str, str, int]
"""(stage, shard token, first row): the label of a model stage, or PREPARING."""

PREPARING = ""
DEATHS_ALONE = 3
"""Of a sample before it is blamed: by chance, in kills every minute, this happens to no innocent one."""
BARREN_DEATHS = 8
"""Of processes in a row at one unit, none of which got past a single sample: then no sample is to blame."""
DEVICE_FAILURES = 6
"""In a row, of all processes, without one sample or unit done in between."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How a worker goes about a unit that it has begun."""

    careful: bool = False
    """One sample at a time, `at` before each."""
    suspects: frozenset[int] = frozenset()
    """Samples to do last: each was alone at a death."""
    blamed: Mapping[int, Reason] = dataclasses.field(default_factory=dict)
    """Samples not to do at all, and why."""
    deaths: int = 0
    problem: str = ""
    """Why the unit is not to be tried again; empty: it is."""
    device: bool = False
    """The problem is the device's."""

    def order(self, count: int) -> list[int]:
        """The samples 0 .. count-1 that are to be done, in the order in which to do them."""
        rest = [sample for sample in range(count) if sample not in self.blamed]
        return sorted(rest, key=lambda sample: sample in self.suspects)

    def letters(self) -> dict[int, BadSample]:
        """Why the blamed samples have no label."""
        return {sample: BadSample(reason, detail(reason, self.deaths)) for sample, reason in self.blamed.items()}

    def require(self) -> None:
        """Raises DeviceFailed or RelabelError where there is a problem."""
        if self.problem:
            raise (DeviceFailed if self.device else RelabelError)(self.problem)


@dataclasses.dataclass(slots=True)
class Attempts:
    """What is known of one open unit."""

    deaths: int = 0
    barren: int = 0
    """Deaths in a row before the process had got past any sample that was told."""
    alone: Counter[int] = dataclasses.field(default_factory=Counter)
    """Deaths by the sample that was told."""
    reasons: dict[int, Reason] = dataclasses.field(default_factory=dict)
    """How the sample's last death came about."""
    sample: int | None = None
    """That the present attempt is at."""
    passed: bool = False
    """Whether it got past another one before."""
    reason: Reason = Reason.PROCESS_DIED
    """What the present process says of its own end."""

    @property
    def blamed(self) -> dict[int, Reason]:
        """Samples that kill, and how."""
        return {sample: self.reasons[sample] for sample, deaths in self.alone.items() if deaths >= DEATHS_ALONE}

    def count_death(self) -> None:
        """The process of the present attempt is gone."""
        self.deaths += 1
        self.barren = 0 if self.passed else self.barren + 1
        if self.sample is not None:
            self.alone[self.sample] += 1
            self.reasons[self.sample] = self.reason
        self.sample, self.passed, self.reason = None, False, Reason.PROCESS_DIED


@runtime_checkable
class Keeper(Protocol):
    """Who keeps a ledger: this process, or an actor elsewhere."""

    def begin(self, unit: Unit, after: Unit | None = None) -> Verdict: ...
    def at(self, unit: Unit, sample: int) -> None: ...
    def failing(self, unit: Unit, reason: Reason) -> None: ...
    def end(self, unit: Unit) -> None: ...


class Ledger:
    """Units that are open, by (stage, shard, first row)."""

    def __init__(self) -> None:
        self._open: dict[Unit, Attempts] = {}
        self._blamed: dict[Unit, Attempts] = {}
        """Of units that ended: only what to blame. A result that is lost with its process is made again, and so is all
        that a reader read before it died: each killer would cost its processes anew.
        """
        self._device_failures = 0
        self._going = False

    def go(self) -> None:
        """Readers may give on what they read."""
        self._going = True

    def may_go(self) -> bool:
        return self._going

    def begin(self, unit: Unit, after: Unit | None = None) -> Verdict:
        """Open a unit, and end the one that the same process did before; where it is open, its last process died."""
        if after is not None:
            self.end(after)
        if unit not in self._open:
            attempts = self._open[unit] = self._blamed.pop(unit) if unit in self._blamed else Attempts()
            verdict = Verdict(bool(attempts.blamed), blamed=attempts.blamed, deaths=attempts.deaths)
            return self._device_verdict() or verdict
        attempts = self._open[unit]
        attempts.count_death()
        if attempts.barren >= BARREN_DEATHS:
            return Verdict(deaths=attempts.deaths, problem=(
                f"{attempts.deaths} processes ended at {describe(unit)}, the last {attempts.barren} before they had "
                "done one sample: none is to blame. Look for the cause in the workers' logs (memory, a library that "
                "crashes); finished shards are kept, run again to go on."
            ))  # fmt: skip
        blamed = attempts.blamed
        suspects = frozenset(attempts.alone) - frozenset(blamed)
        return self._device_verdict() or Verdict(True, suspects, blamed, attempts.deaths)

    def at(self, unit: Unit, sample: int) -> None:
        """The process that began the unit turns to this sample, alone."""
        attempts = self._open.setdefault(unit, Attempts())
        if attempts.sample is not None:
            attempts.passed, self._device_failures = True, 0
        attempts.sample = sample

    def failing(self, unit: Unit, reason: Reason) -> None:
        """The process that began the unit is about to end itself."""
        self._open.setdefault(unit, Attempts()).reason = reason
        self._device_failures += reason is Reason.DEVICE_FAILED

    def end(self, unit: Unit) -> None:
        """Every sample of the unit has its label or its reason."""
        attempts = self._open.pop(unit, None)
        if attempts is not None and (blamed := attempts.blamed):
            self._blamed[unit] = Attempts(
                attempts.deaths, alone=Counter(dict.fromkeys(blamed, DEATHS_ALONE)), reasons=blamed
            )
        self._device_failures = 0

    def _device_verdict(self) -> Verdict | None:
        if self._device_failures < DEVICE_FAILURES:
            return None
        problem = (
            f"the accelerator failed {self._device_failures} times in a row, in a new process each time. Look at the "
            "machine (nvidia-smi, dmesg); finished shards are kept, run again to go on."
        )
        return Verdict(problem=problem, device=True)


def describe(unit: Unit) -> str:
    stage, token, row = unit
    what = f"the labeler {stage!r}" if stage else "reading and preparing"
    return f"{what}, shard token {token[:12]}, the part from row {row}"


def detail(reason: Reason, deaths: int) -> str:
    """What a dead letter says of a sample that is blamed."""
    what = {
        Reason.TIMED_OUT: "it took longer than resources.call_seconds",
        Reason.DEVICE_FAILED: "the accelerator failed",
    }.get(reason, "the process died")
    return f"{what} {DEATHS_ALONE} times while this sample was alone in it ({deaths} processes lost at its part)"
