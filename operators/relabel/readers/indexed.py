"""Indexed: samples by number, for samplers that want any of them at any time.

What lies where in a tar is found by one scan of its headers; label shards and indices of the shards used last stay in
memory, up to a bound in bytes.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..errors import BadSample, Refused, UsageError
from ..reasons import Reason
from ..shards.pinned import Pinned
from ..shards.places import Place, places
from ..shards.shard import Sample, Shard
from .dataset import Labelled
from .label_rows import JoinedRows
from .media import Paths
from .options import Options
from .samples import Transforms
from .wanted import Wanted

HELD_BYTES = 1 << 30
"""Of label shards and indices, in one process."""
PLACE_BYTES = 500
"""What the place of one sample takes, about."""
READ_BYTES = 64 << 10
"""Of a remote archive at a time, while its headers are scanned."""


class Held:
    """What is kept of one shard: labels, which rows it gives out, and where its samples lie."""

    def __init__(self, rows: JoinedRows, given: Int64[np.ndarray, " given"], gone: set[int]) -> None:
        self.rows, self.given, self.gone = rows, given, gone
        self.places: dict[str, Place] | None = None

    @property
    def size_bytes(self) -> int:
        """In memory, about."""
        return self.rows.size_bytes + PLACE_BYTES * len(self.places or ())


class Indexed(Labelled):
    """`dataset[i]`, for 0 <= i < len(dataset), in the order of shards and rows. `epoch` only changes `__seed__`."""

    def __init__(self, wanted: Wanted, source: Paths, transform: Transforms, options: Options) -> None:
        super().__init__(wanted, source, transform, options)
        self._ends = np.cumsum(self.plan.counts)
        self._held: OrderedDict[int, Held] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": OrderedDict()}

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """The sample; raises IndexError beyond the last, BadSample where it was withdrawn or is not in the source,
        Refused where it is not what was labelled.
        """
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise UsageError(f"an index must be a whole number, got {index!r}.")
        index = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        held = self._hold(shard)
        row = int(held.given[index - int(self._ends[shard] - self.plan.counts[shard])])
        sample = self._find(held, row)
        seed = self._maker.seeds(self.epoch, held.rows.shard)
        self._tally.add("delivered")
        return self._maker.make(held.rows, row, sample, seed)

    def set_epoch(self, epoch: int) -> None:
        """Changes `__seed__`, and looks again at recalls and withdrawals."""
        super().set_epoch(epoch)
        self.wanted.check_recall()
        self._held.clear()

    def _hold(self, shard: int) -> Held:
        if shard in self._held:
            self._held.move_to_end(shard)
            return self._held[shard]
        rows = JoinedRows(self.wanted, self.plan.shards[shard])
        given, since = self.plan.rows(rows, shard)
        held = self._held[shard] = Held(rows, given, set(given[since].tolist()))
        while len(self._held) > 1 and sum(each.size_bytes for each in self._held.values()) > HELD_BYTES:
            self._held.popitem(last=False)
        return held

    def _find(self, held: Held, row: int) -> Sample:
        name, key = held.rows.shard, held.rows.keys[row]
        if row in held.gone:
            self._tally.add("withdrawn")
            raise BadSample(Reason.WITHDRAWN, f"sample {key!r} of {name!r} was withdrawn; make the dataset anew")
        shard = self.media.shards[name]
        if self.media.jumpable(shard):
            sample = self._from_tar(held, shard, row)
        else:
            found = self._joiner.rows(shard, held.rows, np.array([row], np.int64))
            sample = next((each for at, each in found if at == row), None)
        if sample is None:
            raise BadSample(Reason.MISSING_FIELD, f"sample {key!r} of {name!r} is not to be had from {shard.url}")
        return sample

    def _from_tar(self, held: Held, shard: Shard, row: int) -> Sample | None:
        key, identity = held.rows.keys[row], self._joiner.identity
        pinned = self._joiner.opener(shard)
        try:
            if held.places is None:
                held.places = self._scan(held, shard, pinned)
            place = held.places.get(key)
            if place is None:
                self._tally.add("missing")
                return None
            start = min(begin for _, begin, _ in place.members)
            data = pinned.at(start, max(begin + size for _, begin, size in place.members))
            fields = {name: data[begin - start : begin - start + size] for name, begin, size in place.members}
        finally:
            pinned.close()
        sample = Sample(key, row, fields)
        if identity.needs_digests(identity.trusts(shard)):
            fault = identity.fault(held.rows, row, sample)
            if fault is not None:
                self._tally.add("mismatched")
                raise Refused(f"{fault}. Label the source again.")
        return sample

    def _scan(self, held: Held, shard: Shard, pinned: Pinned) -> dict[str, Place]:
        found = {place.key: place for place in places(buffered(pinned), shard.size)}
        extra = found.keys() - held.rows.main.rows.keys()
        if extra:
            self._tally.add("extra", len(extra))
        return found


def buffered(pinned: Pinned) -> Any:
    """Reads a little more than asked for: the headers of small samples lie near each other."""
    window, begin = b"", 0

    def read(start: int, stop: int) -> bytes:
        nonlocal window, begin
        if not begin <= start <= stop <= begin + len(window):
            begin, window = start, pinned.at(start, min(max(stop, start + READ_BYTES), pinned.size))
        return window[start - begin : stop - begin]

    return read
