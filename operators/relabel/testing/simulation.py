"""Simulation: several programs on one store, interleaved operation by operation in an order that a seed decides.

Programs are threads, of which one at a time has the turn: it does one request and gives the turn back. Requests fail
as in `faults`, writes land late, programs sleep long or die. There is no clock and no waiting: a seed is a history,
which repeats. A new kind of program is a function in ACTORS. `make fuzz SEEDS=10000` runs many.
"""

import contextlib
import functools
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ..errors import Refused, StorageError, StoreConflict, UnknownName, UsageError
from ..releases import commit as commits
from ..releases.collect import apply_plan, drop_plan, plan_collect, plan_names
from ..releases.commit import Draft, commit
from ..releases.leases import acquire, beat, release, taken_over_by
from ..releases.partitions import WHOLE, Partition
from ..releases.reachable import unreachable
from ..releases.release import Store
from ..releases.segments import read_segments
from ..releases.stored import one_request_at_a_time
from ..releases.tags import write_tag
from ..releases.versions import Version, read_version, version_numbers
from ..storage.objects import ObjectStore
from .faults import FAULTS, Crash, Fault, LaggingStore, Operation, land
from .memory import MemoryStore
from .toy import draft, finish_shards
from .watch import Violation, Watch

SHARDS = ("a.tar", "b.tar", "c.tar", "broken.tar")
TEACHERS = ("small", "large")
MAX_TURNS = 5_000
FAULT_RATE, SLEEP_RATE, LANDING_RATE, LOSS_RATE = 0.03, 0.02, 0.15, 0.3
SLEEP_TURNS = 80
LEASE_SECONDS = 12.0
"""By the server's clock, which every write moves by one."""
ATTEMPTS = 3
GRACE_SECONDS = 86_400.0
EXPECTED = (StorageError, StoreConflict, Refused, UnknownName)
"""What a person may be told under faults: run again, or another was first; of a fence whose file did not come whole
when it was looked for, and then did, that it is no release."""


class Ended(BaseException):
    """The world ended; its threads must."""


class World:
    """One store, the source that it labels, and everybody at work on it."""

    def __init__(self, seed: int, faults: tuple[Fault, ...] = FAULTS) -> None:
        self.random, self.faults = random.Random(seed), faults  # noqa: S311
        self.store = MemoryStore()
        self.source: dict[str, str] = {shard: "0" for shard in SHARDS}  # noqa: C420 its keys are any names
        """Shard -> ETag: what a listing of the source shows now."""
        self.drafts: dict[str, list[Draft]] = {}
        """What runs tried to publish, by run id."""
        self.watch = Watch(self.store, self.drafts)
        self.in_flight: list[Operation] = []
        self.trace: list[str] = []
        """Every turn: who did what."""
        self.seats: list[Seat] = []
        self.back = threading.Semaphore(0)
        self.busy = 0
        """Programs in the middle of a run or of collecting."""
        self.settled = 0
        """Changes that happened a grace or more ago: every listing shows them."""

    def pass_time(self, seat: "Seat | None" = None) -> None:
        """A grace goes by: no run pauses for so long, no write is on its way for so long, no listing lags so far."""
        while seat is not None and (self.busy or self.in_flight):
            seat.wait()
        self.store.now += GRACE_SECONDS
        self.settled = len(self.store.changes)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def play(self) -> None:
        """Until everybody is done and no write is in flight; raises Violation."""
        try:
            for _ in range(MAX_TURNS):
                if not self._turn():
                    return
                self.watch.check()
            raise Violation(f"the programs did not end within {MAX_TURNS} operations.")
        finally:
            for seat in self.seats:
                seat.end()

    def _turn(self) -> bool:
        """One step of somebody; whether there was one left to make."""
        alive = [seat for seat in self.seats if not seat.done]
        if self.in_flight and (not alive or self.random.random() < LANDING_RATE):
            operation = self.in_flight.pop(self.random.randrange(len(self.in_flight)))
            if self.random.random() >= LOSS_RATE:
                self.trace.append(f"late {operation.kind} {operation.path}")
                land(operation)
            return True
        if not alive:
            return False
        for seat in alive:
            seat.asleep = max(0, seat.asleep - 1)
        seat = self.random.choice([seat for seat in alive if not seat.asleep] or alive)
        seat.step()
        if self.random.random() < SLEEP_RATE:
            seat.asleep = self.random.randrange(SLEEP_TURNS)
        return True


