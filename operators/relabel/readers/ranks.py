"""Ranks: which rank of how many this process is, and which worker of a DataLoader."""

import os
import sys
from typing import Any

from ..errors import UsageError
from .options import Options, check_place


def place(options: Options) -> tuple[int, int]:
    """Rank and world: as given, else torch.distributed's where it is initialised, else RANK and WORLD_SIZE."""
    if options.rank is not None and options.world is not None:
        return options.rank, options.world
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return 0, 1
    if not (rank.isdecimal() and world.isdecimal()):
        raise UsageError(f"RANK and WORLD_SIZE must be whole numbers, got {rank!r} and {world!r}.")
    check_place(int(rank), int(world))
    return int(rank), int(world)


def worker() -> tuple[int, int]:
    """Which worker of how many; (0, 1) outside a DataLoader's workers."""
    torch: Any = sys.modules.get("torch")
    info = None if torch is None else torch.utils.data.get_worker_info()
    return (0, 1) if info is None else (int(info.id), int(info.num_workers))
