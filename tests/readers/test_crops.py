"""Crops: the pixels that are cut are those whose label is pooled, at whatever scale a JPEG is decoded."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import contract, gradient, jpeg, label_map, opened, sample, seen

from relabel.errors import BadSample, UsageError
from relabel.readers.crops import CenterCrop, Crop, RandomResizedCrop, Resize
from relabel.readers.draws import Draws
from relabel.readers.pooling import pool
from relabel.readers.regions import random_region


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(90, 700), st.integers(90, 700))
def test_the_box_that_is_pooled_is_the_box_that_is_seen(seed: int, height: int, width: int) -> None:
    found = RandomResizedCrop(48, output="array", pool=None)(sample(opened(jpeg(gradient(height, width))), seed))
    y1, x1, y2, x2 = seen(found["image"])
    box = found["crop"]
    assert np.abs(np.array([y1, min(x1, x2), y2, max(x1, x2)]) - box).max() < 0.012


def test_half_the_crops_are_mirrored_and_pooled_labels_know_nothing_of_it() -> None:
    image = gradient(120, 160)
    crop, straight = (
        RandomResizedCrop(32, output="array", pool="label_map"),
        RandomResizedCrop(32, flip=0.0, pool="label_map"),
    )
    mirrored = []
    for seed in range(100):
        found = crop(sample(image, seed))
        _, x1, _, x2 = seen(found["image"])
        mirrored.append(x1 > x2)
        assert np.array_equal(found["label_map"], straight(sample(image, seed))["label_map"])
    assert 30 < sum(mirrored) < 70
    ways = {RandomResizedCrop(8, flip=flip, output="array")(sample(image, 3))["image"].tobytes() for flip in (0.0, 1.0)}
    assert len(ways) == 2


@pytest.mark.parametrize("mode", ["prob", "logit"])
def test_the_label_is_the_pooled_one(mode: Any) -> None:
    image, crop = gradient(90, 140), RandomResizedCrop(32, pool=("label_map", "other"), mode=mode)
    other = label_map(90, 140, seed=5)
    found = crop(sample(image, 9, other=other))
    box = tuple(RandomResizedCrop(32)(sample(image, 9))["crop"].tolist())
    assert np.array_equal(found["label_map"], pool(label_map(90, 140), box, mode))
    assert np.array_equal(found["other"], pool(other, box, mode))
    assert "crop" not in found


def test_a_crop_is_a_function_of_the_seed_alone() -> None:
    data, crop = (
        jpeg(gradient(300, 400)),
        RandomResizedCrop(64, pool="label_map", interpolation=("bilinear", "bicubic")),
    )
    first = [crop(sample(opened(data), seed)) for seed in range(6)]
    again = [crop(sample(opened(data), seed)) for seed in reversed(range(6))][::-1]
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(first, again, strict=True))
    assert len({one["label_map"].tobytes() for one in first}) == 6


def test_a_reduced_jpeg_looks_like_the_whole_one(photos: list[tuple[bytes, int]]) -> None:
    reduced = 0
    for data, _ in photos[:8]:
        image = opened(data)
        large = jpeg(image.convert("RGB").resize((1200, 901), Image.Resampling.LANCZOS))
        crop = RandomResizedCrop(96, scale=(0.5, 1.0), output="array")
        for seed in range(3):
            lazy, whole = opened(large), opened(large)
            whole.load()
            one, two = (crop(sample(each, seed))["image"].astype(float) for each in (lazy, whole))
            reduced += lazy.size != whole.size
            assert np.abs(one - two).mean() < 3
    assert reduced == 24


def test_outputs() -> None:
    image = gradient(60, 80)
    tensor = Resize(16)(sample(image))["image"]
    assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.uint8, (3, 16, 16), True)
    array = Resize((16, 24), output="array")(sample(image))["image"]
    assert (array.dtype, array.shape) == (np.uint8, (16, 24, 3))
    assert Resize((16, 24), output="pil")(sample(image))["image"].size == (24, 16)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), Resize(16, output="array")(sample(image))["image"])


def test_evaluation_crops_take_the_middle_and_the_whole() -> None:
    image = gradient(300, 500)
    assert CenterCrop(224, resize=256)(sample(image))["crop"] == pytest.approx([0.0625, 0.2375, 0.9375, 0.7625])
    assert CenterCrop(96)(sample(image))["crop"] == pytest.approx([0, 0.2, 1, 0.8])
    found = Resize(48, pool="label_map")(sample(image))
    assert np.array_equal(found["label_map"], pool(label_map(300, 500)))
    for size in (48, (30, 50)):
        box = seen(CenterCrop(size, resize=64, output="array")(sample(opened(jpeg(image))))["image"])
        assert box == pytest.approx(CenterCrop(size, resize=64)(sample(image))["crop"], abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_rotation_comes_before_the_crop(orientation: int) -> None:
    upright = gradient(200, 300)
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if inverse is None else upright.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[274] = orientation
    image = opened(jpeg(stored, exif=exif))
    crop = CenterCrop(64, output="array", pool="label_map")
    found = crop({**sample(upright), "image": image})
    assert seen(found["image"]) == pytest.approx((0, 1 / 6, 1, 5 / 6), abs=0.02)


def test_labels_in_the_stored_orientation_leave_the_rotation_out() -> None:
    stored = contract().geometry
    assert stored is not None
    crop = Resize(32, output="array", pool="label_map")
    crop.check({"label_map": contract(geometry=stored.model_copy(update={"orientation": "stored"}))})
    exif = Image.Exif()
    exif[274] = 3
    image = opened(jpeg(gradient(100, 150), exif=exif))
    assert seen(crop(sample(image))["image"]) == pytest.approx((0, 0, 1, 1), abs=0.02)


def test_any_mode_becomes_rgb() -> None:
    grey = Image.fromarray(np.full((40, 40), 128, np.uint8))
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    deep = Image.fromarray(np.full((40, 40), 65535 // 2, np.uint16))
    palette = gradient(40, 40).convert("P")
    cmyk = opened(jpeg(Image.new("CMYK", (400, 400), (0, 0, 0, 128))))
    values = [Resize(8, output="array")(sample(image))["image"][4, 4].tolist() for image in (grey, clear, deep, cmyk)]
    assert values[0] == [128] * 3
    assert values[1] == [255] * 3
    assert values[2] == [127] * 3
    assert max(values[3]) - min(values[3]) <= 1
    assert Resize(8, output="array")(sample(palette))["image"].shape == (8, 8, 3)
    with pytest.raises(BadSample, match="agreed brightness"):
        Resize(8)(sample(Image.fromarray(np.zeros((40, 40), np.float32))))


def test_a_damaged_image_names_its_sample() -> None:
    data = jpeg(gradient(200, 200))
    with pytest.raises(BadSample, match="'k'.*JPEG") as caught:
        Resize(8)(sample(opened(data[: len(data) // 2])))
    assert caught.value.reason == "corrupt_image"


def test_what_is_no_image_is_refused() -> None:
    crop = Resize(8, pool="label_map")
    with pytest.raises(UsageError, match="needs the field `image`"):
        crop({"__seed__": 1})
    with pytest.raises(UsageError, match="got bytes"):
        crop({**sample(gradient(9, 9)), "image": b"jpeg"})
    with pytest.raises(UsageError, match="got NoneType"):
        crop({"image": gradient(9, 9)})
    with pytest.raises(UsageError, match="`__seed__`"):
        RandomResizedCrop(8)({"image": gradient(9, 9)})
    once = Resize(8, output="pil", pool="label_map")(sample(gradient(9, 9)))
    with pytest.raises(UsageError, match="pooled once"):
        crop(once)


def test_an_image_that_was_decoded_at_a_reduced_scale_is_not_cropped_again() -> None:
    image = opened(jpeg(gradient(800, 800)))
    Resize(32)(sample(image))
    with pytest.raises(UsageError, match="reduced scale"):
        Resize(32)(sample(image))
    shared = opened(jpeg(gradient(800, 800)))
    shared.load()
    two = [Resize(32)(sample(shared))["image"] for _ in range(2)]
    assert torch.equal(*two)


def test_a_sample_is_not_changed_in_place() -> None:
    given = sample(gradient(40, 40))
    before = dict(given)
    Resize(8, pool="label_map")(given)
    assert given == before


def test_regions_are_spread_as_asked() -> None:
    found = [random_region(Draws(seed, "crop"), 300, 400, (0.2, 0.5), (3 / 4, 4 / 3)) for seed in range(2000)]
    areas = np.array([region.height * region.width / 120_000 for region in found])
    aspects = np.array([region.width / region.height for region in found])
    assert 0.199 < areas.min() < 0.21
    assert 0.49 < areas.max() < 0.505
    assert areas.mean() == pytest.approx(0.35, abs=0.01)
    assert np.log(aspects).mean() == pytest.approx(0, abs=0.02)
    assert 0.74 < aspects.min() < 0.77
    assert all(region.top + region.height <= 300 and region.left + region.width <= 400 for region in found)
    assert {region.top for region in found} >= {0, 1, 2}


@pytest.mark.parametrize(("height", "width", "shape"), [(1, 1, (1, 1)), (10, 1000, (10, 13)), (1000, 10, (13, 10))])
def test_narrow_images_give_the_middle(height: int, width: int, shape: tuple[int, int]) -> None:
    region = random_region(Draws(1, "crop"), height, width, (0.9, 1.0), (3 / 4, 4 / 3))
    assert (region.height, region.width) == shape
    assert region.fractions(height, width)[2:] <= (1, 1)


@pytest.mark.parametrize("make", [
    lambda: RandomResizedCrop(0), lambda: RandomResizedCrop((1, 2, 3)), lambda: RandomResizedCrop(8, scale=(0.0, 1.0)),
    lambda: RandomResizedCrop(8, scale=(0.5, 1.5)), lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)),
    lambda: RandomResizedCrop(8, flip=2.0),
    lambda: Resize(8, interpolation="linear"), lambda: Resize(8, interpolation=()), lambda: CenterCrop(224, resize=200),
])  # fmt: skip
def test_impossible_options_are_refused(make: Any) -> None:
    with pytest.raises(UsageError, match="must"):
        make()


def test_crops_travel_to_workers() -> None:
    import pickle

    crop = RandomResizedCrop(16, pool="label_map")
    crop.check({"label_map": contract()})
    sent: Crop = pickle.loads(pickle.dumps(crop))
    given = sample(gradient(50, 50))
    assert torch.equal(sent(given)["image"], crop(given)["image"])


def test_png_and_webp_are_cut_alike() -> None:
    image = gradient(120, 90)
    for kind in ("PNG", "WEBP"):
        held = io.BytesIO()
        image.save(held, kind, lossless=True)
        assert seen(CenterCrop(40, output="array")(sample(opened(held.getvalue())))["image"]) == pytest.approx(
            (0.125, 0, 0.875, 1), abs=0.02
        )
