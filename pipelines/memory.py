"""Memory: how many samples one call holds, so that a device that is full gets less at a time and later more again."""

import gc
import sys
import time

from relabel.errors import DeviceFull

PAUSES_SECONDS = (1.0, 5.0, 20.0)
"""Before the smallest call is tried again: somebody else may hold the memory."""
GROW_AFTER = 64
"""Calls without trouble before one more compute batch is tried."""


class CallSize:
    """Rows of one call: a multiple of the compute batch, which itself never changes (it decides the last bits)."""

    def __init__(self, compute_batch: int, most: int) -> None:
        self._compute_batch, self._most = compute_batch, most
        self._batches, self._clean, self._pauses = most, 0, 0

    @property
    def rows(self) -> int:
        return self._batches * self._compute_batch

    def full(self, error: DeviceFull) -> None:
        """Half as many next time; raises `error` where one compute batch does not fit, after some pauses, either."""
        self._clean = 0
        if self._batches > 1:
            self._batches //= 2
        elif self._pauses < len(PAUSES_SECONDS):
            time.sleep(PAUSES_SECONDS[self._pauses])
            self._pauses += 1
        else:
            raise error

    def fits(self) -> None:
        """A call went through."""
        self._pauses = 0
        self._clean += 1
        if self._clean % GROW_AFTER == 0:
            self._batches = min(self._batches + 1, self._most)


def release_memory() -> None:
    """What this process holds and does not need, on the host and on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
