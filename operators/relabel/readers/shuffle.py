"""Shuffle: the order in which a buffer gives out items 0 to n - 1, a function of n, the buffer's size and a key alone.

So an order is gone on with by counting, without reading again what was read; the random numbers are Philox's raw
output, which numpy promises never to change.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

DRAWS = 4096
"""Random numbers made at a time."""


class Shuffle:
    """Iterate it: items in the order in which they are given out. A buffer of one item changes no order."""

    def __init__(self, count: int, size: int, key: Sequence[object]) -> None:
        self.count, self.given = count, 0
        self._buffer = list(range(min(max(1, size), count)))
        self._next = len(self._buffer)
        seed = blake2b(repr(tuple(key)).encode(), digest_size=16).digest()
        self._philox = np.random.Philox(key=np.frombuffer(seed, "<u8").astype(np.uint64))
        self._draws: Iterator[int] = iter(())

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        buffer = self._buffer
        if not buffer:
            raise StopIteration
        slot = (self._draw() * len(buffer)) >> 32 if len(buffer) > 1 else 0
        item = buffer[slot]
        if self._next < self.count:
            buffer[slot] = self._next
            self._next += 1
        else:
            buffer[slot] = buffer[-1]
            buffer.pop()
        self.given += 1
        return item

    def skip(self, count: int) -> "Shuffle":
        """As if so many items had been given out."""
        for _ in range(min(count, self.count - self.given)):
            next(self)
        return self

    def pending(self) -> Iterator[tuple[int, int]]:
        """Intervals of the items that are still to come, ascending."""
        low = high = -1
        for item in [*sorted(self._buffer), self._next]:
            if item != high:
                if high > low:
                    yield low, high
                low = item
            high = item + 1
        yield low, self.count

    def _draw(self) -> int:
        drawn = next(self._draws, None)
        if drawn is None:
            self._draws = iter((self._philox.random_raw(DRAWS) >> np.uint64(32)).tolist())
            drawn = next(self._draws)
        return drawn
