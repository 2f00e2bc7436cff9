"""Law: what a statistic must keep so that any partition and any order of a data set gives the same bytes.

A law that is broken raises RuleBroken, an AssertionError that says what happened and what to do.
"""

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..digests import Json, canonical_json
from ..statistics.statistic import Rows, State, Statistic, from_bytes, to_bytes
from .check import RuleBroken, explained, require, same, start_child

__all__ = ["RuleBroken", "check_statistic"]

KINDS = "iubS"
"""numpy's kinds of what a state may hold: integers, booleans, bytes."""
COPIES = (16, 32)
"""How often the rows are repeated, to see whether the state grows with them."""
GROWTH = 1.25
FINISHED = 5
"""How many of the equal states are finished, which may be slow."""
MAX_BYTES = 4096
CHILD = """
import pickle, sys
print(pickle.load(sys.stdin.buffer).fingerprint())
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What all rows together must give, however they are cut."""

    state: bytes
    result: bytes


def check_statistic(
    statistic: Statistic, batches: Sequence[Rows], *, partitions: int = 100, seed: int = 0, max_bytes: int = MAX_BYTES
) -> None:
    """Prove that a statistic keeps the law, or raise RuleBroken (an AssertionError) for the first thing it breaks.

    `batches` are what the labeler's `__call__` would get, at least eight rows in all that differ, and of which
    `finish` makes a result. They are cut row by row into batches of any size in any order, in `partitions` ways: the
    state has the same bytes and the result is the same JSON every time. `empty` changes nothing, merging commutes and
    associates; `update` and `merge` leave what they are given as it is; a state holds integers, booleans and bytes
    alone and survives its bytes; a state larger than `max_bytes` does not grow with the rows (the names in `key` are
    made new in every repetition); the statistic travels by pickle, and its fingerprint is the same in every process.
    """
    rows = [one for batch in batches for one in split(batch)]
    require(len(rows) >= 8, f"give check_statistic at least eight rows that differ, got {len(rows)}.")
    check_travels(statistic)
    whole = updated(statistic, empty(statistic), joined(rows))
    check_state(whole)
    outcome = Outcome(to_bytes(whole), result_of(statistic, whole))
    check_identity(statistic, whole)
    check_merging(statistic, rows)
    random = np.random.default_rng(seed)
    for number in range(partitions):
        state = partitioned(statistic, rows, random)
        check_same(to_bytes(state), outcome.state, number, whole, state)
        require(
            number >= FINISHED or result_of(statistic, state) == outcome.result,
            "finish() must give the same JSON for equal states: no time, random numbers, or order of a set.",
        )
    check_size(statistic, rows, max_bytes)


def check_travels(statistic: Statistic) -> None:
    """By pickle; the fingerprint is the same here, twice, and in another process whose sets have another order."""
    with explained("A statistic travels by pickle: make it of plain values, its class at the top of a module."):
        content = pickle.dumps(statistic)
        again: Statistic = pickle.loads(content)  # noqa: S301  our own bytes
    with explained("identity() must be JSON, and hold all that can change the result.", of=type(statistic)):
        here = statistic.fingerprint()
    child = start_child(type(statistic), "1", CHILD)
    out, error = child.communicate(content)
    last = (error.decode().strip().splitlines() or [""])[-1]
    require(
        child.returncode == 0,
        f"another process cannot open the statistic ({last}). Put its class at the top of a module that can be "
        "imported, not into a script or a function.",
    )
    require(
        statistic.fingerprint() == here == again.fingerprint() == out.decode().strip(),
        "its fingerprint differs from process to process: identity() must not depend on time, random numbers, id(), "
        "the order of a set or the machine.",
    )


def check_state(state: State) -> None:
    """Integers, booleans and bytes, that survive being written."""
    for name, array in state.items():
        require(
            isinstance(array, np.ndarray) and array.dtype.kind in KINDS,
            f"a state holds numpy arrays of integers, booleans or bytes, got "
            f"{getattr(array, 'dtype', type(array).__name__)} for {name!r}: sums of floats depend on their order. Add "
            "up fixed_point(...) instead.",
        )
    again = from_bytes(to_bytes(state), "the state")
    require(
        again.keys() == state.keys() and all(same(again[name], state[name]) for name in state),
        "a state must come back from its bytes as it was.",
    )


def check_identity(statistic: Statistic, whole: State) -> None:
    """`empty`, and no rows at all, change nothing."""
    expected = to_bytes(whole)
    for left, right in ((empty(statistic), whole), (whole, empty(statistic))):
        require(
            to_bytes(merged(statistic, left, right)) == expected,
            "merging with empty() must change nothing: begin with zeros, or with no entries.",
        )


def check_merging(statistic: Statistic, rows: Sequence[Rows]) -> None:
    """Three parts: a + b == b + a, (a + b) + c == a + (b + c)."""
    third = len(rows) // 3
    parts = [rows[:third], rows[third : 2 * third], rows[2 * third :]]
    first, second, last = (updated(statistic, empty(statistic), joined(part)) for part in parts)
    pair = merged(statistic, first, second)
    require(
        to_bytes(pair) == to_bytes(merged(statistic, second, first)),
        "merge(a, b) must equal merge(b, a), byte for byte: sort what is kept, and prefer neither side.",
    )
    require(
        to_bytes(merged(statistic, pair, last)) == to_bytes(merged(statistic, first, merged(statistic, second, last))),
        "merge(merge(a, b), c) must equal merge(a, merge(b, c)), byte for byte: add, take the largest, or keep the "
        "first of a fixed order; means and moving averages are no such thing.",
    )


