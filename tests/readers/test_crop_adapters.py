"""Adapters: other packages' crops read into ours, or replayed; what is not understood is refused by name."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from other_crops import CROP, InterpolationMode, timm, v1, v2
from samples import contract, gradient, jpeg, label_map, opened, sample, seen

import relabel
from relabel.errors import Refused, UsageError
from relabel.readers.crops import CenterCrop, RandomResizedCrop, Resize
from relabel.readers.pooling import pool

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for its newest version


def alike(one: Any, two: Any, image: Any = None) -> bool:
    image = gradient(80, 120) if image is None else image
    found = [crop(sample(image, seed)) for crop in (one, two) for seed in range(4)]
    pairs = zip(found[:4], found[4:], strict=True)
    return all(torch.equal(a["image"], b["image"]) and np.array_equal(a["label_map"], b["label_map"]) for a, b in pairs)


@pytest.mark.parametrize("make", [
    lambda: v1("RandomResizedCrop", **CROP, antialias=True), lambda: v2("RandomResizedCrop", **CROP, antialias=True),
    lambda: timm("RandomResizedCropAndInterpolation", **CROP), lambda: [v2("RandomResizedCrop", **CROP)],
    lambda: v2("RandomResizedCrop", **{**CROP, "interpolation": "bilinear"}),
    lambda: v1("Compose", transforms=[v1("RandomResizedCrop", **{**CROP, "interpolation": 2})]),
])  # fmt: skip
def test_a_crop_becomes_ours(make: Callable[[], Any]) -> None:
    ours = RandomResizedCrop(24, flip=0.0, pool="label_map")
    assert alike(relabel.adapt(make(), pool="label_map"), ours)


def test_a_flip_after_it_is_taken_in() -> None:
    steps = [timm("RandomResizedCropAndInterpolation", **CROP), v1("RandomHorizontalFlip", p=0.3)]
    assert alike(relabel.adapt(steps, pool="label_map"), RandomResizedCrop(24, flip=0.3, pool="label_map"))
    composed = relabel.adapt(v2("Compose", transforms=steps), "label_map", "logit", "array")
    assert isinstance(composed, RandomResizedCrop)
    assert (composed.flip, composed.mode, composed.output) == (0.3, "logit", "array")


def test_options_of_the_crop_are_read() -> None:
    random = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    made = {"size": [30], "scale": (0.5, 0.6), "ratio": (1.0, 1.0), "interpolation": random}
    crop = relabel.adapt(timm("RandomResizedCropAndInterpolation", **made))
    assert isinstance(crop, RandomResizedCrop)
    assert (crop.size, crop.scale, crop.ratio) == ((30, 30), (0.5, 0.6), (1.0, 1.0))
    assert crop.interpolation == ("bilinear", "bicubic")


def test_evaluation_crops() -> None:
    middle = v1("CenterCrop", size=(24, 24))
    for size in (28, [28]):
        resize = v2("Resize", size=size, interpolation=InterpolationMode.BICUBIC, max_size=None, antialias=True)
        adapted = relabel.adapt(v2("Compose", transforms=[resize, middle]), pool="label_map")
        assert alike(adapted, CenterCrop(24, resize=28, pool="label_map", interpolation="bicubic"))
    whole = v2("Resize", size=[24, 30], interpolation=InterpolationMode.BILINEAR, max_size=None)
    assert alike(relabel.adapt(whole, pool="label_map"), Resize((24, 30), pool="label_map"))


REFUSED = {
    "padding": lambda: v1("RandomCrop", size=(24, 24), padding=4),
    "rotation": lambda: v2("RandomRotation", degrees=5),
    "colours within": lambda: [v1("RandomResizedCrop", **CROP), v1("ColorJitter", brightness=1)],
    "a centre of what size": lambda: v1("CenterCrop", size=(24, 24)),
    "a flip alone": lambda: v1("RandomHorizontalFlip", p=0.5),
    "a flip first": lambda: [v1("RandomHorizontalFlip", p=0.5), v1("RandomResizedCrop", **CROP)],
    "a function": lambda: len,
    "nothing": list,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_and_what_is_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="Supported are: timm's RandomResizedCropAndInterpolation; torchvision's"):
        relabel.adapt(REFUSED[name]())


def test_options_that_are_not_understood_are_refused() -> None:
    keeps = {"interpolation": InterpolationMode.BILINEAR, "max_size": None}
    for step, told in (
        (v1("Resize", size=24, **keeps), "keeps the aspect"),
        (v1("Resize", size=(24, 24), **{**keeps, "max_size": 30}), "max_size"),
        (v1("RandomResizedCrop", **{**CROP, "interpolation": 9}), "interpolation 9"),
        ([v1("Resize", size=(28, 28), **keeps), v1("CenterCrop", size=24)], "shorter side"),
    ):
        with pytest.raises(UsageError, match=told):
            relabel.adapt(step)


def test_adapted_crops_check_contracts() -> None:
    with pytest.raises(Refused, match="score domain"):
        relabel.adapt(v2("RandomResizedCrop", **CROP), pool="label_map").check(
            {"label_map": contract(score_domain="probability")}
        )


def test_albumentations_crop_and_flip_draw_as_ours() -> None:
    import albumentations as A  # noqa: N812  its own convention

    crop = A.RandomResizedCrop(size=(24, 24), scale=(0.2, 0.9))
    assert alike(relabel.adapt(crop, "label_map"), RandomResizedCrop(24, (0.2, 0.9), flip=0.0, pool="label_map"))
    both = A.Compose([crop, A.HorizontalFlip(p=0.4)])
    assert alike(relabel.adapt(both, "label_map"), RandomResizedCrop(24, (0.2, 0.9), flip=0.4, pool="label_map"))


def pipelines() -> dict[str, Any]:
    import albumentations as A  # noqa: N812

    return {
        "crop": A.RandomCrop(40, 50),
        "middle": A.Compose([A.CenterCrop(40, 50)]),
        "flipped after": A.Compose([A.RandomCrop(60, 70), A.HorizontalFlip(p=1)]),
        "flipped before": A.Compose([A.HorizontalFlip(p=1), A.RandomCrop(60, 70)]),
        "two crops": A.Compose([A.RandomCrop(70, 90), A.HorizontalFlip(p=1), A.RandomCrop(40, 50), A.Resize(32, 32)]),
        "one of": A.Compose([A.OneOf([A.RandomCrop(40, 50), A.RandomSizedCrop((30, 60), (40, 50))], p=1)]),
        "colours": A.Compose([A.RandomResizedCrop((40, 50)), A.HueSaturationValue(0, 0, 0), A.CoarseDropout(p=0.0)]),
    }


PIPELINES = ("crop", "middle", "flipped after", "flipped before", "two crops", "one of", "colours")


@pytest.mark.parametrize("name", PIPELINES)
def test_the_box_of_a_replayed_crop_is_the_box_that_is_seen(name: str) -> None:
    image = gradient(80, 120)
    crop = relabel.adapt(pipelines()[name], pool="label_map", output="array")
    where = relabel.adapt(pipelines()[name], output="array")
    boxes = set()
    for seed in range(6):
        found, box = crop(sample(image, seed)), where(sample(image, seed))["crop"]
        y1, x1, y2, x2 = seen(found["image"])
        assert [y1, min(x1, x2), y2, max(x1, x2)] == pytest.approx(box.tolist(), abs=0.02)
        assert (x1 > x2) == name.startswith("flipped") or name == "two crops"
        assert np.array_equal(found["label_map"], pool(label_map(80, 120), tuple(box.tolist())))
        assert np.array_equal(crop(sample(image, seed))["image"], found["image"])
        boxes.add(tuple(box.tolist()))
    assert len(boxes) == (1 if name == "middle" else 6)


def test_a_replayed_pipeline_gives_what_it_makes() -> None:
    import albumentations as A  # noqa: N812

    made = relabel.adapt(A.Compose([A.RandomCrop(40, 40)]))(sample(opened(jpeg(gradient(80, 120)))))
    assert (made["image"].shape, made["image"].dtype) == ((3, 40, 40), torch.uint8)
    scaled = relabel.adapt(A.Compose([A.RandomCrop(40, 40), A.Normalize()]))(sample(gradient(80, 120)))
    assert (scaled["image"].dtype, scaled["image"].shape) == (np.float32, (40, 40, 3))
    skipped = relabel.adapt(A.Compose([A.RandomCrop(40, 40)], p=0.0))(sample(gradient(80, 120)))
    assert skipped["crop"].tolist() == [0, 0, 1, 1]


def test_pipelines_that_move_pixels_otherwise_are_refused() -> None:
    import albumentations as A  # noqa: N812

    given = sample(gradient(80, 120))
    for step in (A.Rotate((20, 20), p=1), A.VerticalFlip(p=1), A.Transpose(p=1), A.PadIfNeeded(200, 200)):
        with pytest.raises(Refused, match=f"{type(step).__name__} moves pixels"):
            relabel.adapt(A.Compose([A.RandomCrop(40, 40), step]))(given)
    with pytest.raises(Refused, match="padded"):
        relabel.adapt(A.Compose([A.RandomCrop(200, 200, pad_if_needed=True), A.ToGray()]))(given)
    with pytest.raises(UsageError, match="holds no crop"):
        relabel.adapt(A.Compose([A.Resize(20, 20), A.ToGray()]))
    with pytest.raises(Refused, match="cropped, padded or turned"):
        relabel.adapt(A.Compose([A.RandomCrop(40, 40)]), pool="label_map")({**given, "label_map": label_map(80, 80)})
