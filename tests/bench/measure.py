"""Measuring: CPU seconds of this process and of its children, the best of several, and the rows of the results."""

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FIGURE = "figure "
"""What a bench prints before every figure; all else that it prints is talk."""
TICKS = 100.0
"""Of /proc's clock, per second: fixed on Linux."""
LOOK_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of the results."""

    what: str
    value: float
    unit: str
    baseline: str = ""
    """What it is compared with, measured in the same run."""
    ratio: str = ""
    """To the baseline, in words where it is no plain measured / baseline."""
    target: str = ""
    met: bool | None = None
    """None where there is no target."""


def report(
    what: str, value: float, unit: str, baseline: str = "", ratio: str = "", target: str = "",
    met: bool | None = None,
) -> None:  # fmt: skip
    """Tell `run.py` a figure; values keep four digits."""
    figure = Figure(what, digits(value), unit, baseline, ratio, target, met)
    print(FIGURE + json.dumps(dataclasses.asdict(figure)), file=sys.__stdout__, flush=True)  # a run redirects its own


def digits(value: float) -> float:
    return float(f"{value:.4g}")


def talk(text: str) -> None:
    """What a person may like to see while it runs."""
    print(f"  {text}", file=sys.stderr, flush=True)


def best_cpu_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """The least CPU time of this process over several calls: what others do on the machine only ever adds."""
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def best_of_each(calls: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Least CPU seconds by name, measured in turns, so that a bad moment of the machine hits all alike."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], best_cpu_seconds(call, 1))
    return best


def process_start() -> float:
    """When this process began, on the clock of `time.monotonic`."""
    ticks = stat_fields(Path("/proc/self"))[19]
    return float(ticks) / TICKS - (time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic())


class TreeCpu:
    """CPU seconds that a process, its descendants and those of them that have died spent while this was open.

    Ray lets its dead workers be forgotten by the system, so the tree is looked at again and again; what a process
    spends between the last look and its death is lost, and what looking costs is taken off.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[tuple[int, str], float] = {}
        """By process id and start time: CPU seconds at the last look."""
        self._spent: dict[str, float] = {}
        """CPU seconds by what a process called itself when they were seen."""
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)

    def __enter__(self) -> "TreeCpu":  # noqa: PYI034  (the shape checks cannot follow Self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> dict[str, float]:
        """CPU seconds so far, by what the processes call themselves."""
        self._look()
        with self._lock:
            return dict(self._spent)

    def _look_often(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        with self._lock:
            begun = time.thread_time()
            folders = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
            found = {int(folder.name): stat_fields(folder) for folder in folders}
            parents = {pid: int(fields[1]) for pid, fields in found.items() if fields}
            for pid in parents:
                if descends(pid, self._root, parents):
                    seconds = sum(map(int, found[pid][11:13])) / TICKS
                    self._add(name_of(pid), seconds - self._seen.get((pid, found[pid][19]), 0.0))
                    self._seen[pid, found[pid][19]] = seconds
            self._add("looking", begun - time.thread_time())

    def _add(self, name: str, seconds: float) -> None:
        self._spent[name] = self._spent.get(name, 0.0) + seconds


def name_of(pid: int) -> str:
    """The first word of the command, which Ray's workers set to what they do."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return words[0].decode(errors="replace").rpartition("/")[2]


def stat_fields(folder: Path) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; none where the process is gone."""
    try:
        return (folder / "stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def descends(pid: int, root: int, parents: Mapping[int, int]) -> bool:
    while pid and pid != root:
        pid = parents.get(pid, 0)
    return pid == root
