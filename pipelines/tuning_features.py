"""Tuning features: what the image encoder says of every example: kept in a file where it never changes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from relabel.labelers.images import decode_image

from .tuning_data import Example
from .tuning_group import Group
from .tuning_model import ROWS, TunedModel


class LiveFeatures:
    """Of an encoder that is tuned, too: computed whenever they are asked for."""

    def __init__(self, model: TunedModel, examples: Sequence[Example]) -> None:
        self.model, self.examples = model, examples

    def of(self, indices: Sequence[int]) -> Float[Tensor, "rows cells channels"]:
        return self.model.features(self.model.pixels([decode_image(self.examples[index].image) for index in indices]))


class KeptFeatures:
    """Of a frozen encoder: float32 in one file, bit for bit what it would say again."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.rows, self.device = np.load(file, mmap_mode="r"), device

    def of(self, indices: Sequence[int]) -> Float[Tensor, "rows cells channels"]:
        return torch.from_numpy(self.rows[list(indices)]).to(self.device)


def keep_features(model: TunedModel, examples: Sequence[Example], file: Path, group: Group) -> KeptFeatures:
    """Computes the file, every device of the group its share, unless it is there already.

    Its space is taken beforehand: a mapped page for which there is none kills the process, without a word.
    """
    if not group.first(file.is_file):
        live, partial = LiveFeatures(model, examples), file.with_suffix(".partial.npy")
        if group.rank == 0:
            with torch.inference_mode():
                shape = (len(examples), *live.of([0]).shape[1:])
            np.lib.format.open_memmap(partial, "w+", np.float32, shape).flush()
            with partial.open("r+b") as file_to_be:
                os.posix_fallocate(file_to_be.fileno(), 0, partial.stat().st_size)
        group.wait()
        rows = np.lib.format.open_memmap(partial, "r")
        # Written and not mapped: of a page that two machines have mapped, one would write over the other's rows.
        with partial.open("r+b") as shared, torch.inference_mode():
            for start in range(group.rank * ROWS, len(examples), group.size * ROWS):
                indices = range(start, min(start + ROWS, len(examples)))
                shared.seek(rows.offset + start * rows.strides[0])
                shared.write(live.of(indices).cpu().numpy().tobytes())
            shared.flush()
            os.fsync(shared.fileno())
        group.wait()
        if group.rank == 0:
            partial.replace(file)
    group.wait()
    return KeptFeatures(file, model.device)


Features = LiveFeatures | KeptFeatures
