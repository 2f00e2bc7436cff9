"""Collect: garbage is removed in two steps, a plan and, a grace later, its application.

A plan deletes nothing. Applying it deletes only what it names, what is still unreachable, and what is older than the
grace, where the plan is older than the grace too: all by the server's clock. A commit refuses to stand on
anything that an open plan names, so what is deleted cannot become part of a release meanwhile. The grace, a day or
more, must be longer than a write may be on its way and than a run may pause between its last check and its publication.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from ..digests import Json, digest
from ..errors import ObjectMissing, Refused, StoreCorrupt, UnknownName, UsageError
from ..storage.objects import ObjectInfo, ObjectStore
from . import notices
from .leases import server_now
from .reachable import unreachable

FOLDER = "gc"
CLOCK = re.compile(r"leases/clock/[0-9a-f]{32}")
"""Written to ask the server's time; left behind where the process died before it deleted its own."""
BEAT = re.compile(r"leases/\d{10}\.beat")
BEGUN = re.compile(r"nights/[^/]+/\d{4}\.begun\.json")
DAY_SECONDS = 86_400.0
MIN_GRACE_SECONDS = DAY_SECONDS
DEFAULT_GRACE_SECONDS = 7 * DAY_SECONDS


@dataclasses.dataclass(frozen=True)
class CollectPlan:
    """What could be deleted once the grace is over."""

    id: str
    """"" where there is nothing to delete, and so no plan."""
    objects: tuple[ObjectInfo, ...]
    young: tuple[ObjectInfo, ...]
    """Not needed by anything that is finished, but written within the grace: a run may be at work on them."""
    age_seconds: float = 0.0
    """Of the plan: the same garbage was planned before where this is more than a moment."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """What became of the objects of a plan that was applied."""

    deleted: tuple[ObjectInfo, ...]
    needed: tuple[str, ...]
    """Reachable by now; kept."""
    young: tuple[str, ...]
    """Written anew within the grace; kept."""
    gone: int
    """Were not there any more."""


def plan_path(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def require_grace(seconds: float, forced: bool) -> None:
    """Raises UsageError for less than a day, unless forced (tests, and stores at which nothing is at work)."""
    if seconds < MIN_GRACE_SECONDS and not forced:
        raise UsageError(
            f"the grace must be at least 24 hours, got {seconds / 3600:.1f}: a run that is at work now would lose what "
            "it wrote. Where nothing is at work on the store, --force-grace allows less."
        )


def plan_collect(
    store: ObjectStore, grace_seconds: float = DEFAULT_GRACE_SECONDS, force: bool = False, by: str = ""
) -> CollectPlan:
    """Find what nobody needs and record it as a plan; deletes nothing. The same garbage gives the same plan.

    `by`: a program that applies its own plans; "" is a person.
    """
    require_grace(grace_seconds, force)
    now = server_now(store)
    found = sorted(garbage(store).values(), key=lambda info: info.path)
    old = tuple(info for info in found if now - info.modified >= grace_seconds)
    young = tuple(info for info in found if now - info.modified < grace_seconds)
    if not old:
        return CollectPlan("", (), young)
    fields: dict[str, Json] = {"objects": [{"path": info.path, "size_bytes": info.size} for info in old]}
    fields |= {"by": by} if by else {}
    name = digest(fields)[:16]
    with advising_drop(store, name):
        notices.post(store, plan_path(name), fields)
    return CollectPlan(name, old, young, max(0.0, now - store.head(plan_path(name)).modified))


def plan_age(store: ObjectStore, name: str) -> float:
    """In seconds, by the server's clock."""
    return server_now(store) - store.head(plan_path(name)).modified


def planner(store: ObjectStore, name: str) -> str:
    """The program that made a plan; "" where a person did."""
    return str(read_plan(store, name).get("by", ""))


