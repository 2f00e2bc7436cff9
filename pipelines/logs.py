"""Logs: what a run tells on standard error: words for people, one JSON object a line for programs.

`RELABEL_LOG=json` (or `--log json`) makes every line JSON, `text` none; without it a terminal gets words, and whatever
else collects logs gets JSON. Every JSON line has `time`, `event`, and what `bound` says: the run's id.
"""

import contextlib
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from relabel.errors import UsageError

from .terminal import visible

VARIABLE = "RELABEL_LOG"
FORMS = ("auto", "json", "text")
_bound: dict[str, Any] = {}


def form() -> str:
    """Auto | json | text."""
    chosen = os.environ.get(VARIABLE, "") or "auto"
    if chosen not in FORMS:
        raise UsageError(f"{VARIABLE} must be one of {', '.join(FORMS)}, got {chosen!r}.")
    return chosen


def as_json(stream: IO[str] | None = None) -> bool:
    """Whether lines are for programs."""
    chosen = form()
    return chosen == "json" or (chosen == "auto" and not (stream or sys.stderr).isatty())


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Inside, every line of this process has these fields."""
    before = {**_bound}
    _bound.update(fields)
    try:
        yield
    finally:
        _bound.clear()
        _bound.update(before)


def line(event: str, fields: Mapping[str, Any]) -> str:
    """One JSON object."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "event": event, **_bound, **fields}, default=str)


def tell(event: str, words: Sequence[str], fields: Mapping[str, Any], stream: IO[str] | None = None) -> None:
    """One line for programs, or these for people."""
    stream = stream or sys.stderr
    text = line(event, fields) if as_json(stream) else visible("\n".join(words))
    print(text, file=stream, flush=True)
