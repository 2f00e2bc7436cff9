"""Top-k on a device agrees with the numpy reference, ties included."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relabel.labelers import top_k
from relabel.labels import label_map

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3))
few_values = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.integers(-3, 3)))
many_values = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-50, 50, width=32)))


@given(few_values | many_values, st.data())
def test_torch_and_numpy_encode_alike(logits: np.ndarray, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, logits.shape[1]))
    expected = label_map.encode(logits, kept)
    ours = top_k.encode(torch.from_numpy(logits), kept)
    assert {name: values.dtype for name, values in ours.items()} == {
        name: values.dtype for name, values in expected.items()
    }
    assert np.array_equal(ours["ids"], expected["ids"])
    assert np.array_equal(ours["scores"], expected["scores"])
    assert np.allclose(ours["residual"].astype(float), expected["residual"].astype(float), rtol=2**-9, atol=1e-3)


def test_channels_last_logits_are_encoded_in_place() -> None:
    logits = torch.randn(2, 70_000, 1, 2, generator=torch.Generator().manual_seed(0))
    ours = top_k.encode(logits.to(memory_format=torch.channels_last), 3)
    expected = label_map.encode(logits.numpy(), 3)
    assert ours["ids"].dtype == np.int32
    assert np.array_equal(ours["ids"], expected["ids"])
