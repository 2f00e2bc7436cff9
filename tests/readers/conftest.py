"""Sources and releases that the tests of readers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelled_shards import Publisher, write_tars

import relabel

SIZES = (10, 3, 23, 1, 14)
"""Samples per shard."""


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[bytes, int]]) -> Path:
    """A folder of five small shards, 51 samples; not to be written to."""
    folder = tmp_path_factory.mktemp("tars")
    write_tars(str(folder), photos, SIZES)
    return folder


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., relabel.Release]:
    """`publish(path, **fields of Publisher)`: the release of a source in a store of its own."""

    def make(path: Any, store: str = "store", source: Any = None, **fields: Any) -> relabel.Release:
        return Publisher(str(tmp_path / store), {"path": str(path), **(source or {})}, **fields).publish()

    return make


@pytest.fixture(scope="session")
def labelled_tars(tmp_path_factory: pytest.TempPathFactory, tars: Path) -> Path:
    """The store of a release of `tars`, every sample labelled; not to be written to."""
    store = tmp_path_factory.mktemp("labelled") / "store"
    Publisher(str(store), {"path": str(tars / "*.tar")}).publish()
    return store


@pytest.fixture
def release(labelled_tars: Path) -> relabel.Release:
    """Of `tars`, every sample labelled."""
    return relabel.open(labelled_tars).release()
