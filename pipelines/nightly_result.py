"""Nightly result: how a night ended, as a program reads it (JSON), as people do (Markdown), as the store keeps it."""

import dataclasses
import datetime as dt
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from relabel.digests import Json
from relabel.releases.nights import DONE

from .verdicts import told

State = Literal[
    "published", "nothing", "done", "deadline",
    "stopped", "late", "failed", "wrong", "refused", "budget", "busy", "approval",
]  # fmt: skip
"""published: a new release. nothing: nothing new, the last one stands. done: the date was done before. deadline: it
stopped there, the next night goes on. The rest have another exit code than 0: stopped by a signal; late: the line that
comes first; wrong: recipe or command line (2); refused (3); budget (4); busy: another run holds the store (5);
approval: a candidate waits for people (6); failed: anything else."""

RECORDED = (
    "recipe", "state", "exit_code", "why", "release", "before", "releases", "run_id", "discovered", "counts", "missed",
    "after", "retention", "ended",
)  # fmt: skip
SHOWN, WIDTH = 7, 120


@dataclasses.dataclass(frozen=True)
class Night:
    """One attempt at a date, at its end."""

    recipe: str
    store: str
    date: dt.date
    state: State
    exit_code: int
    why: str
    """One sentence, or an error's message."""
    next_command: str = ""
    """What to type now; "" where nothing is to be done."""
    attempt: int = 0
    """0: none was begun."""
    release: int | None = None
    """What readers get as `latest` now."""
    before: int = 0
    """The newest release when the night began, 0 where there was none."""
    releases: Sequence[Json] = ()
    """Those that came since: `release`, `coverage` (below 1: a milestone), `run_id`."""
    run_id: str | None = None
    discovered: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Shards by why they were to be labelled, and `removed`."""
    counts: Mapping[str, int] | None = None
    """Shards: `shards` of the source, `labelled`, `by_reference`, `open`; samples: `ok`, `dead`, `filtered`. None where
    it never came to a plan."""
    changes: Sequence[str] = ()
    """What makes the labels mean something else than the last release's."""
    verdict: Json = None
    """The gate's, of the release or of the candidate."""
    cost: Json = None
    spent: Json = None
    missed: Sequence[str] = ()
    """Dates since the last one that was done; what there was to do then is done with this one."""
    attempts: Sequence[Json] = ()
    """Those since the last date that was done, this one left out: `date`, `attempt`, `state`, `why`."""
    after: Json = None
    """Of the line that comes first: `store` and `release`."""
    retention: Json = None
    warnings: Sequence[str] = ()
    began: str = ""
    ended: str = ""
    seconds: float = 0.0

    @property
    def problem(self) -> bool:
        return self.exit_code != 0 or self.state == "deadline"

    def to_json(self) -> dict[str, Json]:
        return {**dataclasses.asdict(self), "date": str(self.date)}

    def record(self) -> dict[str, Json]:
        """What the store keeps of it."""
        fields = self.to_json()
        return {name: fields[name] for name in RECORDED}

    def markdown(self) -> str:
        return "\n".join(lines(self)) + "\n"


HEADS: Mapping[State, str] = {
    "published": "published release {release}", "nothing": "nothing new", "approval": "a candidate waits for approval",
    "done": "done already", "deadline": "stopped at the deadline", "stopped": "STOPPED", "late": "WAITED IN VAIN",
    "failed": "FAILED", "wrong": "FAILED: recipe or command line", "refused": "REFUSED",
    "budget": "OVER BUDGET", "busy": "the store is BUSY",
}  # fmt: skip


def lines(night: Night) -> Iterator[str]:
    yield f"## {night.recipe}, night of {night.date}: {HEADS[night.state].format(release=night.release)}"
    yield ""
    yield from (f"> {line}" for line in night.why.splitlines())
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {cell(value)} |" for name, value in (*made(night), *around(night)))
    yield ""
    yield from (f"- warning: {warning}" for warning in night.warnings)
    if night.warnings:
        yield ""
    if night.next_command:
        yield f"Next: `{night.next_command}`"


def cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", "; ")


def made(night: Night) -> Iterator[tuple[str, str]]:
    """What there was to do, and what became of it."""
    if night.attempt:
        yield "release", f"{night.release or 'none'} for readers; {night.before or 'none'} when the night began"
    for each in night.releases:
        if each["coverage"] < 1:
            yield "milestone", f"release {each['release']}, coverage {each['coverage']:.1%}"
    if night.discovered:
        yield "discovered", ", ".join(f"{count} {why}" for why, count in night.discovered.items())
    if night.counts:
        counts = night.counts
        yield "shards", "{shards}: {labelled} labelled, {by_reference} by reference, {open} open".format(**counts)
        yield "samples", "{ok} labelled, {dead} dead letters, {filtered} filtered".format(**counts)
    for change in night.changes:
        yield "meaning", change
    for line in told(night.verdict) if night.verdict else ():
        yield "gate", line
    if night.cost:
        yield "cost", ", ".join(f"{name} {value}" for name, value in night.cost.items() if value is not None)
    for label, spent in (night.spent or {}).items():
        yield f"spent by {label}", ", ".join(f"{name} {value:g}" for name, value in spent.items())


def around(night: Night) -> Iterator[tuple[str, str]]:
    """Other nights, other lines, old releases."""
    if night.missed:
        fate = "done with this one" if night.state in DONE else "still open"
        yield "missed", f"{shortened(night.missed)}: {fate}"
    for each in night.attempts[-SHOWN:]:
        yield f"{each['date']}, attempt {each['attempt']}", textwrap.shorten(f"{each['state']}: {each['why']}", WIDTH)
    if night.after:
        yield "after", f"release {night.after['release']} of {night.after['store']}"
    if night.retention:
        yield "retention", night.retention["text"]
    if night.run_id:
        yield "run", night.run_id
    yield "store", night.store
    if night.attempt:
        yield "took", f"{night.seconds:.0f} s, attempt {night.attempt}"


def shortened(dates: Sequence[str]) -> str:
    """All of a few dates, else the first and the last."""
    return ", ".join(dates) if len(dates) <= SHOWN else f"{dates[0]} to {dates[-1]} ({len(dates)} nights)"
