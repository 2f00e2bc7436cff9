"""Fences: marks in the sequence of versions from which on the owner of an older lease can publish nothing.

A fence takes the next number of `versions/` by the same create-once as a release, so that whichever of an old owner's
commit and its successor's fence comes first is plain to everybody.
"""

from typing import Literal

from ..digests import Json
from ..labels.contract import Declaration
from .partitions import Partition


class Fence(Declaration):
    """One number of the sequence that is no release."""

    kind: Literal["fence"] = "fence"
    format: int
    number: int
    before_sha256: str
    """Of the bytes of the file before it in the sequence; "" where it is the first."""
    release: int
    """The newest release before it, 0 where there is none."""
    fences: tuple[int, ...]
    """The numbers of all fences before it."""
    lease: int
    """Of the new owner: older leases publish nothing any more."""
    run_id: str
    """Of the new owner."""
    partition: Partition
    """Of the new owner."""
    fenced: dict[int, str]
    """The leases that were taken over, and the run that held each."""
    created: str
    """UTC, ISO 8601; for people, decides nothing."""
    tool: Json

    def __str__(self) -> str:
        old = ", ".join(f"run {run_id} (lease {lease})" for lease, run_id in self.fenced.items())
        return f"run {self.run_id} (lease {self.lease}) took the store over from {old}"
