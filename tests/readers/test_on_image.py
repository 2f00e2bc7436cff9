"""On image: other people's transforms draw from the sample, and leave the generators alone."""

import random
from typing import Any

import numpy as np
import pytest
import torch

import relabel
from relabel.errors import UsageError


def noisy(image: Any) -> tuple[Any, ...]:
    return image, random.random(), float(np.random.rand()), torch.rand(2).tolist()  # noqa: NPY002


def seed_all() -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)


def test_what_they_draw_is_a_function_of_the_sample() -> None:
    transform = relabel.on_image(noisy)
    first = transform({"__seed__": 1, "image": "x", "more": 2})
    random.seed(5)
    torch.manual_seed(5)
    assert transform({"__seed__": 1, "image": "x", "more": 2}) == first
    assert transform({"__seed__": 2, "image": "x"})["image"] != first["image"]
    assert first["more"] == 2


def test_global_generators_go_on_as_if_nothing_had_been() -> None:
    seed_all()
    expected = noisy(None)
    seed_all()
    relabel.on_image(noisy)({"__seed__": 1, "image": 0})
    with pytest.raises(ZeroDivisionError):
        relabel.on_image(noisy, lambda image: 1 / 0)({"__seed__": 1, "image": 0})
    assert noisy(None) == expected


def test_they_are_applied_in_order() -> None:
    assert relabel.on_image(lambda image: image + 1, lambda image: image * 2)({"__seed__": 1, "image": 3})["image"] == 8
    assert relabel.on_image()({"__seed__": 1, "image": 3})["image"] == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="`image`"):
        relabel.on_image(noisy)({"__seed__": 1})
    with pytest.raises(UsageError, match="`__seed__`"):
        relabel.on_image(noisy)({"image": 1})
