"""Top: of every cell the n rows with the largest number, ties to the smaller hash: exact, in any order of the rows.

A state holds 20 bytes for every row that is kept. What is kept is sorted, so that equal rows give equal bytes.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt64

from ..errors import UsageError
from .statistic import State


@dataclasses.dataclass(frozen=True, eq=False)
class Top:
    """`limits[cell]` rows are kept of each cell."""

    limits: Int64[np.ndarray, " cells"]

    def empty(self) -> State:
        return {"cells": np.zeros(0, np.int32), "numbers": np.zeros(0, np.int64), "hashes": np.zeros(0, np.uint64)}

    def update(
        self,
        state: State,
        cells: Integer[np.ndarray, " entries"],
        numbers: Float64[np.ndarray, " entries"],
        hashes: UInt64[np.ndarray, " entries"],
    ) -> State:
        """The state with these rows; one row may stand in several cells."""
        more = {"cells": cells.astype(np.int32), "numbers": ordered(numbers), "hashes": hashes}
        chosen = self._wanted(state, more)
        return self.merge(state, {name: values[chosen] for name, values in more.items()}) if chosen.any() else state

    def merge(self, left: State, right: State) -> State:
        both = {name: np.concatenate([left[name], right[name]]) for name in left}
        order = np.lexsort((both["hashes"], ~both["numbers"], both["cells"]))
        cells = both["cells"][order]
        rank = np.arange(len(cells)) - np.searchsorted(cells, cells, side="left")
        kept = order[rank < self.limits[cells]]
        return {name: values[kept] for name, values in both.items()}

    def cuts(self, state: State) -> list[tuple[int, float, int]]:
        """Cell, number and hash of the last row of every cell that keeps any: rows down to it are among the n.

        Raises UsageError where a cell has fewer rows than its limit.
        """
        found = []
        for cell in np.flatnonzero(self.limits):
            rows = np.flatnonzero(state["cells"] == cell)
            if len(rows) != self.limits[cell]:
                raise UsageError(
                    f"a cell was expected to have at least the {self.limits[cell]} rows that an earlier pass counted, "
                    f"got {len(rows)}: the rows changed between the passes. Begin again with the first."
                )
            last = rows[-1]
            number = float(unordered(state["numbers"][last : last + 1])[0])
            found.append((int(cell), number, int(state["hashes"][last])))
        return found

    def _wanted(self, state: State, more: State) -> Bool[np.ndarray, " entries"]:
        """Which entries come before the last that a full cell holds; all that go into the others."""
        limits, cells = self.limits, more["cells"]
        held = np.bincount(state["cells"], minlength=len(limits))
        full = held >= limits
        last = np.cumsum(held) - 1
        if not len(state["cells"]):
            return np.asarray(limits[cells] > 0)
        numbers, hashes = state["numbers"][last][cells], state["hashes"][last][cells]
        before = (more["numbers"] > numbers) | ((more["numbers"] == numbers) & (more["hashes"] < hashes))
        return np.asarray((limits[cells] > 0) & (~full[cells] | before))


def ordered(numbers: Float64[np.ndarray, " entries"]) -> Int64[np.ndarray, " entries"]:
    """Integers in the same order as the numbers, none of them lost; -0 is 0."""
    bits = (numbers + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def unordered(integers: Int64[np.ndarray, " entries"]) -> Float64[np.ndarray, " entries"]:
    """What `ordered` was given."""
    return np.where(integers < 0, integers ^ np.int64(2**63 - 1), integers).view(np.float64)
