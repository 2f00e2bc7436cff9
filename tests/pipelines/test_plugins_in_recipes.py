"""Plugins in recipes: planned, recorded and refused with their sources, and the same class on workers elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.cluster import require_plugins
from pipelines.command_line import main
from pipelines.job import Job
from pipelines.loading import load
from pipelines.plan import differences, make_job, plan
from relabel.errors import Refused, UsageError
from relabel.releases.operators import claim_source, record_path
from relabel.storage.opening import open_store

Forget = Callable[[], None]
SAME_CLASS = """
import brightness
from relabel.labelers import registry
assert registry.labelers()["brightness"] is brightness.Brightness
"""


@pytest.fixture
def recipe(tmp_path: Path, root: Path, demo_shards: Path) -> Path:
    """Brightness of the demo's shards, by a plugin beside the recipe."""
    shutil.copy(root / "tests" / "plugins" / "brightness" / "brightness.py", tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({
        "source": {"path": f"{demo_shards}/*.tar"},
        "plugins": ["brightness.py"],
        "steps": [{"brightness": {"size": 16}, "as": "light"}],
        "store": str(tmp_path / "labels"),
        "resources": {"actors": 2},
    }))  # fmt: skip
    return path


def edit(recipe: Path, before: str, after: str) -> None:
    path = recipe.with_name("brightness.py")
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def claimed(recipe: Path) -> Job:
    """The job of a run that has begun, and may have ended anywhere."""
    job = make_job(load(recipe))
    for own in job.own_labelers:
        claim_source(job.open_store(), own.name, own.version, own.source)
    return job


def test_a_job_knows_what_its_workers_need(recipe: Path, forget_plugins: Forget) -> None:
    job = make_job(load(recipe))
    assert job.plugins == ("brightness",)
    identity = job.describe_labels()["light"].identity
    assert identity["parameters"] == {"size": 16}
    assert list(identity["source"]["files"]) == ["brightness.py"]
    built_in = {"label_map": {"model": "efficientnet-lite0", "input_size": 64}}
    assert make_job(load({**yaml.safe_load(recipe.read_text()), "plugins": [], "steps": [built_in]})).plugins == ()


def test_an_edit_without_a_new_version_is_refused_and_the_file_named(
    recipe: Path, forget_plugins: Forget, capsys: pytest.CaptureFixture[str]
) -> None:
    claimed(recipe)
    forget_plugins()
    edit(recipe, "/ 255", "/ 256")
    with pytest.raises(Refused, match=r"brightness version 1 is not what it was .*: brightness\.py was edited"):
        plan(make_job(load(recipe)))
    for command in ("plan", "run"):
        assert main([command, str(recipe)]) == 3
        assert "brightness.py was edited. Set `version = 2`" in capsys.readouterr().err


def test_a_new_version_recomputes_and_says_why(recipe: Path, forget_plugins: Forget) -> None:
    job = claimed(recipe)
    before = job.describe_labels()["light"]
    forget_plugins()
    edit(recipe, "/ 255", "/ 256")
    edit(recipe, '"brightness", 1', '"brightness", 2')
    changed = claimed(recipe)
    assert len(plan(changed).todo) == 5
    store = open_store(str(recipe.with_name("labels")))
    assert store.exists(record_path("brightness", 1))
    assert store.exists(record_path("brightness", 2))
    assert changed.fingerprint != job.fingerprint
    old, new = (side.model_dump(mode="json") for side in (before, changed.describe_labels()["light"]))
    why = differences(old, new)
    assert [line.partition(":")[0] for line in why] == ["source.files.brightness.py", "version"]
    assert why[1] == "version: 1 -> 2"


def test_other_line_endings_are_no_edit(recipe: Path, forget_plugins: Forget) -> None:
    job = claimed(recipe)
    forget_plugins()
    path = recipe.with_name("brightness.py")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert make_job(load(recipe)).fingerprint == job.fingerprint
    assert len(plan(make_job(load(recipe))).todo) == 5


@pytest.mark.usefixtures("ray_cluster")
def test_a_ray_that_was_started_without_the_plugin_is_told(recipe: Path, forget_plugins: Forget) -> None:
    job = make_job(load(recipe))
    with pytest.raises(UsageError, match=r"started without the plugins of the recipe, and cannot import 'brightness'"):
        require_plugins(job.plugins)
    require_plugins(["relabel"])


def test_an_installed_plugin_needs_no_word_in_the_recipe(recipe: Path, root: Path, tmp_path: Path) -> None:
    """From the checkout: the plugin is found by its entry point. A run with it is in tests/test_wheel.py."""
    repository, site = tmp_path / "repository", tmp_path / "site"
    shutil.copytree(root / "tests" / "plugins" / "brightness", repository, ignore=shutil.ignore_patterns("__pycache__"))
    recipe.with_name("brightness.py").unlink()
    paths = [str(root / "operators"), str(root), str(site)]
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", f"--target={site}"]
    for arguments in (
        [*pip, str(repository)],
        ["-c", SAME_CLASS],
        ["-m", "pipelines", "try", str(recipe), "--set", "plugins=[]", "--limit", "26", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True, text=True, timeout=840, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["labelled"] == 26


@pytest.mark.slow
def test_nodes_that_do_not_know_the_plugin_run_the_same_class(recipe: Path, root: Path, forget_plugins: Forget) -> None:
    fingerprint = make_job(load(recipe)).label_fingerprints["light"]
    paths = os.pathsep.join([str(root / "operators"), str(root)])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py")), str(recipe)],
        cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=840, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["known_before"] == [False, False]
    assert found["run"] == [5, 26, True]
    assert len(found["workers"]) == 2
    for worker in found["workers"]:
        assert worker["same_class"]
        assert worker["module"] == "brightness"
        assert worker["file"] != str(recipe.with_name("brightness.py"))
        assert worker["fingerprint"] == fingerprint
