"""Dealing: which of the positions of an epoch each worker of each rank reads.

A stream is one worker of one rank. Positions are dealt as one contiguous slice per stream, so that at most
(streams - 1) shards are read by two; where a loader gives up and another goes on, with as many streams or not, what is
left is dealt anew. Everything here is arithmetic on counts: nothing is read.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ..errors import UsageError
from .positions import Positions
from .shuffle import Shuffle

Remainder = Literal["drop", "pad", "exact"]


@dataclasses.dataclass(frozen=True)
class Deal:
    """How some positions are dealt among `world` ranks of `workers` each."""

    world: int
    workers: int
    remainder: Remainder
    batch_size: int = 1
    """Workers get whole batches of so many samples, but for the last one of a rank."""

    @property
    def streams(self) -> int:
        return self.world * self.workers

    def rank_span(self, count: int, rank: int) -> tuple[int, int]:
        """Ranks' slices of 0 to count; with `pad` they go beyond it, where positions begin again."""
        if self.remainder == "exact":
            return count * rank // self.world, count * (rank + 1) // self.world
        size = count // self.world if self.remainder == "drop" else -(-count // self.world)
        return size * rank, size * (rank + 1)

    def span(self, count: int, stream: int) -> tuple[int, int]:
        """A stream's slice; streams of a rank differ by at most one batch, in the same way on all ranks."""
        rank, worker = divmod(stream, self.workers)
        low, high = self.rank_span(count, rank)
        batches, rest = divmod(-(-(high - low) // self.batch_size), self.workers)
        start = worker * batches + min(worker, rest)
        stop = start + batches + (worker < rest)
        return min(low + start * self.batch_size, high), min(low + stop * self.batch_size, high)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A loader that went some way: how positions were dealt, and how many samples each stream gave."""

    deal: Deal
    given: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"deal": self.deal.to_json(), "given": list(self.given)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Stage":
        """Raises UsageError where it is none."""
        try:
            stage = cls(Deal(**fields["deal"]), tuple(int(each) for each in fields["given"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is not a state of a dataset: {error!r}.") from error
        if len(stage.given) != stage.deal.streams:
            raise UsageError(f"this state has {len(stage.given)} streams, expected {stage.deal.streams}.")
        return stage


@dataclasses.dataclass(frozen=True)
class Stream:
    """What one worker reads of an epoch, and in which order it gives it out."""

    left: Positions
    """What was left to all streams when this stage began."""
    start: int
    """Of its slice, as ranks in `left`; beyond its length they begin again."""
    shuffle: Shuffle

    def reading(self) -> Iterator[tuple[int, int, int]]:
        """Items and positions in the order of reading: first item, first position, how many follow each other.

        They are those that are to come now, however far the shuffle goes while this is iterated.
        """
        pending, size = list(self.shuffle.pending()), len(self.left)

        def read() -> Iterator[tuple[int, int, int]]:
            for low, high in pending:
                while low < high:
                    rank = (self.start + low) % size
                    stop = min(rank + high - low, size)
                    for first, last in self.left.cut(rank, stop):
                        yield low, first, last - first
                        low += last - first

        return read()

    def pending(self) -> Iterator[tuple[int, int]]:
        """Intervals of positions that are still to come."""
        for _, first, count in self.reading():
            yield first, first + count


def stream_of(left: Positions, stage: Stage, number: int, buffer: int, key: Sequence[object], depth: int) -> Stream:
    """One stream as far as `stage` says that it went; `depth`: how many stages came before."""
    start, stop = stage.deal.span(len(left), number)
    shuffle = Shuffle(stop - start, buffer, [*key, depth, stage.deal.streams, number])
    return Stream(left, start, shuffle.skip(stage.given[number]))


def left_after(count: int, stages: Sequence[Stage], buffer: int, key: Sequence[object]) -> Positions:
    """What of positions 0 to count is still to come after these stages."""
    left = Positions.span(0, count)
    for depth, stage in enumerate(stages):
        streams = [stream_of(left, stage, number, buffer, key, depth) for number in range(stage.deal.streams)]
        pending = [interval for stream in streams for interval in stream.pending()]
        end = stage.deal.rank_span(len(left), stage.deal.world - 1)[1]
        dropped = list(left.cut(end, len(left))) if pending else []
        left = Positions.union([*pending, *dropped])
    return left


def after_batches(sizes: Sequence[int], batches: int, batch_size: int, drop_last: bool) -> tuple[list[int], int]:
    """How many samples each worker has given once a DataLoader took so many batches, and whose turn it is then.

    `sizes`: how many each had. A DataLoader takes a batch from each in turn and passes over those that have none left.
    """
    rounds = [size // batch_size if drop_last else -(-size // batch_size) for size in sizes]
    taken = [min(*rounds, batches // len(sizes))] * len(sizes)
    left, turn = batches - sum(taken), 0
    while left and any(each < most for each, most in zip(taken, rounds, strict=True)):
        if taken[turn] < rounds[turn]:
            taken[turn] += 1
            left -= 1
        turn = (turn + 1) % len(sizes)
    return [min(each * batch_size, size) for each, size in zip(taken, sizes, strict=True)], turn
