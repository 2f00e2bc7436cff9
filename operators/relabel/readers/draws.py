"""Draws: everything random of a transform, as a pure function of a sample's seed and a purpose.

No generator is carried from sample to sample: workers, ranks and a resumed run draw what an undisturbed run draws. The
numbers come from blake2b and arithmetic alone, so that they outlast versions of numpy and torch.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Sequence

from ..digests import Json
from ..errors import UsageError

WORDS = struct.Struct("<8Q")


def picks(seed: int, epoch: int, labels: Sequence[str]) -> Callable[[str], int]:
    """Key -> `__pick__`, in [0, 2**63): which of several labels a sample gets this epoch.

    `labels` are the fingerprints of the wanted labels, in any order. Neither shard nor content digest is known to it:
    the same samples cut into other shards get the same picks.
    """
    base = hashlib.blake2b(repr(("pick", seed, epoch, sorted(labels))).encode(), digest_size=8)

    def pick(key: str) -> int:
        hashed = base.copy()
        hashed.update(key.encode("utf-8", "surrogatepass"))
        return int.from_bytes(hashed.digest(), "little") >> 1

    return pick


class Draws:
    """A stream of numbers that (seed, purpose) give; two purposes draw independently."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._name = f"{purpose}\0{seed}\0"
        self._block = 0
        self._numbers: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """In [low, high)."""
        if not self._numbers:
            data = hashlib.blake2b(f"{self._name}{self._block}".encode()).digest()
            self._numbers = [(word >> 11) * 2.0**-53 for word in reversed(WORDS.unpack(data))]
            self._block += 1
        return low + (high - low) * self._numbers.pop()

    def below(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return min(int(self.uniform() * count), count - 1)

    def beta(self, alpha: float) -> float:
        """Of the symmetric Beta(alpha, alpha), in [0, 1]; uniform at alpha 1."""
        if alpha == 1:
            return self.uniform()
        difference = self._log_gamma_variate(alpha) - self._log_gamma_variate(alpha)
        return 1 / (1 + math.exp(-difference)) if difference > -700 else 0.0

    def _log_gamma_variate(self, shape: float) -> float:
        """The logarithm of a gamma variate (Marsaglia and Tsang 2000), raised from shape + 1 below shape 1."""
        if shape < 1:
            return self._log_gamma_variate(shape + 1) + math.log(1 - self.uniform()) / shape
        d = shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self._normal()
            v = (1 + c * x) ** 3
            if v > 0 and math.log(1 - self.uniform()) < x * x / 2 + d * (1 - v + math.log(v)):
                return math.log(d) + math.log(v)

    def _normal(self) -> float:
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())


def draws_of(sample: Json, purpose: str) -> Draws:
    """The draws of a sample (a dict with `__seed__`) for a purpose; raises UsageError where it has no seed."""
    if "__seed__" not in sample:
        raise UsageError(
            f"a sample needs `__seed__` to draw from ({purpose}), got the fields {', '.join(map(str, sample))}. "
            "`release.dataset` gives it; a pipeline of your own may set it to a hash of epoch and key."
        )
    return Draws(int(sample["__seed__"]), purpose)
