"""Leases: which run is at work on a store, so that two do not label the same shards or publish over each other.

A lease is a create-once numbered object; whoever creates number n has seen all before it. It is open until its
`.ended.json` is created, by its owner or by who takes it over once it has expired. Expiry is judged by the server's
clock alone: the age of the owner's last heartbeat against an object written just now. What keeps an owner that slept
from publishing is the fence (see `fences`), not the lease.
"""

import contextlib
import dataclasses
import datetime as dt
import os
import re
import socket
import uuid
from collections.abc import Sequence

from ..digests import Json, seal, unseal
from ..errors import ObjectMissing, RelabelError, StorageError, StoreConflict, StoreCorrupt
from ..storage.objects import ObjectStore, settle
from .fences import Fence
from .partitions import WHOLE, Partition
from .versions import (
    PLAIN_FORMAT,
    Version,
    digest_before,
    ensure_store,
    fences_after,
    parse_entry,
    read_entry,
    read_version,
    sequence_numbers,
    tool,
    version_numbers,
    version_path,
)

DEFAULT_SECONDS = 120.0
BEATS = 6
"""Heartbeats in the time after which a lease without one expires."""
NAME = re.compile(r"leases/(\d{10})\.(json|ended\.json|beat)")
UNKNOWN = "of a damaged lease"


@dataclasses.dataclass(frozen=True)
class Lease:
    """One run's right to work on a store, or on a partition of its source."""

    number: int
    run_id: str
    partition: Partition = WHOLE
    seconds: float = DEFAULT_SECONDS
    """Without a heartbeat, by the server's clock: then another run may take over."""
    host: str = ""
    """For people, as `pid` and `created`; decide nothing."""
    pid: int = 0
    created: str = ""
    claim: str = ""
    """Of this attempt at a lease, so that a lost acknowledgement is told from another's success."""

    @property
    def path(self) -> str:
        return lease_path(self.number)

    @property
    def beat_path(self) -> str:
        return f"leases/{self.number:010d}.beat"

    @property
    def ended_path(self) -> str:
        return f"leases/{self.number:010d}.ended.json"

    @property
    def where(self) -> str:
        part = "" if self.partition.whole else f", partition {self.partition}"
        return f"{self.host}, process {self.pid}, lease {self.number}{part}"

    def sealed(self) -> bytes:
        return seal(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Holder:
    """An open lease, and what the server's clock says of it."""

    lease: Lease
    held_seconds: float
    """Since it was acquired."""
    silent_seconds: float
    """Since the last heartbeat."""

    @property
    def left_seconds(self) -> float:
        """Until it expires if it stays silent; negative where it has."""
        return self.lease.seconds - self.silent_seconds

    @property
    def expired(self) -> bool:
        return self.left_seconds < 0

    def __str__(self) -> str:
        return (
            f"run {self.lease.run_id} ({self.lease.where}) since {self.lease.created}, last heartbeat "
            f"{self.silent_seconds:.0f} s ago"
        )


class StoreBusy(StoreConflict):
    """Other runs hold the store, or the partition; nothing was changed."""

    def __init__(self, message: str, holders: Sequence[Holder] = ()) -> None:
        self.holders = holders
        super().__init__(message)


@dataclasses.dataclass(frozen=True)
class Acquired:
    """A lease, and whether others were seen at work since a listing before (`lease_names`)."""

    lease: Lease
    seen: frozenset[str]
    """`lease_names` just before."""
    taken_over: tuple[Lease, ...] = ()


def lease_path(number: int) -> str:
    return f"leases/{number:010d}.json"


def is_newest(store: ObjectStore, number: int) -> bool:
    """Whether no lease came after this one: their numbers have no gaps. One request, no listing, which could lag."""
    return not store.exists(lease_path(number + 1))


def lease_names(store: ObjectStore) -> frozenset[str]:
    """Names of all leases and of their ends: equal at two moments where no lease began or ended in between."""
    return frozenset(
        info.path for info in store.list("leases") if NAME.fullmatch(info.path) and not info.path.endswith(".beat")
    )


def server_now(store: ObjectStore) -> float:
    """The server's clock, in seconds since the epoch: the time of an object written for this."""
    path = f"leases/clock/{uuid.uuid4().hex}"
    store.put(path, b"now\n")
    try:
        return store.head(path).modified
    finally:
        store.delete(path)


def holders(store: ObjectStore, partition: Partition = WHOLE) -> list[Holder]:
    """The open leases that overlap a partition, oldest first."""
    return judge(store, open_leases(store, lease_names(store), partition))


def left_unpublished(store: ObjectStore) -> bool:
    """Whether the last run ended, or fell silent, without a release since: hardly is the next one without work.

    By the clocks of those runs: good enough to do something ahead of time, and for nothing else.
    """
    names = lease_names(store)
    last = read_lease(store, max(int(name[7:17]) for name in names)) if names else None
    if last is None or not all(holder.expired for holder in judge(store, open_leases(store, names, WHOLE))):
        return False
    published = version_numbers(store)
    return not published or read_version(store, published[-1]).created < last.created


def open_leases(store: ObjectStore, names: frozenset[str], partition: Partition) -> list[Lease]:
    """Those that have no end, by name, and overlap `partition`."""
    numbers = sorted(int(name[7:17]) for name in names if not name.endswith(".ended.json"))
    leases = [read_lease(store, number) for number in numbers if Lease(number, "").ended_path not in names]
    return [lease for lease in leases if lease is not None and lease.partition.overlaps(partition)]


def read_lease(store: ObjectStore, number: int) -> Lease | None:
    """One lease; where its object is damaged one that only expires, None where there is none."""
    lease = Lease(number, UNKNOWN)
    try:
        return parse_lease(store.get(lease.path), store.full_url(lease.path))
    except ObjectMissing:
        return None
    except StoreCorrupt:
        return lease


def parse_lease(data: bytes, url: str) -> Lease:
    fields = unseal(data, url)
    try:
        return Lease(**{**fields, "partition": Partition(**fields["partition"])})
    except (KeyError, TypeError) as error:
        raise StoreCorrupt(f"{url} is sealed but is not a lease: {error}") from error


def judge(store: ObjectStore, leases: Sequence[Lease]) -> list[Holder]:
    """How long each was held and silent, by the server's clock; a lease that vanished meanwhile is left out."""
    if not leases:
        return []
    found = [(lease, times(store, lease)) for lease in leases]
    now = server_now(store)
    return [Holder(lease, now - since[0], now - max(since)) for lease, since in found if since]


def times(store: ObjectStore, lease: Lease) -> list[float]:
    """When the server got the lease and its last heartbeat."""
    moments = []
    for path in (lease.path, lease.beat_path):
        try:
            moments.append(store.head(path).modified)
        except ObjectMissing:
            continue
    return moments


def acquire(
    store: ObjectStore,
    run_id: str,
    partition: Partition = WHOLE,
    seconds: float = DEFAULT_SECONDS,
    take_over: bool = True,
) -> Acquired:
    """A new lease, once no other run holds the partition: expired ones are taken over, unless `take_over` is False.

    Raises StoreBusy where another run is at work; never waits.
    """
    ensure_store(store, uuid.uuid4().hex)
    claim = uuid.uuid4().hex
    names = lease_names(store)
    newest = max((int(name[7:17]) for name in names), default=0)
    while True:
        others = judge(store, open_leases(store, names, partition))
        refuse_busy(store, others, take_over)
        lease = Lease(
            newest + 1, run_id, partition, float(seconds), socket.gethostname(), os.getpid(),
            dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), claim,
        )  # fmt: skip
        won = settle(store, lease.path, lease.sealed())
        if won == lease.sealed():
            break
        newest += 1  # another was first, or the listing lags behind
        names = names | {lease.path, *lease_names(store)}
    old = tuple(holder.lease for holder in others)
    try:
        take(store, lease, old)
    except RelabelError:
        with contextlib.suppress(StorageError):
            release(store, lease)
        raise
    return Acquired(lease, names, old)


