"""Tuning groups: how several devices tune one model together; one device alone needs none of it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Group:
    """One device alone: what is summed is what it has."""

    rank, size = 0, 1

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes its sum over the group, in place."""

    def shared(self, value: Any) -> Any:
        """What the first of the group has; only plain data."""
        return value

    def wait(self) -> None:
        """Until all have come here."""


class TorchGroup(Group):
    """Processes that `torch.distributed` has joined; Ray Train starts them."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def sum(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)

    def shared(self, value: Any) -> Any:
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        torch.distributed.barrier()
