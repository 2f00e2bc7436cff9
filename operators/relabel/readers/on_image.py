"""On image: transforms of images alone (colours, erasing, normalising) among those of samples."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import UsageError
from .draws import Draws, draws_of


class OnImage:
    """See `on_image`."""

    def __init__(self, *transforms: Callable[[Any], Any]) -> None:
        self.transforms = transforms

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        if "image" not in sample:
            raise UsageError(f"on_image needs the field `image`, the sample has {', '.join(map(str, sample))}.")
        image = sample["image"]
        with seeded(draws_of(sample, "on_image")):
            for transform in self.transforms:
                image = transform(image)
        return {**sample, "image": image}


def on_image(*transforms: Callable[[Any], Any]) -> OnImage:
    """A transform of samples that applies these to `image`, in order: what torchvision or timm do after a crop.

    They may draw from the global generators of Python, numpy and torch: these are seeded by the sample meanwhile, and
    left as they were. They should not move pixels far: a label that was pooled stays that of the crop.
    """
    return OnImage(*transforms)


@contextmanager
def seeded(draws: Draws) -> Iterator[None]:
    """The global generators, seeded; as they were afterwards."""
    import torch

    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    try:
        random.seed(draws.below(2**32))
        np.random.seed(draws.below(2**32))  # noqa: NPY002
        torch.default_generator.manual_seed(draws.below(2**32))
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.default_generator.set_state(tensors)
