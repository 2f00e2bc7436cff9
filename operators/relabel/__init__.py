"""relabel: label releases for data sets: made by pipelines, read by training jobs.

`relabel.open(url)` reads a store back. Operators are written against `Labeler` and made known by `register`;
`relabel.testing.check_labeler` proves that one keeps the rules. Training jobs read by `Release.dataset` with transforms
such as `RandomResizedCrop`. Everything is imported at its first use: a worker of a run needs little of it, and torch
only where it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from .about import __version__

if TYPE_CHECKING:
    from .labelers.labeler import Batch, Fields, Labeler, Labels, Parameters, Prepared
    from .labelers.registry import register
    from .labels.contract import LabelContract
    from .labels.kinds import classes, scores, text
    from .readers.adapters import adapt
    from .readers.captions import caption_mix
    from .readers.classes import hard_labels, soft_labels
    from .readers.collating import collate
    from .readers.crops import CenterCrop, RandomResizedCrop, Resize
    from .readers.losses import soft_cross_entropy
    from .readers.mixing import CutMix, Mixup
    from .readers.on_image import on_image
    from .readers.opening import Release, Store
    from .readers.opening import open_label_store as open  # noqa: A004  read as `relabel.open`
    from .readers.pooling import label_pooling
    from .readers.state import stream_states
    from .readers.tally import JoinWarning, Report
    from .readers.weights import sample_weight
    from .statistics.statistic import Statistic

PLACES = {
    "labelers.labeler": ("Batch", "Fields", "Labeler", "Labels", "Parameters", "Prepared"),
    "labelers.registry": ("register",),
    "labels.contract": ("LabelContract",),
    "labels.kinds": ("classes", "scores", "text"),
    "readers.adapters": ("adapt",),
    "readers.captions": ("caption_mix",),
    "readers.classes": ("hard_labels", "soft_labels"),
    "readers.collating": ("collate",),
    "readers.crops": ("CenterCrop", "RandomResizedCrop", "Resize"),
    "readers.losses": ("soft_cross_entropy",),
    "readers.mixing": ("CutMix", "Mixup"),
    "readers.on_image": ("on_image",),
    "readers.opening": ("Release", "Store", "open"),
    "readers.pooling": ("label_pooling",),
    "readers.state": ("stream_states",),
    "readers.tally": ("JoinWarning", "Report"),
    "readers.weights": ("sample_weight",),
    "statistics.statistic": ("Statistic",),
}
"""Module -> the public names that lie there, `open` as `open_label_store`: the imports above, as a test checks."""
MODULES = {name: module for module, names in PLACES.items() for name in names}

__all__ = [
    "Batch", "CenterCrop", "CutMix", "Fields", "JoinWarning", "LabelContract", "Labeler", "Labels", "Mixup",
    "Parameters", "Prepared", "RandomResizedCrop", "Release", "Report", "Resize", "Statistic", "Store", "__version__",
    "adapt", "caption_mix", "classes", "collate", "errors", "hard_labels", "label_pooling", "on_image", "open",
    "register", "sample_weight", "scores", "soft_cross_entropy", "soft_labels", "stream_states", "text",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{MODULES[name]}", __name__)
    globals()[name] = found = getattr(module, "open_label_store" if name == "open" else name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})
