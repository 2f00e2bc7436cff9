"""The bench of pooling compares with what it says: dense scatter and RoIAlign, which our pooling equals."""

import numpy as np
import torch
from dense_pooling import pool_densely, roi_align
from pooling_rate import CLASSES, crops, label_maps

from relabel.readers.pooling import label_pooling, stack_maps


def test_sparse_logit_pooling_is_dense_scatter_and_roi_align() -> None:
    maps = label_maps(12)
    stacked, boxes = stack_maps(maps).tensors(), crops(12)
    boxes[0] = (0, 0, 1, 1)
    dense = pool_densely(stacked.ids, stacked.scores, stacked.residual, CLASSES, torch.from_numpy(boxes), torch.float64)
    assert np.abs(label_pooling(maps, boxes, "logit") - dense.numpy()).max() < 1e-6
    assert np.abs(label_pooling(stacked, boxes, "logit").numpy() - dense.numpy()).max() < 1e-6


def test_the_reference_reads_what_lies_in_a_box() -> None:
    ramp = torch.arange(15.0)[:, None] * 100 + torch.arange(15.0)
    box = torch.tensor([[3 / 15, 6 / 15, 6 / 15, 9 / 15]], dtype=torch.float64)
    # The cells 3 to 5 and 6 to 8, each sampled at its centre.
    assert torch.allclose(roi_align(ramp[None, None], box), torch.tensor([[407.0]]))
