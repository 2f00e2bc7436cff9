"""Pooling: CPU of the soft labels of 256 crops, 1000 classes, 15 x 15 x 5 maps, against dense scatter and RoIAlign.

The dense reader is torch's, in float32, on one thread: scatter into [256, 1000, 15, 15], then RoIAlign to 1 x 1 (see
`dense_pooling`). Boxes are those of a RandomResizedCrop. Beside it the cost of one map at a time, which a joined reader
pays per image. Maps are random, with three
probable classes each: what they hold changes no time.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from dense_pooling import pool_densely
from measure import best_of_each, report

from relabel.labels.label_map import LabelMap, encode
from relabel.readers.draws import Draws
from relabel.readers.pooling import MODES, StackedMaps, label_pooling, pool, stack_maps
from relabel.readers.regions import random_region

ROWS, CLASSES, GRID, TOP_K = 256, 1000, 15, 5
TARGET = 20.0
TOLERANCE = 1e-5


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    maps, boxes = label_maps(ROWS), crops(ROWS)
    stacked = stack_maps(maps)
    tensors = stacked.tensors()
    dense = dense_reader(tensors, torch.from_numpy(boxes))
    calls: dict[str, Callable[[], object]] = {"dense": dense}
    for mode in MODES:
        calls[f"numpy {mode}"] = lambda mode=mode: label_pooling(stacked, boxes, mode)
        calls[f"torch {mode}"] = lambda mode=mode: label_pooling(tensors, boxes, mode)
        calls[f"one at a time {mode}"] = lambda mode=mode: [
            pool(one, tuple(box), mode) for one, box in zip(maps, boxes.tolist(), strict=True)
        ]
    cpu = best_of_each(calls)
    baseline = f"dense scatter + RoIAlign {cpu['dense'] * 1e3:.0f} ms"
    for name, seconds in cpu.items():
        if name != "dense":
            ratio = cpu["dense"] / seconds
            one = name.startswith("one")
            value, unit = (seconds / ROWS * 1e6, "us/image") if one else (seconds * 1e3, f"ms/{ROWS} images")
            target = "" if one else f">= {TARGET:g} x"
            report(name, value, unit, baseline, f"{ratio:.1f} x less CPU", target, None if one else ratio >= TARGET)
    error = float(np.abs(label_pooling(stacked, boxes, "logit") - dense().numpy()).max())
    report("largest difference, logit", error, "", "dense, float32", "", f"<= {TOLERANCE:g}", error <= TOLERANCE)


def dense_reader(maps: StackedMaps, boxes: torch.Tensor) -> Callable[[], torch.Tensor]:
    arrays = maps.ids, maps.scores, maps.residual
    return lambda: pool_densely(*arrays, CLASSES, boxes, torch.float32)


def label_maps(rows: int) -> list[LabelMap]:
    random = np.random.default_rng(0)
    found = []
    for _ in range(rows):
        logits = random.normal(0, 2, (1, CLASSES, GRID, GRID)).astype(np.float32)
        logits[:, random.integers(CLASSES, size=3)] += 9
        arrays = {name: values[0] for name, values in encode(logits, TOP_K).items()}
        found.append(LabelMap(**arrays, height=375, width=500, classes=CLASSES))
    return found


def crops(rows: int) -> np.ndarray:
    """Boxes [rows, 4] of random crops of a photograph of 375 x 500 pixels."""
    found = [random_region(Draws(row, "crop"), 375, 500, (0.08, 1.0), (3 / 4, 4 / 3)) for row in range(rows)]
    return np.array([region.fractions(375, 500) for region in found])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
