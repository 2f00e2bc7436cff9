"""Tuning groups: how several devices tune one model together; one device alone needs none of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

BUCKET = 1 << 24
"""Numbers that are summed over the group at a time."""

T = TypeVar("T")


class Group:
    """One device alone: what is summed is what it has."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over the group, in place."""

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the group, in float64."""
        return list(numbers)

    def first(self, find: Callable[[], T]) -> T:
        """What the first of the group finds, only plain data; nobody else looks."""
        return find()

    def wait(self) -> None:
        """Until all have come here."""


class TorchGroup(Group):
    """Processes that `torch.distributed` has joined, over gloo on CPUs and NCCL on GPUs; Ray Train starts them.

    All get the same bits: a sum is computed once and sent to everybody.
    """

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        nccl = torch.distributed.get_backend() == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    def sum(self, tensors: Sequence[Tensor]) -> None:
        for some in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            torch.distributed.all_reduce(flat)
            totals = torch.split(flat, [tensor.numel() for tensor in some])
            for tensor, total in zip(some, totals, strict=True):
                tensor.copy_(total.view_as(tensor))

    def totals(self, numbers: Sequence[float]) -> list[float]:
        found = torch.tensor(list(numbers), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found)
        totals: list[float] = found.tolist()
        return totals

    def first(self, find: Callable[[], T]) -> T:
        box = [find() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(box, src=0)
        found: T = box[0]  # type: ignore[assignment]
        return found

    def wait(self) -> None:
        self.totals([0.0])


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In order, as many at a time as BUCKET holds, and at least one."""
    some: list[Tensor] = []
    for tensor in tensors:
        if some and sum(each.numel() for each in [*some, tensor]) > BUCKET:
            yield some
            some = []
        some.append(tensor)
    if some:
        yield some