def check_same(got: bytes, expected: bytes, number: int, whole: State, state: State) -> None:
    """Says which array differs, and how."""
    if got == expected:
        return
    differing = [name for name in whole if name not in state or not same(whole[name], state[name])]
    what = ", ".join(differing) or "the layout of its arrays in memory (Fortran order?)"
    raise RuleBroken(
        f"any partition and any order of the rows must give the same state; way {number} of cutting them gave another: "
        f"{what} differ. Add integers (fixed_point(...)), break ties by a hash of the key and keep entries sorted."
    )


def check_size(statistic: Statistic, rows: Sequence[Rows], max_bytes: int) -> None:
    sizes = []
    for copies in COPIES:
        state = empty(statistic)
        for number in range(copies):
            state = updated(statistic, state, joined([renamed(row, number) for row in rows]))
        sizes.append(len(to_bytes(state)))
    require(
        sizes[1] <= max_bytes or sizes[1] < GROWTH * sizes[0],
        f"a state must be bounded: of {COPIES[0] * len(rows)} rows it takes {sizes[0]} bytes, of "
        f"{COPIES[1] * len(rows)} rows {sizes[1]}. Count, add up, or keep the n first of a fixed order; where it stops "
        f"growing only later, say so by max_bytes (now {max_bytes}).",
    )


def empty(statistic: Statistic) -> State:
    with explained("empty() must give the state of no rows, a dict of numpy arrays by name.", of=type(statistic)):
        return frozen(statistic.empty())


def updated(statistic: Statistic, state: State, rows: Rows) -> State:
    """Of a state and rows that nobody may write to."""
    with explained(
        "update() must add a batch of rows, of any size and also of none, to a state, and leave both as they are: make "
        "new arrays (state['n'] + 1), never write to the old ones.",
        of=type(statistic),
    ):
        return frozen(statistic.update(state, rows))


def merged(statistic: Statistic, left: State, right: State) -> State:
    with explained(
        "merge() must give a new state and leave both as they are: make new arrays, never write to the old ones.",
        of=type(statistic),
    ):
        return frozen(statistic.merge(left, right))


def result_of(statistic: Statistic, state: State) -> bytes:
    with explained("finish() must make JSON of these rows: an object of text, numbers, lists.", of=type(statistic)):
        result: Json = statistic.finish(state)
        require(isinstance(result, dict), f"finish() must give an object, got {type(result).__name__}.")
        return canonical_json(result)


def partitioned(statistic: Statistic, rows: Sequence[Rows], random: np.random.Generator) -> State:
    """The state of the rows in a random order, cut into random shards of random batches, merged as a random tree."""
    order = random.permutation(len(rows))
    shards = np.split(order, cuts(len(rows), random))
    states = [empty(statistic)] * int(random.integers(0, 2))
    for shard in shards:
        state = empty(statistic)
        for batch in np.split(shard, cuts(len(shard), random)):
            state = updated(statistic, state, joined([rows[row] for row in batch], like=rows))
        states.append(state)
    while len(states) > 1:
        left = states.pop(int(random.integers(len(states))))
        right = states.pop(int(random.integers(len(states))))
        states.append(merged(statistic, left, right))
    return states[0]


def cuts(length: int, random: np.random.Generator) -> np.ndarray:
    """Where to cut; some of the pieces may be empty."""
    return np.sort(random.integers(0, length + 1, int(random.integers(0, 5))))


def split(batch: Rows) -> Iterator[Rows]:
    """Row by row, each a batch of one."""
    count = len(next(iter(batch.values()), ()))
    for row in range(count):
        yield {name: values[row : row + 1] for name, values in batch.items()}


def joined(rows: Sequence[Rows], like: Sequence[Rows] = ()) -> Rows:
    """One batch, its arrays not to be written to; of no rows, one of the same columns as `like`."""
    if not rows:
        return {name: values[:0] for name, values in like[0].items()}
    found: dict[str, Any] = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        stackable = len({part.shape if isinstance(part, np.ndarray) else None for part in parts}) == 1
        if stackable and isinstance(parts[0], np.ndarray):
            found[name] = np.concatenate(parts)
            found[name].flags.writeable = False
        else:
            found[name] = list(itertools.chain.from_iterable(parts))
    return found


def renamed(row: Rows, number: int) -> Rows:
    """The same row under another key."""
    if "key" not in row:
        return row
    return {**row, "key": np.array([f"{number}/{key}" for key in row["key"]])}


def frozen(state: Any) -> State:
    """A copy that nobody may write to: where a statistic keeps a hand on what it gave, that shows, too."""
    if not isinstance(state, Mapping) or not all(isinstance(array, np.ndarray) for array in state.values()):
        raise RuleBroken(f"a state is a dict of numpy arrays by name, got {type(state).__name__}: {repr(state)[:100]}.")
    held = {name: copy.copy(array) for name, array in state.items()}
    for array in held.values():
        array.flags.writeable = False
    return held
