"""The local Ray: its workers have what they need by inheritance, and only a plugin from elsewhere has to travel."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines import cluster
from pipelines.recipe import Resources
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
