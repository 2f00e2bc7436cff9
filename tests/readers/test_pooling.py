"""Pooling: a crop's soft label, by both readings, against dense references and known scenes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relabel.errors import UsageError
from relabel.labels.label_map import LabelMap, encode
from relabel.readers.overlaps import AXES, AXIS
from relabel.readers.pooling import MODES, Box, Mode, label_pooling, pool, pool_exactly, stack_maps

LEFT, RIGHT = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)
A, B = 3, 7


def map_of(logits: np.ndarray, top_k: int) -> LabelMap:
    """The label map of dense logits [classes, y, x]."""
    arrays = {name: values[0] for name, values in encode(logits[None].astype(np.float32), top_k).items()}
    return LabelMap(**arrays, height=100, width=200, classes=len(logits))


def halves() -> LabelMap:
    """15 x 15 cells, 1000 classes: A at 12 in columns 0 to 7, B at 12 in the others, all else 0."""
    logits = np.zeros((1000, 15, 15))
    logits[A, :, :8] = 12
    logits[B, :, 8:] = 12
    return map_of(logits, 5)


def transposed(label_map: LabelMap) -> LabelMap:
    return LabelMap(
        label_map.ids.swapaxes(0, 1), label_map.scores.swapaxes(0, 1), label_map.residual.T,
        label_map.width, label_map.height, label_map.classes,
    )  # fmt: skip


def mirrored(label_map: LabelMap) -> LabelMap:
    return LabelMap(
        label_map.ids[:, ::-1], label_map.scores[:, ::-1], label_map.residual[:, ::-1],
        label_map.height, label_map.width, label_map.classes,
    )  # fmt: skip


def random_map(seed: int, top_k: int = 4, classes: int = 30) -> LabelMap:
    return map_of(np.random.default_rng(seed).normal(0, 3, (classes, 5, 7)), top_k)


boxes = st.tuples(st.integers(0, 18), st.integers(0, 18), st.integers(1, 20), st.integers(1, 20)).map(
    lambda box: (
        box[0] / 20, box[1] / 20, min(20, box[0] + box[2]) / 20, min(20, box[1] + box[3]) / 20,
    )
)  # fmt: skip


@pytest.mark.parametrize(("mode", "left", "right", "wrong"), [("logit", 0.99, 0.99, 0.32), ("prob", 0.99, 0.93, 0.53)])
def test_a_half_image_is_read_right_and_a_transposed_one_is_not(
    mode: Mode, left: float, right: float, wrong: float
) -> None:
    assert pool(halves(), LEFT, mode)[A] == pytest.approx(left, abs=0.01)
    assert pool(halves(), RIGHT, mode)[B] == pytest.approx(right, abs=0.01)
    assert pool(transposed(halves()), LEFT, mode)[A] == pytest.approx(wrong, abs=0.01)


@given(st.integers(0, 50), boxes, st.sampled_from(MODES))
def test_a_mirrored_box_reads_the_mirrored_map(seed: int, box: Box, mode: Mode) -> None:
    label_map = random_map(seed)
    assert np.allclose(pool(label_map, box, mode), pool(mirrored(label_map), box, mode, flip=True), atol=1e-6)


def test_the_mirror_image_is_read_alike_to_the_last_digits() -> None:
    """Also boxes that end where cells and samples do, which rounding moves to one side or the other."""
    ends = [(one / 15, (one + side) / 15) for one in range(15) for side in range(1, 16 - one)]
    for mode in MODES:
        for x1, x2 in [*ends, (1 / 3, 0.9), (0.1, 0.7), (0.123456, 0.654321)]:
            label_map, box = random_map(3), (0.1, x1, 0.7, x2)
            there = pool_exactly(label_map, box, mode)
            back = pool_exactly(mirrored(label_map), (0.1, 1 - x2, 0.7, 1 - x1), mode)
            assert np.abs(there - back).max() < 1e-9
            assert np.abs(there - pool_exactly(mirrored(label_map), box, mode, flip=True)).max() < 1e-9


@given(
    st.lists(st.tuples(boxes, st.booleans()), min_size=1, max_size=6), st.sampled_from(MODES), st.sampled_from([4, 30])
)
def test_a_batch_is_pooled_as_its_maps_are_one_by_one(crops: list[tuple[Box, bool]], mode: Mode, top_k: int) -> None:
    maps = [random_map(seed, top_k) for seed in range(len(crops))]
    flips = [flip for _, flip in crops]
    single = [pool(label_map, box, mode, flip) for label_map, (box, flip) in zip(maps, crops, strict=True)]
    batch = label_pooling(maps, [box for box, _ in crops], mode, flips)
    assert batch.dtype == np.float32
    assert np.abs(batch - single).max() < 1e-6
    tensors = label_pooling(stack_maps(maps).tensors(), torch.tensor([box for box, _ in crops]), mode, flips)
    assert tensors.dtype == torch.float32
    assert np.abs(tensors.numpy() - single).max() < 2e-6  # the boxes are float32


@given(st.floats(0, 0.999), st.floats(1e-6, 1), st.integers(1, 19), st.sampled_from(MODES))
def test_one_interval_is_weighed_as_many_are(low: float, side: float, cells: int, mode: Mode) -> None:
    high = min(1.0, low + side)
    first, weights = AXIS[mode](low, high, cells)
    [expected] = AXES[mode](np.array([low]), np.array([high]), cells)
    dense = np.zeros(cells)
    dense[first : first + len(weights)] = weights
    assert np.abs(dense - expected).max() < 1e-9
    assert sum(weights) == pytest.approx(1, abs=1e-9)


def test_maps_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UsageError, match="one shape"):
        label_pooling([random_map(1), halves()], [LEFT, LEFT])
    with pytest.raises(UsageError, match="no maps"):
        stack_maps([])
    with pytest.raises(UsageError, match=r"boxes of shape \[2, 4\], got \[1, 4\]"):
        label_pooling([random_map(1), random_map(2)], [LEFT])
    with pytest.raises(UsageError, match=r"`flip` of shape \[1\]"):
        label_pooling([random_map(1)], [LEFT], flip=[True, False])
    with pytest.raises(UsageError, match="0 <= y1"):
        label_pooling([random_map(1), random_map(2)], [LEFT, (0.2, 0.2, 0.1, 1)])


def test_stacked_maps_go_where_tensors_go() -> None:
    stacked = stack_maps([random_map(1), random_map(2)])
    moved = stacked.to("cpu")
    assert len(moved) == 2
    assert moved.ids.dtype == torch.uint16
    assert np.array_equal(label_pooling(moved, [LEFT, RIGHT]).numpy(), label_pooling(stacked.tensors(), [LEFT, RIGHT]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_pools_as_the_cpu_does() -> None:
    maps, crops = [random_map(seed) for seed in range(8)], [LEFT, RIGHT] * 4
    for mode in MODES:
        found = label_pooling(stack_maps(maps).to("cuda"), crops, mode)
        assert found.device.type == "cuda"
        assert np.abs(found.cpu().numpy() - label_pooling(maps, crops, mode)).max() < 1e-6


def test_flip_swaps_the_halves() -> None:
    for mode in MODES:
        assert pool(halves(), LEFT, mode, flip=True)[B] > 0.9


@given(st.integers(0, 50), boxes, st.sampled_from(MODES))
def test_probabilities_sum_to_one(seed: int, box: Box, mode: Mode) -> None:
    pooled = pool(random_map(seed), box, mode)
    assert pooled.dtype == np.float32
    assert pooled.sum() == pytest.approx(1, abs=1e-5)
    assert (pooled > 0).all()


@given(st.integers(0, 50), boxes)
def test_prob_is_the_mean_of_the_dense_map(seed: int, box: Box) -> None:
    label_map = random_map(seed)
    fine = np.repeat(np.repeat(label_map.probabilities(), 20, axis=0), 20, axis=1)
    y1, x1, y2, x2 = (round(edge * side) for edge, side in zip(box, (100, 140, 100, 140), strict=True))
    assert np.allclose(pool(label_map, box), fine[y1:y2, x1:x2].mean(axis=(0, 1)), atol=1e-5)


def roi_align(dense: np.ndarray, box: Box) -> np.ndarray:
    """RoIAlign to 1 x 1 of [y, x, classes], point by point, as the paper's reader calls it."""
    height, width, _ = dense.shape
    (top, left), (tall, wide) = (
        (box[0] * height - 0.5, box[1] * width - 0.5),
        (
            (box[2] - box[0]) * height,
            (box[3] - box[1]) * width,
        ),
    )
    points = []
    for i in range(math.ceil(tall)):
        for j in range(math.ceil(wide)):
            y = min(max(top + (i + 0.5) * tall / math.ceil(tall), 0), height - 1)
            x = min(max(left + (j + 0.5) * wide / math.ceil(wide), 0), width - 1)
            y0, x0 = int(y), int(x)
            y_next, x_next = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            above = dense[y0, x0] * (1 - (x - x0)) + dense[y0, x_next] * (x - x0)
            below = dense[y_next, x0] * (1 - (x - x0)) + dense[y_next, x_next] * (x - x0)
            points.append(above * (1 - (y - y0)) + below * (y - y0))
    return np.mean(points, axis=0)


