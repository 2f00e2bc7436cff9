"""relabel: label releases for data sets: made by pipelines, read by training jobs.

`relabel.open(url)` reads a store back. Operators are written against `Labeler` and made known by `register`.
"""

from . import errors
from .about import __version__
from .labelers.labeler import Labeler, Parameters
from .labelers.registry import register
from .releases.release import Release, Store
from .releases.release import open_label_store as open  # noqa: A004  read as `relabel.open`

__all__ = ["Labeler", "Parameters", "Release", "Store", "__version__", "errors", "open", "register"]