class Seat(LaggingStore):
    """One program: its thread, and its connection to the store. It has the turn between `go` and `back`."""

    def __init__(self, world: World, name: str, work: "Actor", faulty: bool = True) -> None:
        super().__init__(world.store)
        self.world, self.name, self.faulty = world, name, faulty
        self.random = random.Random(world.random.random())  # noqa: S311
        self.asleep, self.done, self.over = 0, False, False
        self.error: BaseException | None = None
        self.go = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self.thread.start()

    def step(self) -> None:
        """Let it do one operation; raises what it did not foresee."""
        self.go.release()
        self.world.back.acquire()
        if self.error is not None:
            raise Violation(f"{self.name} ended with {type(self.error).__name__}: {self.error}") from self.error

    def end(self) -> None:
        self.over = True
        self.go.release()
        self.thread.join()

    def operate(self, operation: Operation) -> Any:
        self.wait()
        world = self.world
        fault = None
        if self.faulty and world.random.random() < FAULT_RATE:
            fault = world.random.choice([each for each in world.faults if operation.kind in each.strikes])
        world.trace.append(f"{self.name} {operation.kind} {operation.path}{f' !{fault}' if fault else ''}")
        return operation.apply() if fault is None else fault.strike(self, operation)

    def wait(self) -> None:
        """Give the turn back and wait for the next."""
        self.world.back.release()
        self.go.acquire()
        if self.over:
            raise Ended

    def hold_back(self, operation: Operation) -> None:
        self.world.in_flight.append(operation)

    def old_listing(self, prefix: str) -> Iterator[Any]:
        most = len(self.world.store.changes) - self.world.settled
        return self.world.store.listing(prefix, behind=min(most, self.world.random.randint(1, 8)))

    def _run(self, work: "Actor") -> None:
        self.go.acquire()
        try:
            if not self.over:
                work(self)
        except Ended:
            return
        except (Exception, Crash) as error:  # noqa: BLE001 handed to the thread that judges it
            self.error = error
        self.done = True
        self.world.back.release()


Actor = Callable[[Seat], None]


def tried(seat: Seat, work: Callable[[int], object]) -> None:
    """Some attempts at something that dies and fails as it may; each begins anew."""
    for attempt in range(ATTEMPTS):
        try:
            work(attempt)
        except (Crash, *EXPECTED):
            continue
        return


def label_and_publish(
    store: ObjectStore, world: World, run_id: str, source: dict[str, str], teacher: str, lease: int | None = None
) -> Version:
    """One run over some shards of the source, as `pipelines.running` does it."""
    numbers = version_numbers(store)
    held = read_segments(store, read_version(store, numbers[-1]).segments) if numbers else {}
    receipts = finish_shards(store, run_id, source, teacher)
    removed = [shard for shard in held if shard not in world.source]
    wanted = draft(run_id, numbers[-1] if numbers else 0, receipts, teacher, removed, lease)
    world.drafts.setdefault(run_id, []).append(wanted)
    version = commit(store, wanted)
    if read_version(world.store, version.version) != version:
        raise Violation(f"run {run_id} was told that it published version {version.version}, which is another's.")
    return version


def driver(seat: Seat) -> None:
    """A run over some or all shards, started again where it fails, under its run id or a new one."""
    shards = sorted(seat.random.sample(SHARDS, seat.random.randint(1, len(SHARDS))))
    run_id = seat.random.choice([seat.name, "shared"])

    def run(attempt: int) -> None:
        name = run_id if attempt == 0 or seat.random.random() < 0.5 else f"{run_id}-{attempt}"
        present = {shard: seat.world.source[shard] for shard in shards if shard in seat.world.source}
        if present:
            with seat.world.at_work():
                label_and_publish(seat, seat.world, name, present, TEACHERS[0])

    tried(seat, run)


def lease_owner(seat: Seat) -> None:
    """A run under a lease, which beats now and then, sleeps longer than it lasts, and is taken over or takes over."""
    partition = seat.random.choice([WHOLE, WHOLE, Partition(1, 2), Partition(2, 2)])

    def run(attempt: int) -> None:
        name = f"{seat.name}-{attempt}"
        lease = acquire(seat, name, partition, LEASE_SECONDS, take_over=seat.random.random() < 0.9).lease
        for _ in range(seat.random.randint(0, 2)):
            if taken_over_by(seat, lease) is not None:
                return
            beat(seat, lease)
        if seat.random.random() < 0.5:
            seat.asleep = SLEEP_TURNS
        present = {shard: etag for shard, etag in seat.world.source.items() if partition.holds(shard)}
        if partition.whole:
            label_and_publish(seat, seat.world, name, present, TEACHERS[0], lease.number)
        else:
            finish_shards(seat, name, present, TEACHERS[0])
        if seat.random.random() < 0.7:
            release(seat, lease)

    tried(seat, run)


def new_teacher(seat: Seat) -> None:
    """A run over all shards whose labels mean something else."""

    def run(attempt: int) -> None:
        with seat.world.at_work():
            label_and_publish(seat, seat.world, f"{seat.name}-{attempt}", dict(seat.world.source), TEACHERS[1])

    tried(seat, run)


