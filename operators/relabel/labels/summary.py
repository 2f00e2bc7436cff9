"""Summaries: what label shards say on the whole: the spread of scores, flags, how often new beats old.

A summary is made of one label shard's rows, and those of many are added up: integers alone, so that any order and any
partition of the same rows gives the same bytes. Labels of other kinds have none, but for their flags.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..digests import Json, canonical_json
from .contract import Column, LabelContract
from .distribution import Distribution, distribution, merged_states

SUMMARISED = ("score", "caption")
"""Kinds of labels of which numbers are described."""
FLAGS, TRUNCATED = "_flags", "truncated"
NUMBERS = "fiu"
"""numpy's kinds of the columns that hold one number a row; truth values count as 0 and 1."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """How many rows have which flags."""

    rows: int
    """That have a list of flags, be it empty."""
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, Json]:
        return {"rows": self.rows, "counts": dict(sorted(self.counts.items()))}


@dataclasses.dataclass(frozen=True)
class Contest:
    """In how many rows the first of two scores is larger, equal, smaller; where both are there."""

    larger: int
    equal: int
    smaller: int

    @property
    def rows(self) -> int:
        return self.larger + self.equal + self.smaller

    def to_json(self) -> dict[str, Json]:
        counts = dataclasses.asdict(self)
        return {**counts, "share": round(self.larger / self.rows, 6) if self.rows else None}


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of the labelled rows of some label shards; by the names of columns."""

    shards: int
    numbers: Mapping[str, Distribution]
    flags: Mapping[str, Flags]
    contests: Mapping[tuple[str, str], Contest]
    """(new, old) -> how often the first is above the second."""

    def to_json(self) -> dict[str, Json]:
        """For people and programs; not what `parse` reads."""
        return {
            "shards": self.shards,
            "numbers": {name: each.to_json() for name, each in sorted(self.numbers.items())},
            "flags": {name: each.to_json() for name, each in sorted(self.flags.items())},
            "wins": {f"{new} > {old}": each.to_json() for (new, old), each in sorted(self.contests.items())},
        }

    def state(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "shards": self.shards,
            "numbers": {name: each.state() for name, each in self.numbers.items()},
            "flags": {name: [each.rows, dict(each.counts)] for name, each in self.flags.items()},
            "wins": sorted([*names, each.larger, each.equal, each.smaller] for names, each in self.contests.items()),
        }

    def encode(self) -> str:
        """Equal for equal summaries."""
        return canonical_json(self.state()).decode()


def from_json(state: Mapping[str, Json]) -> Summary:
    """What `Summary.state` gave."""
    return add_up_states([state])


def parse(text: str) -> Summary:
    """What `Summary.encode` gave."""
    return from_json(json.loads(text))


def parse_all(texts: Sequence[str]) -> Summary:
    """What `add_up` gives of them: a commit does so for a hundred thousand shards."""
    return add_up_states([json.loads(text) for text in texts])


def summarise(contracts: Iterable[LabelContract], table: pa.Table) -> Summary | None:
    """Of one label shard, rows without a label left out; None where no label is of a kind that is summarised, or has
    flags.
    """
    chosen = [each for each in contracts if each.kind in SUMMARISED or any(map(is_flag, each.columns))]
    if not chosen:
        return None
    numbers: dict[str, Distribution] = {}
    flags: dict[str, Flags] = {}
    contests: dict[tuple[str, str], Contest] = {}
    for contract in chosen:
        for column in contract.columns:
            if is_flag(column):
                flags[column.name] = count_flags(table[column.name])
            elif contract.kind not in SUMMARISED or not is_number(column):
                continue
            elif (found := spread(contract, column, table)) is not None:
                numbers[column.name] = found
        for new, old in contract.rivals or ():
            names = f"{contract.name}_{new}", f"{contract.name}_{old}"
            contests[names] = compare(contract, *(table[name] for name in names))
    return Summary(1, numbers, flags, contests)


def add_up(summaries: Sequence[Summary]) -> Summary:
    """One of all their rows together."""
    return add_up_states([each.state() for each in summaries])


def add_up_states(states: Sequence[Mapping[str, Json]]) -> Summary:
    """As `add_up`, of what `Summary.state` gave."""
    numbers: dict[str, list[Json]] = {}
    flags: dict[str, Counter[str]] = {}
    rows: Counter[str] = Counter()
    contests: dict[tuple[str, str], list[int]] = {}
    for state in states:
        for name, each in state["numbers"].items():
            numbers.setdefault(name, []).append(each)
        for name, (count, flagged) in state["flags"].items():
            rows[name] += count
            flags.setdefault(name, Counter()).update(flagged)
        for new, old, *counts in state["wins"]:
            held = contests.setdefault((new, old), [0, 0, 0])
            held[:] = [before + more for before, more in zip(held, counts, strict=True)]
    return Summary(
        sum(state["shards"] for state in states),
        {name: merged_states(each) for name, each in numbers.items()},
        {name: Flags(rows[name], dict(each)) for name, each in flags.items()},
        {names: Contest(*counts) for names, counts in contests.items()},
    )


def is_number(column: Column) -> bool:
    """Whether a column holds one number a row."""
    if column.shape or column.dtype in ("string", "bytes") or column.dtype.startswith("list:"):
        return False
    return np.dtype(column.dtype).kind in NUMBERS + "b"


def spread(contract: LabelContract, column: Column, table: pa.Table) -> Distribution | None:
    """Of a column's numbers, less those that say that there is none."""
    values = table[column.name].drop_null()
    numbers = np.asarray(values.to_numpy(), np.float64)
    floats = np.dtype(column.dtype).kind == "f"
    if floats and contract.no_score is not None:
        numbers = numbers[numbers != np.dtype(column.dtype).type(contract.no_score)]
    return distribution(numbers, whole=not floats)


def is_flag(column: Column) -> bool:
    """Whether a column says what is wrong with a row: a list of flags, or one truth value that is a flag."""
    lists = column.dtype == "list:string" and column.name.endswith(FLAGS)
    return lists or (column.dtype == "|b1" and column.name.endswith(f"_{TRUNCATED}"))


def count_flags(column: pa.ChunkedArray) -> Flags:
    """Of a column for which `is_flag` holds."""
    lists = column.drop_null()
    if pa.types.is_boolean(column.type):
        count = int(pc.sum(lists).as_py() or 0)
        return Flags(len(lists), {TRUNCATED: count} if count else {})
    found = pc.value_counts(pc.list_flatten(lists)).to_pylist()
    return Flags(len(lists), {each["values"]: each["counts"] for each in found})


def compare(contract: LabelContract, new: pa.ChunkedArray, old: pa.ChunkedArray) -> Contest:
    """Row by row, where both are there."""
    first, second = (np.asarray(column.fill_null(np.nan).to_numpy(), np.float64) for column in (new, old))
    both = np.isfinite(first) & np.isfinite(second)
    if contract.no_score is not None:
        none = [each.type.to_pandas_dtype()(contract.no_score) for each in (new, old)]
        both &= (first != none[0]) & (second != none[1])
    first, second = first[both], second[both]
    return Contest(int((first > second).sum()), int((first == second).sum()), int((first < second).sum()))
