"""Partitions: which shards of a source one of several drivers labels, by a digest of the shard's name.

A shard stays in its partition whatever other shards come and go.
"""

import dataclasses
import math
import re

from ..digests import sha256
from ..errors import UsageError


@dataclasses.dataclass(frozen=True)
class Partition:
    """The `index`-th of `count`, counted from 1; the whole source is the only one of one."""

    index: int = 1
    count: int = 1

    @property
    def whole(self) -> bool:
        return self.count == 1

    def holds(self, shard: str) -> bool:
        return int(sha256(shard.encode())[:15], 16) % self.count == self.index - 1

    def overlaps(self, other: "Partition") -> bool:
        """Whether some name could lie in both."""
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Partition()


def parse_partition(text: str) -> Partition:
    """`2/4`; raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"a partition is i/n with i from 1 to n, as in 1/4, 2/4, 3/4 and 4/4; got {text!r}.")
    return Partition(int(found[1]), int(found[2]))
