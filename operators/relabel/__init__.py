"""relabel: label releases for data sets: made by pipelines, read by training jobs.

`relabel.open(url)` reads a store back. Operators are written against `Labeler` and made known by `register`;
`relabel.testing.check_labeler` proves that one keeps the rules.
"""

from . import errors
from .about import __version__
from .labelers.labeler import Batch, Fields, Labeler, Labels, Parameters, Prepared
from .labelers.registry import register
from .labels.contract import LabelContract
from .labels.kinds import classes, scores, text
from .releases.release import Release, Store
from .releases.release import open_label_store as open  # noqa: A004  read as `relabel.open`

__all__ = [
    "Batch", "Fields", "LabelContract", "Labeler", "Labels", "Parameters", "Prepared", "Release", "Store",
    "__version__", "classes", "errors", "open", "register", "scores", "text",
]  # fmt: skip