@given(st.integers(0, 20), boxes)
def test_logit_is_roi_align_of_the_filled_map(seed: int, box: Box) -> None:
    label_map = random_map(seed)
    fill = label_map.residual.astype(np.float64) - math.log(label_map.classes - 4)
    dense = np.repeat(fill[..., None], label_map.classes, axis=-1)
    np.put_along_axis(dense, label_map.ids.astype(np.int64), label_map.scores.astype(np.float64), axis=-1)
    logits = roi_align(dense, box)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(pool(label_map, box, "logit"), expected, atol=1e-5)


@given(st.integers(0, 20), st.sampled_from([-8.0, 4.0, 16.0]), st.sampled_from(MODES))
def test_the_offset_of_the_logits_does_not_matter(seed: int, offset: float, mode: Mode) -> None:
    logits = np.round(np.random.default_rng(seed).normal(0, 3, (30, 5, 7)) * 16) / 16
    exact = {name: values[0].astype(np.float64) for name, values in encode(logits[None].astype(np.float32), 4).items()}
    scores, residual = np.round(exact["scores"] * 8) / 8, np.round(exact["residual"] * 8) / 8
    shifted = [
        LabelMap(
            exact["ids"].astype(np.uint16), (scores + add).astype(np.float16), (residual + add).astype(np.float16),
            height=1, width=1, classes=30,
        )
        for add in (0.0, offset)
    ]  # fmt: skip
    assert np.allclose(pool(shifted[0], LEFT, mode), pool(shifted[1], LEFT, mode), atol=1e-6)


