"""Statistics: a small state over a whole data set, that merges: any partition, any order of rows, the same bytes.

A state holds no floats, for their sums depend on the order: numbers are added as whole multiples of 2^-24. What
`finish` gives is plain JSON, frozen and named by its digest.
"""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from ..digests import Json, digest
from ..errors import StoreCorrupt

UNITS = 2**24
"""Of a fixed-point number: as many to 1."""
LARGEST = 2.0**24
"""The largest number that is added up exactly; 2^38 of the kind of size 2^1 fit 64 bits."""

State = Mapping[str, np.ndarray]
"""Arrays of integers, booleans or bytes by name; in the same order for equal states."""
Rows = Mapping[str, np.ndarray | Sequence[Any]]
"""A batch as the labeler's `__call__` gets it: what it prepared, and the columns of the labels that it reads."""


class Statistic(ABC):
    """What `update` adds up over all rows and `finish` makes of it; built from plain values, travels by pickle.

    `relabel.testing.check_statistic` proves the law: merging is associative and commutative, `empty` changes nothing,
    and rows may come in any parts and any order.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever the result changes its meaning."""

    @abstractmethod
    def identity(self) -> Json:
        """All that was chosen and can change the result, results of earlier passes included."""

    @abstractmethod
    def empty(self) -> State:
        """The state of no rows."""

    @abstractmethod
    def update(self, state: State, rows: Rows) -> State:
        """The state with these rows added; `state` itself is left as it is."""

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """The state of the rows of both."""

    @abstractmethod
    def finish(self, state: State) -> dict[str, Json]:
        """The result, as JSON; raises UsageError where these rows allow none, and says what to do."""

    def fingerprint(self) -> str:
        """Digest of what the result means, without the rows."""
        return digest({"statistic": self.name, "version": self.version, "identity": self.identity()})


def fixed_point(numbers: Float64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Each number as the nearest multiple of 1/UNITS; what is beyond +-LARGEST counts as that."""
    units: np.ndarray = np.rint(np.clip(numbers, -LARGEST, LARGEST) * UNITS)
    return units.astype(np.int64)


def added(left: State, right: State) -> State:
    """Name by name the sum, for states that are sums and counts."""
    return {name: np.asarray(left[name] + right[name]) for name in left}


def to_bytes(state: State) -> bytes:
    """Equal states give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: state[name] for name in sorted(state)})
    return buffer.getvalue()


def from_bytes(data: bytes, path: str) -> State:
    """Raises StoreCorrupt, naming `path`, where these are not the bytes of a state."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreCorrupt(f"{path} is not the state of a statistic ({error}). Delete it; it is made anew.") from error
