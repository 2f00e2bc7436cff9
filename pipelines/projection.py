"""Projection: how long a run will take, what it will cost and what it will wait for, from some of its work measured."""

import dataclasses
from collections.abc import Iterable, Mapping

from relabel.digests import Json

from .account import Account
from .bottleneck import Bottleneck, Load, find
from .cluster import Pool
from .prices import Cost, Prices, cost_of, tell_cost


@dataclasses.dataclass(frozen=True)
class Projection:
    """Of what is still to be labelled."""

    seconds: float
    """Start-up included."""
    startup_seconds: float
    cost: Cost
    bottleneck: Bottleneck | None

    def to_json(self) -> dict[str, Json]:
        return {
            "seconds": round(self.seconds, 1),
            "startup_seconds": round(self.startup_seconds, 1),
            "cost": self.cost.to_json(),
            "bottleneck": None if self.bottleneck is None else self.bottleneck.to_json(),
        }


def project(
    loads: Iterable[Load], startup: float, labels: int, engines_usd: float, pool: Pool, threads: int, prices: Prices
) -> Projection:
    """Of loads as they will be on this pool; `threads` are the CPUs of a labeler's actor."""
    spread = [at(pool, load) for load in loads]
    steady = max((load.alone for load in spread), default=0.0)
    timed = [dataclasses.replace(load, wall=steady) for load in spread]
    seconds = startup + steady
    devices = sum(load.slots for load in spread if load.kind == "device")
    cpus = seconds + sum(sum(load.working.values()) for load in spread if load.kind == "reader")
    if not pool.gpus and not prices.device_hour:
        cpus += devices * seconds * threads
    spent = {"cost": f"{engines_usd:.6f}"}
    cost = cost_of(prices, devices * seconds, pool.gpus, cpus, [spent], labels)
    return Projection(seconds, startup, cost, find(timed))


def at(pool: Pool, load: Load) -> Load:
    """The same work on the slots that a pool gives it."""
    slots: Mapping[str, int] = {"device": pool.least, "reader": pool.readers, "writer": pool.least}
    return dataclasses.replace(load, slots=max(1, slots.get(load.kind, load.slots)))


def project_rest(account: Account, factor: float, pool: Pool) -> Projection:
    """What follows a canary: `factor` times its work, on its own graph, whose start-up comes once more."""
    loads = [load.scaled(factor) for load in account.loads()]
    so_far = account.cost()
    return project(
        loads,
        account.startup_seconds(),
        round(so_far.labels * factor),
        so_far.engines_usd * factor,
        pool,
        account.cpus_per_device,
        account.prices,
    )


def tell_projection(projected: Json, what: str) -> list[str]:
    """What a run will take, for people."""
    told = [f"{what}: about {about(projected['seconds'])}, {tell_cost(projected['cost'])}"]
    if projected["bottleneck"]:
        told.append(f"bottleneck: {projected['bottleneck']['text']}")
    return told


def about(seconds: float) -> str:
    """`41 seconds`, `3.5 hours`."""
    for length, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{max(1, round(seconds))} seconds" if seconds > 1 else "a second"
