"""Shared fixtures: one Ray for all tests that need one, the labelled photos, the demo's shards."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from relabel.testing.servers import S3Server

# Before anything imports Ray or transformers.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# As `pipelines.cluster` does: else most of a test's time is workers that import everything once more.
os.environ["RAY_idle_worker_killing_time_threshold_ms"] = "600000"  # noqa: SIM112
if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes share the cores: threads of one torch would wait for those of another, several times as long as
    # one thread takes for all of it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["relabel.testing.fixtures"]

ROOT = Path(__file__).parent.parent

# Two shared cores make timing a poor judge; the same examples on every machine make a failure repeatable.
hypothesis.settings.register_profile("relabel", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("relabel")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: one that comes last keeps one of the workers while the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def ray_cluster(seaweed: S3Server) -> Iterator[None]:
    """A local Ray of eight logical CPUs, shared by every test; its workers import this checkout, the plugins that lie
    in tests/pipelines, and reach `seaweed`.
    """
    import ray

    from pipelines.cluster import inherited

    # Ray's socket paths must be short.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    paths = os.pathsep.join([str(ROOT / "operators"), str(ROOT), str(ROOT / "tests" / "pipelines")])
    with inherited({"PYTHONPATH": paths, **seaweed.environment}):
        ray.init(
            "local",
            num_cpus=8,
            include_dashboard=False,
            object_store_memory=400 * 2**20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Only the built-in labelers before and after; calling it makes this process as new as to plugins."""
    from relabel.labelers import plugins, registry

    registry.load_built_in()
    before, seen, places = registry.registered(), dict(plugins._seen), dict(plugins._places)
    modules = {name: sys.modules[name] for name in seen if name in sys.modules}
    built_in = [cls for cls in before if cls.__module__.startswith("relabel.")]

    def forget() -> None:
        for name in plugins._seen:
            if not name.startswith("relabel."):
                sys.modules.pop(name, None)
        plugins._seen.clear()
        plugins._places.clear()
        registry.restore(built_in)

    # A file that is edited within a second would be run from its cached bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # The test of the plugin repository has put its folder where modules are found.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("plugins/brightness")])
    monkeypatch.delitem(sys.modules, "brightness", raising=False)
    forget()
    yield forget
    forget()
    registry.restore(before)
    sys.modules.update(modules)
    plugins._seen.update(seen)
    plugins._places.update(places)


@pytest.fixture(scope="session")
def photos() -> list[tuple[bytes, int]]:
    """The 20 ImageNet photos of foolbox as (JPEG bytes, class index)."""
    from pipelines.demo import PHOTOS

    return [(photo.read(), photo.label) for photo in PHOTOS if photo.label is not None]


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo's WebDataset shards; not to be written to."""
    from pipelines.demo import build_demo_shards

    return build_demo_shards(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a segmentation model that has just learned to tell red from blue (see two_colours)."""
    from two_colours import save_segmenter

    return save_segmenter(tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's real weights, made once of the package's file, then kept in pytest's cache."""
    from pipelines.demo_text import language_model

    cache = getattr(request.config, "cache", None)
    return language_model((tmp_path_factory.mktemp("models") if cache is None else cache.mkdir("models")) / "smollm2")
