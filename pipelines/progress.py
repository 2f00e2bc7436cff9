"""Progress: what a person at a terminal sees, and what a log gets, of a run in flight.

On a terminal: one live bar. Elsewhere: one JSON line every few seconds. Both say what the run waits for.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from decimal import ROUND_UP, Decimal
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from relabel.digests import Json

from .account import Account
from .logs import form, line
from .parts import Header
from .stages import WORK

LOG_SECONDS = 10.0
WINDOW_SECONDS = 30.0
ETA_SECONDS = 15.0
"""Before this much of a run has passed, nothing is said of its end."""
BUSY = 0.85
CENT = Decimal("0.01")


class Tally:
    """Counts of a run in flight; thread-safe for one writer and several readers."""

    def __init__(self, shards: int, work: str = "labelling", account: Account | None = None) -> None:
        self.shards, self.work = shards, work
        self.account = account or Account()
        self.shards_done = self.dead_shards = 0
        self.samples = self.dead = self.parts = 0
        self.actors = 1
        self.stage = "starting Ray"
        self.started = time.monotonic()
        self.first_event: float | None = None
        self._recent: list[tuple[float, int, dict[str, float]]] = []

    def part(self, header: Header, dead: int = 0) -> None:
        """A part was labelled and written."""
        now = time.monotonic()
        self.first_event = self.first_event or now
        self.parts += 1
        self.samples += header.rows
        self.dead += dead
        self.account.add(header.usage, header.rows, dead)
        self.account.spend(header.spent)
        self._recent = [entry for entry in self._recent if entry[0] > now - WINDOW_SECONDS]
        self._recent.append((now, header.rows, work_of(header)))

    def shard(self, dead: bool) -> None:
        self.shards_done += 1
        self.dead_shards += dead

    @property
    def rate(self) -> float:
        """Samples per second over the last half minute; 0 before the first part."""
        if self.first_event is None:
            return 0.0
        now = time.monotonic()
        span = max(now - max(now - WINDOW_SECONDS, self.first_event), 1e-3)
        rows = sum(rows for when, rows, _ in self._recent if when > now - WINDOW_SECONDS)
        return rows / span if now - self.first_event > 1 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """By finished shards; None before there is one."""
        elapsed = time.monotonic() - self.started
        if not self.shards_done or elapsed < ETA_SECONDS:
            return None
        return elapsed * (self.shards - self.shards_done) / self.shards_done

    def waits_for(self) -> str:
        """What limits the run now: the model where its actors are busy, else reading; before that, the start."""
        if self.first_event is None:
            return self.stage
        spent = [seconds for _, _, seconds in self._recent]
        infer = sum(one.get("infer", 0.0) for one in spent)
        span = max(time.monotonic() - max(self.first_event, time.monotonic() - WINDOW_SECONDS), 1e-3)
        if infer >= BUSY * self.actors * span:
            return "model"
        read, decode = (sum(one.get(stage, 0.0) for one in spent) for stage in ("read", "decode"))
        return "storage" if read > decode else "decoding"

    def to_json(self) -> Json:
        eta = self.eta_seconds
        return {
            "work": self.work,
            "shards_done": self.shards_done,
            "shards": self.shards,
            "samples": self.samples,
            "images_per_second": round(self.rate, 1),
            "eta_seconds": None if eta is None else round(eta),
            "dead_letters": self.dead,
            "dead_shards": self.dead_shards,
            "waits_for": self.waits_for(),
            "elapsed_seconds": round(time.monotonic() - self.started, 1),
            **({"spent": spent} if (spent := self.account.spent) else {}),
        }


def work_of(header: Header) -> dict[str, float]:
    """Stage -> seconds of work that a part reports, over all slots."""
    found: dict[str, float] = {}
    for report in header.usage:
        for stage in WORK:
            found[stage] = found.get(stage, 0.0) + report.seconds.get(stage, (0.0, 0.0))[0]
    return found


@contextlib.contextmanager
def shown(tally: Tally, stream: IO[str] | None = None, log_seconds: float = LOG_SECONDS) -> Iterator[None]:
    """Shows `tally` on `stream` (default: standard error) until the block ends."""
    stream = stream or sys.stderr
    assert stream is not None
    stop = threading.Event()
    show = _bar if stream.isatty() and form() != "json" else _lines
    thread = threading.Thread(target=show, args=(tally, stream, stop, log_seconds), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _lines(tally: Tally, stream: IO[str], stop: threading.Event, log_seconds: float) -> None:
    while not stop.wait(log_seconds):
        print(line("progress", tally.to_json()), file=stream, flush=True)
    print(line("progress", tally.to_json()), file=stream, flush=True)


def _bar(tally: Tally, stream: IO[str], stop: threading.Event, log_seconds: float) -> None:
    columns = (
        TextColumn(f"[bold]{tally.work}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} shards"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(describe(tally), total=tally.shards)
        while not stop.wait(0.2):
            progress.update(task, completed=tally.shards_done, description=describe(tally))
        progress.update(task, completed=tally.shards_done, description=describe(tally))


def describe(tally: Tally) -> str:
    """`512 images/s · ETA 3 min 20 s · 0 dead · waits for: model`; before the first part, what is being started."""
    if tally.first_event is None:
        return f"[dim]{tally.waits_for()}"
    dead = f"[red]{tally.dead} dead[/]" if tally.dead else "0 dead"
    if tally.dead_shards:
        dead += f", [red]{tally.dead_shards} dead shards[/]"
    eta = tally.eta_seconds
    words = [
        f"{tally.rate:,.0f} images/s" if tally.rate else "",
        "" if eta is None else f"ETA {duration(eta)}",
        dead,
        cost_of(tally),
        f"[dim]waits for: {tally.waits_for()}[/]",
    ]
    return " · ".join(word for word in words if word)


def cost_of(tally: Tally) -> str:
    """`cost 12.34`, rounded up to the cent; empty where nothing has a price."""
    costs = [Decimal(spent.get("cost", 0)) for spent in tally.account.spent.values()]
    return f"cost {sum(costs, Decimal(0)).quantize(CENT, ROUND_UP)}" if any(costs) else ""


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
