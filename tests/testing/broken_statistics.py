"""Broken statistics: one that keeps the law, and for every law one that breaks it and nothing else."""

import random
from typing import Any

import numpy as np

from relabel.digests import Json
from relabel.statistics.hashes import key_hashes
from relabel.statistics.statistic import Rows, State, Statistic, added, fixed_point


class Good(Statistic):
    """Count and sum."""

    name, version = "good", 1

    def identity(self) -> Json:
        return {"of": "values"}

    def empty(self) -> State:
        return {"rows": np.zeros((), np.int64), "total": np.zeros((), np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        values = np.asarray(rows["values"], np.float64)
        return added(state, {"rows": np.array(len(values)), "total": np.asarray(fixed_point(values).sum())})

    def merge(self, left: State, right: State) -> State:
        return added(left, right)

    def finish(self, state: State) -> dict[str, Json]:
        return {"rows": int(state["rows"]), "total": int(state["total"])}


class FloatSums(Good):
    def empty(self) -> State:
        return {"rows": np.zeros((), np.int64), "total": np.zeros(())}

    def update(self, state: State, rows: Rows) -> State:
        values = np.asarray(rows["values"], np.float64)
        return added(state, {"rows": np.array(len(values)), "total": np.asarray(values.sum())})


class Objects(Good):
    def empty(self) -> State:
        return {**super().empty(), "names": np.array(["a"], object)}

    def update(self, state: State, rows: Rows) -> State:
        return {**super().update({name: state[name] for name in ("rows", "total")}, rows), "names": state["names"]}


class NoState(Good):
    def empty(self) -> Any:
        return 0


class Moving(Good):
    """An average over the order of the stream."""

    def update(self, state: State, rows: Rows) -> State:
        total = state["total"]
        for value in np.asarray(rows["values"]):
            total = (total * 9 + fixed_point(np.array([value]))[0]) // 10
        return {"rows": np.asarray(state["rows"] + len(rows["values"])), "total": np.asarray(total)}

    def merge(self, left: State, right: State) -> State:
        return {name: np.asarray((left[name] + right[name]) // 2) for name in left}


class FirstSeen(Good):
    def update(self, state: State, rows: Rows) -> State:
        values = fixed_point(np.asarray(rows["values"], np.float64))
        first = values[0] if not state["rows"] and len(values) else state["total"]
        return {"rows": np.asarray(state["rows"] + len(values)), "total": np.array(first)}

    def merge(self, left: State, right: State) -> State:
        rows, total = left["rows"] + right["rows"], np.maximum(left["total"], right["total"])
        return {"rows": np.asarray(rows), "total": np.asarray(total)}


class PrefersLeft(Good):
    def merge(self, left: State, right: State) -> State:
        rows = np.asarray(left["rows"] + right["rows"])
        return {"rows": rows, "total": left["total"] if left["rows"] else right["total"]}


class Subtracts(Good):
    """Commutes, and does not associate."""

    def merge(self, left: State, right: State) -> State:
        both = added(left, right)
        if left["rows"] and right["rows"]:
            return {**both, "total": np.asarray(np.abs(left["total"] - right["total"]))}
        return both


class NoIdentity(Good):
    def empty(self) -> State:
        return {"rows": np.ones((), np.int64), "total": np.zeros((), np.int64)}


class PerBatch(Good):
    """Counts batches."""

    def update(self, state: State, rows: Rows) -> State:
        return added(state, {"rows": np.array(1), "total": np.array(0)})


class MutatesState(Good):
    def empty(self) -> State:
        return {"rows": np.zeros(1, np.int64), "total": np.zeros(1, np.int64)}

    def update(self, state: State, rows: Rows) -> State:
        for name, more in super().update(Good.empty(self), rows).items():
            state[name][0] += more
        return state


class MutatesInMerge(MutatesState):
    def update(self, state: State, rows: Rows) -> State:
        return added(
            state, {name: np.array([more]) for name, more in Good.update(self, Good.empty(self), rows).items()}
        )

    def merge(self, left: State, right: State) -> State:
        for name in left:
            left[name][...] += right[name]
        return left

    def finish(self, state: State) -> dict[str, Json]:
        return {"rows": int(state["rows"][0])}


class MutatesRows(Good):
    def update(self, state: State, rows: Rows) -> State:
        rows["values"][:] = 0  # type: ignore[index]
        return super().update(state, rows)


class KeepsAll(Good):
    """Every row's hash."""

    def empty(self) -> State:
        return {"hashes": np.zeros(0, np.uint64)}

    def update(self, state: State, rows: Rows) -> State:
        return self.merge(state, {"hashes": key_hashes(rows["key"], "kept")})

    def merge(self, left: State, right: State) -> State:
        return {"hashes": np.sort(np.concatenate([left["hashes"], right["hashes"]]))}

    def finish(self, state: State) -> dict[str, Json]:
        return {"rows": len(state["hashes"])}


class Unsorted(KeepsAll):
    """In the order in which they came, and as many as a set has."""

    def merge(self, left: State, right: State) -> State:
        if left["hashes"].tobytes() > right["hashes"].tobytes():
            left, right = right, left
        return {"hashes": np.concatenate([left["hashes"], right["hashes"]])[:4]}


class FewRows(Good):
    """Cannot take no rows."""

    def update(self, state: State, rows: Rows) -> State:
        assert np.asarray(rows["values"]).max() > -1
        return super().update(state, rows)


class RandomResult(Good):
    def finish(self, state: State) -> dict[str, Json]:
        return {"chosen": random.random()}


class NotJson(Good):
    def finish(self, state: State) -> dict[str, Json]:
        return {"mean": float("nan")}


class NoObject(Good):
    def finish(self, state: State) -> Any:
        return [1]


class SetIdentity(Good):
    def identity(self) -> Json:
        return list({"values", "of", "rows", "and", "more"})


class HoldsLambda(Good):
    def __init__(self) -> None:
        self.how = lambda value: value


BROKEN = {
    FloatSums: "Add up fixed_point",
    Objects: "a state holds numpy arrays of integers",
    NoState: "a dict of numpy arrays",
    Moving: "merging with empty() must change nothing",
    FirstSeen: "any partition and any order",
    PrefersLeft: "merge(a, b) must equal merge(b, a)",
    Subtracts: "must equal merge(a, merge(b, c))",
    NoIdentity: "merging with empty() must change nothing",
    PerBatch: "any partition and any order",
    MutatesState: "leave both as they are",
    MutatesInMerge: "merge() must give a new state",
    MutatesRows: "leave both as they are",
    KeepsAll: "a state must be bounded",
    Unsorted: "any partition and any order",
    FewRows: "of any size and also of none",
    RandomResult: "finish() must give the same JSON",
    NotJson: "finish() must make JSON",
    NoObject: "finish() must give an object",
    SetIdentity: "differs from process to process",
    HoldsLambda: "travels by pickle",
}
"""Class -> what its message must say."""
