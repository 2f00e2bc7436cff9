"""Recipes over real photographs, small enough to run many times on one Ray."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import photo_recipe
from trial_labelers import Lightness, Tone

from relabel.labelers import registry

Recipe = dict[str, Any]


@pytest.fixture
def recipe(tmp_path: Path, demo_shards: Path) -> Callable[..., Recipe]:
    """`recipe(**sections)`: label maps of 64 px inputs (2 x 2 cells) of the demo's shards into a fresh store."""

    def make(**sections: Any) -> Recipe:
        return photo_recipe(demo_shards, **{"store": str(tmp_path / "store"), **sections})

    return make


@pytest.fixture(scope="session")
def photo_labels(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The store of one run of `recipe()`, release 1; not to be written to."""
    from pipelines import run

    store = tmp_path_factory.mktemp("photo_labels") / "store"
    assert run(photo_recipe(demo_shards, str(store))).published
    return store


@pytest.fixture
def labelled(recipe: Callable[..., Recipe], photo_labels: Path) -> Callable[..., Recipe]:
    """As `recipe`, but its store is a copy of `photo_labels`: one in which such a run has ended."""

    def make(**sections: Any) -> Recipe:
        made = recipe(**sections)
        shutil.copytree(photo_labels, made["store"])
        return made

    return make


@pytest.fixture
def other_kinds() -> Iterator[None]:
    """The labelers of `trial_labelers` are known."""
    before = registry.registered()
    registry.register(Lightness)
    registry.register(Tone)
    yield
    registry.restore(before)
