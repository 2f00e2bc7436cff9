"""Opening: `relabel.open`: stores whose releases are read by training jobs."""

import importlib.util
import os
from collections.abc import Iterable
from typing import Any

from ..digests import Json
from ..releases import release as releases
from ..releases.release import RecallPolicy
from ..storage.opening import open_store
from .attaching import attach
from .dataset import Samples
from .indexed import Indexed
from .media import Paths
from .options import options_of
from .samples import Transforms
from .wanted import Columns, wanted


class Release(releases.Release):
    """One immutable release, with the media that it labels."""

    def dataset(
        self, source: Paths = None, columns: Columns = None, transform: Transforms = None, **options: Any
    ) -> Any:
        """An iterable dataset (see `dataset.Samples`) of the release's samples: media, old labels, new labels.

        `source`: where the media lie, as a recipe says it, or the folder that stands for the labelled source's root;
        default: where they were labelled. `columns`: names of labels; or a mapping of the name in the sample to the
        label's name, or to (another release, its label's name); default: all of this release. `transform`: called
        with every sample, or a list of such, in order. `options`: see `readers.options.Options`.

        A sample is a dict: `__key__`, `__shard__`, the source's fields, `image` (a PIL image, not decoded yet) and the
        labels, as `get` gives them. Raises UsageError and Refused where these do not fit together.
        """
        chosen = wanted(self, columns)
        if importlib.util.find_spec("torch") is None:
            return Samples(chosen, source, transform, options_of(options))
        from .torch_dataset import TorchSamples

        return TorchSamples(chosen, source, transform, options_of(options))

    def indexed(
        self, source: Paths = None, columns: Columns = None, transform: Transforms = None, **options: Any
    ) -> Any:
        """The same samples by number (see `indexed.Indexed`), 0 to len - 1; arguments as for `dataset`.

        A shard of tar is scanned once for its headers when the first of its samples is asked for.
        """
        return Indexed(wanted(self, columns), source, transform, options_of(options))

    def attach(
        self, pipeline: Iterable[Any], columns: Columns = None, transform: Transforms = None, **options: Any
    ) -> Any:
        """A webdataset pipeline (or any iterable of dicts with `__key__` and `__url__`) with labels in its samples.

        To be attached before images are decoded (`.decode("pil", partial=True)` leaves labels alone), for samples are
        compared by their bytes where their shard is not the labelled one. `options`: on_missing, on_extra, on_mismatch,
        check, storage_options. What `report()` counts as missing are labelled rows of shards that came of which no
        sample had come when the pipeline ended.
        """
        return attach(self, pipeline, columns, transform, options)


class Store(releases.Store):
    """A store whose format this package reads."""

    release_type = Release

    def release(
        self, selector: int | str = "latest", accept_partial: bool = False, recalled: RecallPolicy = "warn"
    ) -> Release:
        """See `releases.release.Store.release`."""
        found = super().release(selector, accept_partial, recalled)
        assert isinstance(found, Release)
        return found


def open_label_store(url: str | os.PathLike[str], **options: Json) -> Store:
    """The store at a path or URL; `options` are fsspec's (see `storage.filesystems.resolve`).

    Raises UsageError where there is no store, Refused where its format is newer than this package.
    """
    return Store(open_store(os.fspath(url), options))
