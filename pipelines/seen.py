"""Seen: how many rows a frozen statistic was gathered over, and how many there were that it did not see."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relabel.digests import Json
from relabel.errors import StoreCorrupt
from relabel.reasons import Status
from relabel.statistics.statistic import State

NAME = "__seen__"
"""In the state of a shard, beside the statistic's own arrays."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """Of some shards; of those that could not be read no row counts."""

    shards: int = 0
    """All of them."""
    dead_shards: int = 0
    """That could not be read to their end."""
    ok: int = 0
    """Samples that were seen."""
    dead: int = 0
    """That could not be read, or that an earlier step could not label."""
    filtered: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Seen(*(one + more for one, more in pairs))

    def to_json(self) -> dict[str, Json]:
        return dataclasses.asdict(self)


def seen_of(statuses: pa.ChunkedArray) -> Seen:
    """Of the rows of one part, which is no shard yet."""
    ok, dead, filtered = (pc.sum(pc.equal(statuses, str(each))).as_py() or 0 for each in Status)
    return Seen(ok=ok, dead=dead, filtered=filtered)


def with_seen(state: State, seen: Seen) -> State:
    return {**state, NAME: np.array(dataclasses.astuple(seen), np.int64)}


def split(state: State, path: str) -> tuple[State, Seen]:
    """What `with_seen` was given; raises StoreCorrupt where a state tells no rows."""
    if NAME not in state:
        raise StoreCorrupt(f"{path} does not tell of which rows it was made. Delete it; it is made anew.")
    return {name: array for name, array in state.items() if name != NAME}, Seen(*map(int, state[NAME]))


def tell_seen(result: Mapping[str, Json]) -> str:
    """Of a statistic as a release names it; empty where an older relabel gathered it."""
    if not result.get("seen"):
        return ""
    seen = Seen(**result["seen"])
    missed = f"; not seen: {seen.dead_shards} shards, {seen.dead} dead samples, {seen.filtered} filtered"
    return f"{result['name']} of {seen.ok} samples of {seen.shards - seen.dead_shards} shards{missed}"


def unseen(result: Mapping[str, Json]) -> str:
    """What a person should know before the statistic is used; empty where it lacks nothing that was there."""
    seen = Seen(**(result.get("seen") or {}))
    if not seen.dead_shards and not seen.dead:
        return ""
    return (
        f"its statistic {result['name']} lacks {seen.dead_shards} of {seen.shards} shards, which could not be read, "
        f"and {seen.dead} of {seen.ok + seen.dead} samples of the others, which are dead; once they are mended, "
        "`run --refit` gathers it anew"
    )
