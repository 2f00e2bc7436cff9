"""Lease commands: who is at work on a store, how to stop them, and publishing what several drivers labelled."""

import argparse
import dataclasses
import datetime as dt
import math
import socket

import relabel
from relabel.errors import UnknownName, UsageError
from relabel.releases.leases import BEATS, Holder, holders
from relabel.releases.stops import ask_to_stop, find_stop
from relabel.storage.objects import ObjectStore

from .terminal import Add, add_overrides, add_store, emit, say, storage_options, table


def declare(add: Add) -> None:
    add_store(add("runs", runs_command, "say which runs are at work on a store"))
    stop = add("stop", stop_command, "ask the runs of a store to end early, from any machine; nothing is lost")
    add_store(stop)
    stop.add_argument("run", nargs="?", metavar="RUN", help="the run's id (default: every run that holds the store)")
    publish = add(
        "publish",
        publish_command,
        "publish what is labelled, once every shard is finished (partitions, what the gate refused)",
    )
    publish.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    add_overrides(publish, "--set", "overrides", "override one field of the recipe (repeatable)")
    publish.add_argument("--force", action="store_true", help="also where the gate refuses; say why with --reason")
    publish.add_argument("--reason", metavar="TEXT", help="why; the release records it")


def open_objects(options: argparse.Namespace) -> ObjectStore:
    return relabel.open(options.store, **storage_options(options)).objects


def runs_command(options: argparse.Namespace) -> int:
    objects = open_objects(options)
    found = holders(objects)
    stops = [find_stop(objects, holder.lease.run_id) is not None for holder in found]
    if options.json:
        emit([describe(holder, stop) for holder, stop in zip(found, stops, strict=True)])
    elif not found:
        say("no run is at work on this store")
    else:
        rows = [row(holder, stop) for holder, stop in zip(found, stops, strict=True)]
        table([("lease", "run", "partition", "host", "process", "since", "last heartbeat", "state"), *rows])
    return 0


def row(holder: Holder, stop: bool) -> tuple[object, ...]:
    lease = holder.lease
    return (
        lease.number, lease.run_id, "all" if lease.partition.whole else lease.partition, lease.host, lease.pid,
        lease.created, f"{holder.silent_seconds:.0f} s ago", state(holder, stop),
    )  # fmt: skip


def state(holder: Holder, stop: bool) -> str:
    if holder.expired:
        return "expired: the next run takes over"
    return "asked to stop" if stop else "alive"


def describe(holder: Holder, stop: bool) -> dict[str, object]:
    lease = dataclasses.asdict(holder.lease)
    return {
        **lease,
        "partition": str(holder.lease.partition),
        "held_seconds": round(holder.held_seconds, 3),
        "silent_seconds": round(holder.silent_seconds, 3),
        "expired": holder.expired,
        "asked_to_stop": stop,
    }


def stop_command(options: argparse.Namespace) -> int:
    objects = open_objects(options)
    found = holders(objects)
    known = [holder.lease.run_id for holder in found]
    if options.run is not None and options.run not in known:
        raise UnknownName("run", options.run, known, "`relabel runs` lists those that are at work; others have ended.")
    chosen = [holder for holder in found if options.run in (None, holder.lease.run_id)]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for holder in chosen:
        ask_to_stop(objects, holder.lease.run_id, socket.gethostname(), now)
    if options.json:
        emit([describe(holder, True) for holder in chosen])
    elif not chosen:
        say("no run is at work on this store")
    for holder in [] if options.json else chosen:
        say(tell_stop(holder))
    return 0


def tell_stop(holder: Holder) -> str:
    lease = holder.lease
    if holder.expired:
        return (
            f"asked run {lease.run_id} to stop, but it was silent for {holder.silent_seconds:.0f} s; run again any time"
        )
    return (
        f"asked run {lease.run_id} ({lease.host}, process {lease.pid}) to stop; it hears of it within "
        f"{math.ceil(lease.seconds / BEATS)} s, finishes what is in flight, and exits with code 1"
    )


def publish_command(options: argparse.Namespace) -> int:
    from .publishing import publish_finished
    from .run_commands import tell_outcome

    if options.force != bool(options.reason and options.reason.strip()):
        raise UsageError("give --force together with --reason 'why': a release that the gate refuses records it.")
    outcome = publish_finished(options.recipe, options.overrides, options.reason)
    if options.json:
        emit(outcome.to_json())
    else:
        tell_outcome(outcome.to_json())
    return 0
