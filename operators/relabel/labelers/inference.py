"""Inference: any number of images through a dense classifier in batches of one fixed shape.

A kernel may be chosen by the batch's shape, and its last bits with it. So every call of the network sees exactly
`compute_batch` rows, and a row's label depends neither on its neighbours nor on how many there are.
"""

from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import UInt8

from ..digests import Json
from ..labels.label_map import Arrays
from .dense_engines import Network
from .top_k import encode


class FixedBatches:
    """Images to label map arrays. One staging buffer is kept and reused, pinned where the device is a GPU."""

    def __init__(self, network: Network, compute_batch: int, top_k: int, size: int) -> None:
        self.network, self.compute_batch, self.top_k = network, compute_batch, top_k
        pinned = network.device.type == "cuda"
        self.staging = torch.zeros((compute_batch, size, size, 3), dtype=torch.uint8, pin_memory=pinned)

    def __call__(self, images: UInt8[np.ndarray, "rows size size 3"]) -> Arrays:
        """`ids`, `scores`, `residual` of every image, in order."""
        starts = range(0, len(images), self.compute_batch)
        chunks = [self._chunk(images[start : start + self.compute_batch]) for start in starts]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _chunk(self, images: UInt8[np.ndarray, "rows size size 3"]) -> Arrays:
        """One call of the network; a short chunk is filled with its last row, whose labels are dropped."""
        staged = self.staging.numpy()
        staged[: len(images)] = images
        staged[len(images) :] = images[-1]
        logits = self.network(self.staging.to(self.network.device))
        return {name: values[: len(images)] for name, values in encode(logits, self.top_k).items()}


def fix_kernels(threads: int) -> None:
    """So many threads, fp32 means fp32 (no TF32), and one input gives one output, in this process from now on."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def numerics(device: torch.device) -> dict[str, Json]:
    """What decides the last bits on this device."""
    hardware: dict[str, Json]
    if device.type == "cuda":
        hardware = {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    else:
        hardware = {"device": f"cpu {torch.backends.cpu.get_cpu_capability()}", "threads": torch.get_num_threads()}
    packages = {name: version(name) for name in ("torch", "numpy", "simplejpeg", "pillow")}
    return {**hardware, **packages}