def test_a_complete_map_pools_to_the_exact_softmax() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (6, 4, 4))
    likelihood = np.exp(logits)
    exact = (likelihood / likelihood.sum(axis=0)).mean(axis=(1, 2))
    assert np.allclose(pool(map_of(logits, 6)), exact, atol=2e-3)
    pooled = np.exp(logits.mean(axis=(1, 2)))
    assert np.allclose(pool(map_of(logits, 6), mode="logit"), pooled / pooled.sum(), atol=2e-3)


@given(st.integers(0, 20), boxes)
def test_sparse_and_dense_differ_by_the_residual_mass_at_most(seed: int, box: Box) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (30, 5, 7))
    sparse, dense = pool(map_of(logits, 4), box), pool(map_of(logits, 30), box)
    residual_mass = 1 - map_of(logits, 4).top_probabilities()[0].sum(axis=-1).min()
    assert np.abs(sparse - dense).sum() / 2 <= residual_mass + 5e-3


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0.0, 0.5, 1.0),
        (0.0, 0.9, 1.0, 0.1),
        (-0.1, 0.0, 1.0, 1.0),
        (0.0, 0.0, 1.0, 1.5),
        (0.0, 0.0, math.nan, 1.0),
    ],
)
def test_an_impossible_box_is_refused(box: Box) -> None:
    with pytest.raises(UsageError, match="0 <= y1 < y2 <= 1"):
        pool(halves(), box)
