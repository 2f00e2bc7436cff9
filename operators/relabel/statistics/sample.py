"""Sample: the n rows with the smallest hashes: a uniform sample of any number of rows, in any order, that merges.

A state holds n rows, sorted, so that equal rows give equal bytes. The sample of n is within that of n + 1.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt64

from .statistic import State

HASHES = "hashes"


@dataclasses.dataclass(frozen=True)
class HashSample:
    """`size` rows; each has a hash and whatever arrays of integers are kept of it, [rows, ...] by name."""

    size: int

    def update(self, state: State, hashes: UInt64[np.ndarray, " rows"], **kept: np.ndarray) -> State:
        """The state with these rows."""
        held = state[HASHES]
        if len(held) == self.size:
            chosen = hashes <= held[-1]
            hashes, kept = hashes[chosen], {name: values[chosen] for name, values in kept.items()}
        return self.merge(state, {HASHES: hashes, **kept}) if len(hashes) else state

    def merge(self, left: State, right: State) -> State:
        both = {name: np.concatenate([left[name], right[name]]) for name in left}
        order = np.argsort(both[HASHES], kind="stable")
        if len(np.unique(both[HASHES])) < len(order):  # a key that occurs twice: what is kept of it decides
            columns = [values.reshape(len(values), -1) for name, values in sorted(both.items()) if name != HASHES]
            order = np.lexsort((*(column for values in columns for column in values.T), both[HASHES]))
        return {name: values[order[: self.size]] for name, values in both.items()}