def refuse_busy(store: ObjectStore, others: Sequence[Holder], take_over: bool) -> None:
    alive = [holder for holder in others if not (holder.expired and take_over)]
    if not alive:
        return
    owners = "; ".join(map(str, alive))
    if all(holder.expired for holder in alive):
        raise StoreBusy(
            f"{store.url} is held by an expired lease: {owners}. `--if-busy refuse` takes nothing over; give "
            "`--if-busy take-over` (the default) once you know that this run is dead.", alive,
        )  # fmt: skip
    left = max(holder.left_seconds for holder in alive)
    raise StoreBusy(
        f"{store.url} is held by {owners}. A live run is not taken over: wait for it (`--if-busy wait`), or stop it "
        f"(`relabel stop {store.url}`). Should it be dead, its lease expires in {left:.0f} s; run again then.", alive,
    )  # fmt: skip


def take(store: ObjectStore, lease: Lease, old: Sequence[Lease]) -> None:
    """End expired leases in the name of a new one; where one of them could publish, a fence comes first."""
    if fenced := [each for each in old if each.partition.whole]:
        write_fence(store, lease, fenced)
    for each in old:
        end(store, each, lease)


def write_fence(store: ObjectStore, lease: Lease, fenced: Sequence[Lease]) -> Fence:
    """Take the next number of the sequence, whatever is published meanwhile."""
    numbers = sequence_numbers(store)
    newest = read_entry(store, numbers[-1]) if numbers else None
    while True:
        fence = next_fence(store, newest, lease, fenced)
        path = version_path(fence.number)
        newest = parse_entry(settle(store, path, seal(fence.model_dump(mode="json"))), store.full_url(path))
        if newest == fence:
            return fence


def next_fence(store: ObjectStore, newest: Version | Fence | None, lease: Lease, fenced: Sequence[Lease]) -> Fence:
    return Fence(
        format=PLAIN_FORMAT,
        number=newest.number + 1 if newest else 1,
        before_sha256=digest_before(store, newest),
        release=0 if newest is None else newest.release if isinstance(newest, Fence) else newest.version,
        fences=fences_after(newest),
        lease=lease.number,
        run_id=lease.run_id,
        partition=lease.partition,
        fenced={each.number: each.run_id for each in fenced},
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        tool=tool(),
    )


def beat(store: ObjectStore, lease: Lease) -> None:
    """Tell that the owner is alive; the server's time of this object is what counts."""
    store.put(lease.beat_path, seal({"number": lease.number, "run_id": lease.run_id}))


def end(store: ObjectStore, lease: Lease, by: Lease) -> dict[str, Json]:
    """Create the lease's end unless it has one; returns what its end says."""
    data = settle(store, lease.ended_path, seal({"number": lease.number, "by": by.number, "run_id": by.run_id}))
    return unseal(data, store.full_url(lease.ended_path))


def release(store: ObjectStore, lease: Lease) -> None:
    """Nobody needs to wait any more. Where it cannot be told, the lease expires."""
    end(store, lease, lease)
    store.delete(lease.beat_path)


def taken_over_by(store: ObjectStore, lease: Lease) -> str | None:
    """The run that ended this lease, where that is not its owner."""
    try:
        fields = unseal(store.get(lease.ended_path), store.full_url(lease.ended_path))
    except ObjectMissing:
        return None
    return None if fields["by"] == lease.number else str(fields["run_id"])
