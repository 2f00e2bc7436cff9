"""Awaiting: a night waits for the release of another line, or for the lease of a dead run to expire; not for ever."""

import datetime as dt
import time
from collections.abc import Callable

from relabel.errors import Recalled, RelabelError, UnknownName
from relabel.releases.leases import BEATS, Holder, StoreBusy, holders
from relabel.releases.lookup import find_version
from relabel.releases.nights import since_done
from relabel.releases.versions import MARKER
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store

from .nightly_policy import After, seconds_of

POLL_SECONDS = 30.0
AHEAD = dt.timedelta(1)
"""By how much another line's date may be ahead: it may live in another time zone."""
CLOCK_SECONDS = 0.001
"""What differences of the server's times may be off by."""


class Late(RelabelError):
    """The line that comes first has no new release; the message says what became of its night."""


def wait_for(after: After, date: dt.date, seen: int, asked_to_stop: Callable[[], bool]) -> int | None:
    """The newest complete release of the other line, once there is one after `seen`, or its night is done without one.

    None where this night was asked to stop. Raises Late.
    """
    store = open_store(after.store, after.storage_options)
    ends = time.monotonic() + seconds_of(after.wait)
    while True:
        latest = newest(store)
        if latest > seen or (latest and night_is_done(store, date)):
            return latest
        if asked_to_stop():
            return None
        if time.monotonic() >= ends:
            raise Late(late(store, after, date, latest))
        again = min(ends, time.monotonic() + POLL_SECONDS)
        while time.monotonic() < again and not asked_to_stop():
            time.sleep(min(1.0, POLL_SECONDS))


def newest(store: ObjectStore) -> int:
    """What `latest` is, 0 where there is none (yet)."""
    if not store.exists(MARKER):
        return 0
    try:
        return find_version(store, "latest")
    except (UnknownName, Recalled):
        return 0


def night_is_done(store: ObjectStore, date: dt.date) -> bool:
    done, _ = since_done(store, date + AHEAD)
    return done is not None and done.date >= date


def late(store: ObjectStore, after: After, date: dt.date, latest: int) -> str:
    _, later = since_done(store, date + AHEAD)
    last = f" Its last attempt ({later[-1].date}): {later[-1].state}, {later[-1].why}" if later else ""
    have = f"release {latest}, which this line has seen" if latest else "no release yet"
    return (
        f"{store.url} has {have}, after {after.wait} of waiting in the night of {date}.{last} Nothing was labelled. "
        "Once it has published, run this night again; its own night without a release counts as well."
    )


def wait_until_silent(store: ObjectStore, busy: StoreBusy) -> None:
    """Until no run holds the store; raises `busy` as soon as its owner gives a sign of life.

    So a night whose last attempt was killed goes on once the dead one's lease has expired, and one that another
    scheduler started as well ends after one heartbeat.
    """
    heard = {each.lease.number: last_beat(each) for each in busy.holders}
    while True:
        time.sleep(min(each.lease.seconds for each in busy.holders) / BEATS / 2)
        alive = [each for each in holders(store) if not each.expired]
        if not alive:
            return
        if any(last_beat(each) > heard.get(each.lease.number, -1.0) + CLOCK_SECONDS for each in alive):
            raise busy


def last_beat(holder: Holder) -> float:
    """Seconds after it was acquired."""
    return holder.held_seconds - holder.silent_seconds
