"""Leasing: a run holds the lease of its store from before its plan counts until it has published or failed.

A thread tells that the run is alive, and hears that it was taken over or asked to stop. Whether a lease has expired the
store's clock decides, never this machine's.
"""

import contextlib
import enum
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from relabel.errors import RelabelError, StorageError, StoreConflict
from relabel.releases.doctor import require_commits
from relabel.releases.leases import (
    BEATS,
    Acquired,
    Lease,
    StoreBusy,
    acquire,
    beat,
    lease_names,
    release,
    taken_over_by,
)
from relabel.releases.partitions import Partition
from relabel.releases.stops import find_stop
from relabel.storage.objects import ObjectStore

from . import logs
from .job import Job
from .plan import Plan
from .stopping import StopRequest

TELL_SECONDS = 60.0
"""Between two lines about the same owner, while a run waits for it."""
RETRIES = 4
"""Of a heartbeat that failed, in the time between two."""
JOIN_SECONDS = 5.0


class IfBusy(enum.StrEnum):
    """What a run does where another one holds the store, or its partition."""

    TAKE_OVER = "take-over"
    """An expired lease is taken over; a live one refuses the run (exit code 5)."""
    WAIT = "wait"
    """Until it is released or has expired."""
    REFUSE = "refuse"
    """Also where the lease has expired."""


@contextlib.contextmanager
def leased(
    job: Job, make_plan: Callable[[], Plan], stop: StopRequest, if_busy: IfBusy = IfBusy.TAKE_OVER
) -> Iterator[tuple[Plan, int | None]]:
    """The plan, and the number of the lease under which it is carried out.

    A plan that labels nothing, and deletes no part that another run may be working with, needs none.
    Otherwise the plan is made again where another run held the store since.
    """
    store = job.open_store()
    before = lease_names(store)
    todo = make_plan()
    if not todo.todo and not todo.redone:
        yield todo, None
        return
    require_commits(store)
    acquired = obtain(store, job, todo.partition, IfBusy(if_busy))
    with stop.heard(), kept(store, acquired.lease, stop):
        if acquired.seen != before or acquired.taken_over:
            todo = make_plan()
        yield todo, acquired.lease.number


def obtain(store: ObjectStore, job: Job, partition: Partition, if_busy: IfBusy) -> Acquired:
    """The lease, at once or after a wait; raises StoreBusy."""
    seconds, told, last = job.recipe.resources.lease_seconds, 0.0, ""
    while True:
        try:
            return acquire(store, job.run_id, partition, seconds, take_over=if_busy is not IfBusy.REFUSE)
        except StoreBusy as busy:
            if if_busy is not IfBusy.WAIT:
                raise
            owners = ", ".join(holder.lease.run_id for holder in busy.holders)
            if owners != last or time.monotonic() - told > TELL_SECONDS:
                told, last = time.monotonic(), owners
                tell(busy)
            pause = min(holder.lease.seconds for holder in busy.holders) / BEATS
        time.sleep(min(max(pause, 0.5), 20.0))


def tell(busy: StoreBusy, stream: IO[str] | None = None) -> None:
    """One line on standard error: for people at a terminal, else for logs."""
    stream = stream or sys.stderr
    assert stream is not None
    owners = [
        {"run_id": each.lease.run_id, "host": each.lease.host, "silent_seconds": round(each.silent_seconds, 1)}
        for each in busy.holders
    ]
    logs.tell("waiting", [f"waiting for {'; '.join(map(str, busy.holders))}"], {"for": owners}, stream)


@contextlib.contextmanager
def kept(store: ObjectStore, lease: Lease, stop: StopRequest) -> Iterator[None]:
    """Inside, the lease does not expire; afterwards it is released."""
    done = threading.Event()
    thread = threading.Thread(target=keep_or_stop, args=(store, lease, stop, done), daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(JOIN_SECONDS)
        try:
            release(store, lease)
        except StorageError as error:
            print(
                f"relabel: the lease could not be released and expires in {lease.seconds:.0f} s ({error})",
                file=sys.stderr,
            )


def keep_or_stop(store: ObjectStore, lease: Lease, stop: StopRequest, done: threading.Event) -> None:
    """As `keep`; where it breaks, the run must not go on without heartbeats. Its traceback goes to standard error."""
    try:
        keep(store, lease, stop, done)
    finally:
        if not done.is_set() and stop.error is None:
            what = "the thread that keeps the lease broke (see its traceback). Finished shards are kept; run again."
            stop.make("the loss of its lease", StorageError(what))


def keep(store: ObjectStore, lease: Lease, stop: StopRequest, done: threading.Event) -> None:
    """Heartbeats until `done`, or until there is nothing left to keep; asks the run to stop where it must."""
    heard, pause = time.monotonic(), lease.seconds / BEATS
    while not done.wait(pause):
        pause = lease.seconds / BEATS
        try:
            beat(store, lease)
            forbids: RelabelError | None = what_forbids(store, lease)
            asked = None if stop.made else find_stop(store, lease.run_id)
        except RelabelError as error:
            pause /= RETRIES
            forbids, asked = silent_too_long(lease, time.monotonic() - heard, error), None
        else:
            heard = time.monotonic()
        if forbids is not None:
            return stop.make("the loss of its lease", forbids)
        if asked is not None:
            stop.make(f"`relabel stop` on {asked['host']} at {asked['created']}")
    return None


def what_forbids(store: ObjectStore, lease: Lease) -> StoreConflict | None:
    """Why an owner that can reach its store may not go on."""
    new = taken_over_by(store, lease)
    if new is None:
        return None
    return StoreConflict(
        f"run {new} took over: this run was silent for more than {lease.seconds:.0f} s (it slept, or could not reach "
        f"{store.url}). It publishes nothing. Finished shards are kept; see `relabel runs {store.url}`, and run again "
        "once the other run has ended."
    )


def silent_too_long(lease: Lease, silent: float, error: RelabelError) -> StorageError | None:
    """Why an owner that cannot reach its store may not go on: another run may have taken over."""
    if silent <= lease.seconds:
        return None
    return StorageError(
        f"no heartbeat reached the store for {silent:.0f} s (the lease is for {lease.seconds:.0f} s), so another run "
        f"may have taken over: {error} Finished shards are kept; run again to go on."
    )