def apply_plan(
    store: ObjectStore, name: str, grace_seconds: float = DEFAULT_GRACE_SECONDS, force: bool = False
) -> Collected:
    """Delete what a plan names and nobody needs; afterwards the plan is gone. Repeating an interrupted one goes on.

    Raises Refused while the plan is younger than the grace.
    """
    require_grace(grace_seconds, force)
    fields = read_plan(store, name)
    now = server_now(store)
    age = now - store.head(plan_path(name)).modified
    if age < grace_seconds:
        raise Refused(
            f"the plan {name} is {shown(max(0.0, age))} old; it may be applied when it is {shown(grace_seconds)} old, "
            f"in {shown(grace_seconds - age)}. Nothing was deleted."
        )
    lying = garbage(store)
    deleted, needed, young, gone = [], [], [], 0
    for path in (each["path"] for each in fields["objects"]):
        info = lying.get(path)
        if info is None and not store.exists(path):
            gone += 1
        elif info is None:
            needed.append(path)
        elif now - last_written(store, info) < grace_seconds:
            young.append(path)
        else:
            store.delete(path)
            deleted.append(info)
    store.delete(plan_path(name))
    return Collected(tuple(deleted), tuple(needed), tuple(young), gone)


def last_written(store: ObjectStore, info: ObjectInfo) -> float:
    """When; of a part by a look at it now, for a run that began since it was listed may have written the same again."""
    if not info.path.startswith("parts/"):
        return info.modified
    try:
        return store.head(info.path).modified
    except ObjectMissing:
        return info.modified


def garbage(store: ObjectStore) -> dict[str, ObjectInfo]:
    """Path -> what lies there and nobody needs: what is unreachable, clock objects, heartbeats of ended leases, and
    beginnings of nights that have an end.
    """
    leases = {info.path: info for info in store.list("leases")}
    clocks = [info for info in leases.values() if CLOCK.fullmatch(info.path)]
    beats = [info for path, info in leases.items() if BEAT.fullmatch(path) and f"{path[:-5]}.ended.json" in leases]
    nights = {info.path: info for info in store.list("nights")}
    begun = [info for path, info in nights.items() if BEGUN.fullmatch(path) and path.replace(".begun", "") in nights]
    return {**unreachable(store), **{info.path: info for info in (*clocks, *beats, *begun)}}


def drop_plan(store: ObjectStore, name: str) -> None:
    """Give a plan up."""
    if not store.exists(plan_path(name)):
        raise unknown_plan(store, name)
    store.delete(plan_path(name))  # unread: it may be damaged


def read_plan(store: ObjectStore, name: str) -> dict[str, Json]:
    """Raises UnknownName with the plans that are open, StoreCorrupt where this one is damaged."""
    try:
        with advising_drop(store, name):
            return notices.read(store, plan_path(name))
    except ObjectMissing as error:
        raise unknown_plan(store, name) from error


def unknown_plan(store: ObjectStore, name: str) -> UnknownName:
    return UnknownName("plan", name, plan_names(store), "A plan that was applied is gone.")


@contextlib.contextmanager
def advising_drop(store: ObjectStore, name: str) -> Iterator[None]:
    """A damaged plan says how to get rid of it."""
    try:
        yield
    except StoreCorrupt as error:
        raise StoreCorrupt(
            f"{error} Which objects this plan names is unknown. Give it up with `relabel collect {store.url} --drop "
            f"{name}`, which deletes nothing else, then run again."
        ) from error


def plan_names(store: ObjectStore) -> list[str]:
    paths = [info.path for info in store.list(FOLDER)]
    return [path.removeprefix(f"{FOLDER}/").removesuffix(".json") for path in paths if path.endswith(".json")]


def planned(store: ObjectStore) -> dict[str, frozenset[str]]:
    """Plan -> the paths that it names, for every open plan."""
    found = {}
    for name in plan_names(store):
        try:
            with advising_drop(store, name):
                found[name] = frozenset(each["path"] for each in notices.read(store, plan_path(name))["objects"])
        except ObjectMissing:
            continue  # applied or given up since it was listed
    return found


def shown(seconds: float) -> str:
    """`7 days`, `23.5 hours`, `12 minutes`."""
    for length, name in ((DAY_SECONDS, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:.0f} seconds"