def owner(seat: Seat) -> None:
    """The owner of the source: shards change, vanish and come back."""
    for _ in range(seat.random.randint(1, 3)):
        seat.wait()
        shard = seat.random.choice(SHARDS)
        if shard in seat.world.source and len(seat.world.source) > 1 and seat.random.random() < 0.3:
            del seat.world.source[shard]
        else:
            seat.world.source[shard] = str(int(seat.world.source.get(shard, "0")) + 1)


def tagger(seat: Seat) -> None:
    """Names the newest release."""

    def tag(attempt: int) -> None:
        if numbers := version_numbers(seat):
            write_tag(seat, f"{seat.name}-{attempt}", numbers[-1])

    tried(seat, tag)


def collector(seat: Seat) -> None:
    """Removes garbage: a plan, and a grace later its application."""
    world = seat.world

    def collect(attempt: int) -> None:
        world.pass_time(seat)
        with world.at_work():
            name = plan_collect(seat, GRACE_SECONDS).id
        world.pass_time(seat)
        with world.at_work():
            if name:
                apply_plan(seat, name, GRACE_SECONDS)

    tried(seat, collect)


def reader(seat: Seat) -> None:
    """Training: whatever is published can be read, at once and whole. Its own connection is sound."""
    seat.faulty = False
    for _ in range(3):
        try:
            release = Store(seat).release("latest")
        except (UsageError, UnknownName):
            seat.wait()
            continue
        for shard, entry in release.entries.items():
            if entry.data is not None and release.table(shard).num_rows != entry.rows:
                raise Violation(f"release {release.number}: {shard} was not read whole.")


ACTORS: dict[str, tuple[Actor, int]] = {
    "driver": (driver, 6),
    "lease_owner": (lease_owner, 6),
    "new_teacher": (new_teacher, 1),
    "owner": (owner, 2),
    "tagger": (tagger, 1),
    "collector": (collector, 2),
    "reader": (reader, 1),
}
"""Name -> what it does, and how often it is cast."""


def cast(world: World) -> None:
    """Two drivers and some more programs."""
    names = ["driver", "driver"]
    weights = [weight for _, weight in ACTORS.values()]
    names += world.random.choices(list(ACTORS), weights, k=world.random.randint(1, 3))
    world.seats += [Seat(world, f"{name}-{number}", ACTORS[name][0]) for number, name in enumerate(names)]


def simulate(seed: int, faults: tuple[Fault, ...] = FAULTS) -> World:
    """One history; afterwards everybody has ended, and a run without faults has made the release complete.

    Raises Violation where anything that was promised did not hold at any moment.
    """
    world, names = World(seed, faults), random.Random(seed)  # noqa: S311

    def drawn() -> uuid.UUID:
        """Listings are in the order of names, of which some are random: the seed must draw them, too."""
        return uuid.UUID(int=names.getrandbits(128), version=4)

    try:
        # Cards say when they were written, and are named by what they say.
        clock = mock.patch.object(commits, "moment", return_value="2026-01-01T00:00:00+00:00")
        with one_request_at_a_time(), mock.patch.object(uuid, "uuid4", drawn), clock:
            cast(world)
            world.play()
            finish(world)
    except Violation as error:
        error.trace = world.trace
        raise
    return world


def finish(world: World) -> None:
    """A run that nothing disturbs gives what an undisturbed world gives, and a second one finds nothing to do.

    Plans of collectors that died are given up before, as a run says that they must be where it needs what they name.
    """
    for name in plan_names(world.store):
        drop_plan(world.store, name)
    first, second = (
        label_and_publish(world.store, world, f"final-{turn}", dict(world.source), TEACHERS[0]) for turn in range(2)
    )
    world.watch.check()
    if second != first:
        raise Violation("a second run published again.")
    if first.content_digest != undisturbed(tuple(sorted(world.source.items()))):
        raise Violation(f"version {first.version} is not what an undisturbed run publishes.")
    collect_all(world)


def collect_all(world: World) -> None:
    """Nothing that nobody needs is left, whatever died and lost; what is needed is untouched (the watch looks)."""
    world.pass_time()
    name = plan_collect(world.store, GRACE_SECONDS).id
    world.pass_time()
    if name:
        apply_plan(world.store, name, GRACE_SECONDS)
    world.watch.check()
    if left := unreachable(world.store):
        raise Violation(f"collect left {sorted(left)}.")


@functools.cache
def undisturbed(source: tuple[tuple[str, str], ...]) -> str:
    """The content digest of a run that nobody disturbed."""
    world = World(0)
    return label_and_publish(world.store, world, "undisturbed", dict(source), TEACHERS[0]).content_digest
