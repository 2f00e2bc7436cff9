"""The local Ray: its workers have what they need by inheritance, and only a plugin from elsewhere has to travel."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines import cluster, graph
from pipelines.recipe import Resources
from relabel.errors import StorageError, UsageError
from relabel.labelers.provenance import SCRIPT


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was started with, and the environment that its processes would inherit."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **options: seen.append({**options, "environ": {**os.environ}}))
    return seen


def test_workers_inherit_this_code_and_the_allocator(started: list[dict[str, Any]], root: Path) -> None:
    before = {**os.environ}
    cluster.start_local(Resources(), 1)
    assert {**os.environ} == before
    [options] = started
    assert options["runtime_env"] is None
    assert options["environ"]["PYTHONPATH"].split(os.pathsep)[:2] == [str(root / "operators"), str(root)]
    assert cluster.ALLOCATOR.items() <= options["environ"].items()


def test_only_a_plugin_from_elsewhere_travels(
    started: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("far", "near"):
        module = ModuleType(f"{name}_labelers")
        module.__file__ = str(tmp_path / name / f"{name}_labelers.py")
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "near"))
    cluster.start_local(Resources(), 1, ["near_labelers", SCRIPT])
    cluster.start_local(Resources(), 1, ["near_labelers", "far_labelers"])
    [none, some] = started
    assert none["runtime_env"] is None
    assert [module.__name__ for module in some["runtime_env"]["py_modules"]] == ["far_labelers"]


AHEAD = """
import sys, time
import ray
from pipelines import graph
from pipelines.cluster import Session
from pipelines.recipe import Resources

unused = Session(Resources(), 1)
unused.start_ahead(graph.imports)
unused.close()
print("closed", ray.is_initialized(), file=sys.stderr)

session = Session(Resources(), 1)
session.start_ahead(graph.imports)
print("what Ray says of a node")
with session.connected():
    has = ray.remote(lambda: "pipelines.graph" in __import__("sys").modules)
    begun = time.monotonic()
    while not any(ray.get([has.remote() for _ in range(4)])):
        assert time.monotonic() - begun < 60
        time.sleep(0.5)
print("warm", file=sys.stderr)
session.close()
print("answer")
print("ended", ray.is_initialized(), file=sys.stderr)
"""


def test_a_ray_that_starts_ahead_lives_as_long_as_it_is_needed(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{root / 'operators'}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if line.startswith(("closed", "warm", "ended"))]
    assert done.stdout == "answer\n"
    assert told == ["closed False", "warm", "ended False"], done.stderr[-2000:]


def test_a_ray_that_cannot_start_ahead_says_so_once_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise StorageError("the disk of its folder is full")

    monkeypatch.setattr(cluster, "require_room", full)
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None))
    session = cluster.Session(Resources(), 1)
    session.start_ahead(graph.imports)
    with pytest.raises(StorageError, match="its folder is full"), session.connected():
        raise AssertionError("there is no Ray")


def test_an_address_of_rays_client_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Ray's client \(ray://head:10001\). Submit the recipe as a job"):
        cluster.Session(Resources(), 1, "ray://head:10001")
