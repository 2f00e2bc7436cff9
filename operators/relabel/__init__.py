"""relabel: label releases for data sets: made by pipelines, read by training jobs.

`relabel.open(url)` reads a store back. Operators are written against `Labeler` and made known by `register`;
`relabel.testing.check_labeler` proves that one keeps the rules. Training jobs read by `Release.dataset` with transforms
such as `RandomResizedCrop`; what needs torch is imported at its first use.
"""

import importlib
from typing import Any

from . import errors
from .about import __version__
from .labelers.labeler import Batch, Fields, Labeler, Labels, Parameters, Prepared
from .labelers.registry import register
from .labels.contract import LabelContract
from .labels.kinds import classes, scores, text
from .readers.adapters import adapt
from .readers.captions import caption_mix
from .readers.classes import hard_labels, soft_labels
from .readers.crops import CenterCrop, RandomResizedCrop, Resize
from .readers.on_image import on_image
from .readers.opening import Release, Store
from .readers.opening import open_label_store as open  # noqa: A004  read as `relabel.open`
from .readers.pooling import label_pooling
from .readers.state import stream_states
from .readers.tally import JoinWarning, Report
from .readers.weights import sample_weight
from .statistics.statistic import Statistic

WITH_TORCH = {"CutMix": "mixing", "Mixup": "mixing", "collate": "collating", "soft_cross_entropy": "losses"}
"""Name -> module of the readers."""

__all__ = [
    "Batch", "CenterCrop", "Fields", "JoinWarning", "LabelContract", "Labeler", "Labels", "Parameters", "Prepared",
    "RandomResizedCrop", "Release", "Report", "Resize", "Statistic", "Store", "__version__", "adapt", "caption_mix",
    "classes",
    "errors", "hard_labels", "label_pooling", "on_image", "open", "register", "sample_weight", "scores", "soft_labels",
    "stream_states", "text",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in WITH_TORCH:
        return getattr(importlib.import_module(f".readers.{WITH_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *WITH_TORCH})
