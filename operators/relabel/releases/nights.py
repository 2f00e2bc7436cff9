"""Nights: what became of every date of a nightly job, so that a date is done once and missed ones are known.

`nights/DATE/NUMBER.begun.json` is created once before an attempt does anything, `nights/DATE/NUMBER.json` once at its
end, which repeats what the first one says. An attempt without an end was killed, or is still at work.
"""

import contextlib
import dataclasses
import datetime as dt
import re
import uuid
from collections.abc import Iterator, Mapping

from ..digests import Json
from ..errors import ObjectMissing, StoreCorrupt
from ..storage.objects import ObjectStore
from . import notices
from .versions import ensure_store

FOLDER = "nights"
NAME = re.compile(rf"{FOLDER}/(\d{{4}}-\d\d-\d\d)/(\d{{4}})\.(begun\.)?json")
DONE = frozenset({"published", "nothing"})
"""States after which a date is not tried again."""
NO_END = "no end"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One try at a date."""

    date: dt.date
    number: int
    fields: Mapping[str, Json]
    """What its end says, or its beginning where it has no end: `began`, `host`, `pid`, `before` (the newest release
    then); of an end also `state`, `exit_code`, `why` and more. Of a damaged one `state` and `why` alone."""

    @property
    def state(self) -> str:
        return str(self.fields.get("state", NO_END))

    @property
    def done(self) -> bool:
        return self.state in DONE

    @property
    def why(self) -> str:
        if self.state == NO_END:
            began, host, pid = (self.fields[name] for name in ("began", "host", "pid"))
            return f"began {began} on {host} (process {pid}) and left no end"
        return str(self.fields["why"])

    def to_json(self) -> Json:
        return {**self.fields, "date": str(self.date), "attempt": self.number, "state": self.state, "why": self.why}


def begin(store: ObjectStore, date: dt.date, fields: Mapping[str, Json]) -> int:
    """Record that an attempt at a date begins; returns its number, which no other attempt at that date has."""
    ensure_store(store, uuid.uuid4().hex)
    mine = {**fields, "claim": uuid.uuid4().hex}  # so that another's success is never taken for our own
    number = max((each for _, each in numbers(store, date)), default=0) + 1
    while notices.post(store, f"{path(date, number)}.begun.json", mine) != mine:
        number += 1
    return number


def end(store: ObjectStore, date: dt.date, number: int, fields: Mapping[str, Json]) -> None:
    """Record how an attempt ended."""
    notices.post(store, f"{path(date, number)}.json", fields)


def path(date: dt.date, number: int) -> str:
    return f"{FOLDER}/{date}/{number:04d}"


def numbers(store: ObjectStore, date: dt.date | None = None) -> list[tuple[dt.date, int]]:
    """(date, number) of every attempt, or of those at one date, ascending."""
    folder = FOLDER if date is None else f"{FOLDER}/{date}"
    named = [found for name in store.names(folder) if (found := NAME.fullmatch(name))]
    return sorted({(day, int(found[2])) for found in named if (day := day_of(found[1])) is not None})


def day_of(text: str) -> dt.date | None:
    """None of what is no date, which no night wrote."""
    with contextlib.suppress(ValueError):
        return dt.date.fromisoformat(text)
    return None


def attempts(store: ObjectStore) -> Iterator[Attempt]:
    """Newest date and number first; each is read when it is asked for."""
    for date, number in reversed(numbers(store)):
        yield read(store, date, number)


def read(store: ObjectStore, date: dt.date, number: int) -> Attempt:
    """A damaged record holds no night up: its date counts as open."""
    try:
        try:
            fields = notices.read(store, f"{path(date, number)}.json")
        except ObjectMissing:
            fields = notices.read(store, f"{path(date, number)}.begun.json")
    except StoreCorrupt as error:
        fields = {"state": "damaged", "why": str(error)}
    return Attempt(date, number, fields)


def since_done(store: ObjectStore, today: dt.date) -> tuple[Attempt | None, list[Attempt]]:
    """The attempt that did the newest date that is done, and those after it, oldest first.

    Every date up to that one counts as done: one run does all that was missed. Dates after `today` count as nothing:
    a machine whose clock was ahead would else have done every night until then.
    """
    later: list[Attempt] = []
    for attempt in attempts(store):
        if attempt.date > today:
            continue
        if attempt.done:
            return attempt, later[::-1]
        later.append(attempt)
    return None, later[::-1]


def missed(last: dt.date | None, date: dt.date, every_days: int) -> list[dt.date]:
    """The dates between the last one that was done and this one at which a job that runs so often should have run."""
    if last is None:
        return []
    return [last + dt.timedelta(days) for days in range(every_days, (date - last).days, every_days)]
