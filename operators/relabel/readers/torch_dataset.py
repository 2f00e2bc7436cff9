"""Torch dataset: the same dataset as one that torch's DataLoader takes for iterable; imported where torch is there."""

import torch.utils.data

from .dataset import Samples


class TorchSamples(Samples, torch.utils.data.IterableDataset[object]):
    """See `dataset.Samples`."""
