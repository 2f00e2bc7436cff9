"""Packing: a part's samples through one buffer and back, without a copy."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relabel.errors import Refused
from relabel.labelers.packing import ALIGNMENT, check_prepared, pack, unpack

DTYPES = st.sampled_from([np.uint8, np.int32, np.float16, np.float32, np.int64, np.bool_])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def stacked(value: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    assert isinstance(value, np.ndarray)
    return value


@given(st.lists(hnp.arrays(DTYPES, SHAPES), min_size=1, max_size=6))
def test_arrays_of_any_shape_come_back(arrays: list[np.ndarray]) -> None:
    batch = unpack(pack([{"field": array, "row": np.array(row)} for row, array in enumerate(arrays)]))
    for ours, array in zip(batch["field"], arrays, strict=True):
        assert ours.dtype == array.dtype
        assert ours.shape == array.shape
        assert ours.tobytes() == array.tobytes()
    assert stacked(batch["row"]).tolist() == list(range(len(arrays)))


def test_equal_shapes_come_back_stacked_and_in_place() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 7, 7, 3), np.uint8)
    buffer = pack([{"image": image, "height": np.array(7, np.int32)} for image in images])
    assert isinstance(buffer, pa.Buffer)
    batch = unpack(buffer)
    assert np.array_equal(stacked(batch["image"]), images)
    address = stacked(batch["image"]).__array_interface__["data"][0]
    assert buffer.address <= address < buffer.address + buffer.size
    assert (address - buffer.address) % ALIGNMENT == 0
    assert stacked(batch["height"]).dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        stacked(batch["image"])[0] = 0


def test_unequal_shapes_come_back_as_views() -> None:
    arrays = [np.full((side, 2), side, np.float32) for side in (3, 1, 2)]
    views = unpack(pack([{"tokens": array} for array in arrays]))["tokens"]
    assert isinstance(views, list)
    assert [view.shape for view in views] == [(3, 2), (1, 2), (2, 2)]
    assert all(not view.flags.owndata for view in views)


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=5))
def test_text_comes_back(texts: list[str]) -> None:
    batch = unpack(pack([{"prompt": np.array(text)} for text in texts]).to_pybytes())
    assert [str(text) for text in batch["prompt"]] == texts


def test_no_samples_make_an_empty_batch() -> None:
    assert unpack(pack([])) == {}


def test_objects_are_refused() -> None:
    with pytest.raises(Refused, match="an array of Python objects for 'box'"):
        check_prepared({"box": np.array([None])})
    with pytest.raises(Refused, match=r"same fields for every sample, got \['a'\] and \['b'\]"):
        pack([{"a": np.zeros(1)}, {"b": np.zeros(1)}])


def test_non_contiguous_arrays_are_packed_by_value() -> None:
    wide = np.arange(24, dtype=np.int32).reshape(4, 6)
    batch = unpack(pack([{"a": wide[:, ::2]}, {"a": wide[:, 1::2]}]))
    assert np.array_equal(stacked(batch["a"]), [wide[:, ::2], wide[:, 1::2]])
