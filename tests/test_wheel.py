"""The wheel: holds every module, and alone in an empty environment reads a release without Ray and torch."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relabel.digests import sample_digest
from relabel.labels.contract import Classes, Geometry
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.commit import Draft, commit
from relabel.releases.receipts import Receipt, keys_digest
from relabel.releases.release import open_label_store
from relabel.releases.stored import stored
from relabel.releases.versions import LabelIdentity
from relabel.storage.opening import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

READ = """
    import importlib.util, sys
    import relabel

    release = relabel.open(sys.argv[1]).release("latest")
    found = release.get("a.tar", "one")["label_map"]
    print(release.counts.ok, found.ids.shape, found.probabilities().argmax(-1).tolist())
    print([name for name in ("ray", "torch", "PIL", "yaml") if importlib.util.find_spec(name)])
"""


STEPS = "steps=[label_map: {model: efficientnet-lite0, input_size: 320}, brightness]"
SAME_CLASS = """
    import brightness, relabel
    from relabel.labelers import registry

    assert registry.labelers()["brightness"] is brightness.Brightness
    assert issubclass(brightness.Brightness, relabel.Labeler)
"""


def publish_small_release(folder: Path) -> None:
    """One shard of two samples with 2x3 label maps over four classes; the most probable are 0 1 2 / 3 0 1."""
    classes = Classes(digest="0" * 64, count=4)
    geometry = Geometry(size=96, interpolation="bilinear", orientation="exif")
    contract = label_map_contract("label_map", classes, (2, 3), 2, geometry)
    logits = np.zeros((2, 4, 6), np.float32)
    logits[:, np.arange(6) % 4, np.arange(6)] = 5.0
    arrays = encode(logits.reshape(2, 4, 2, 3), 2)
    size = np.array([64, 64], np.int32)
    columns = {f"label_map_{name}": array for name, array in {**arrays, "height": size, "width": size}.items()}
    keys = ["one", "two"]
    table = label_table(
        label_schema([contract], {"label_map": "1" * 64}), keys, [sample_digest(key.encode()) for key in keys],
        ["ok", "ok"], [None, None], columns,
    )  # fmt: skip
    objects = open_store(str(folder))
    data = encode_label_shard(table)
    objects.put("data/run/a.parquet", data)
    receipt = Receipt(
        shard="a.tar", size=1, etag="1", token="2" * 64, content_sha256="3" * 64, fingerprint="4" * 64, generation=0,
        status="ok", reason="", detail="", rows=2, ok=2, dead=0, filtered=0, reasons={}, keys_sha256=keys_digest(keys),
        data=stored("data/run/a.parquet", data), dead_letters=None, numerics={}, run_id="run", attempt="5" * 32,
    )  # fmt: skip
    label = LabelIdentity(operator="label_map", version=1, fingerprint="1" * 64, identity={}, contract=contract)
    commit(objects, Draft("run", 0, {"label_map": label}, [receipt], num_source_shards=1))


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree: a stale build folder would leak deleted modules into it."""
    copy = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("operators", "pipelines"):
        shutil.copytree(root / folder, copy / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, copy / file)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    run(build, copy)
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare_python(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and its base dependencies."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", "--no-compile", "--constraint", str(root / "constraints.txt"), str(wheel)], folder)
    return python


def run(command: list[str], cwd: Path, python_path: str | None = None) -> str:
    """What a command prints that must not see this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path:
        environment["PYTHONPATH"] = python_path
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_the_wheel_holds_every_module_and_recipe(wheel: Path, root: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    library, programs = root / "operators" / "relabel", root / "pipelines"
    expected = {f"relabel/{path.relative_to(library).as_posix()}" for path in library.rglob("*.py")}
    expected |= {f"relabel/pipelines/{path.relative_to(programs).as_posix()}" for path in programs.rglob("*.py")}
    expected |= {f"relabel/pipelines/{path.relative_to(programs).as_posix()}" for path in programs.rglob("*.yaml")}
    assert held == expected | {"relabel/py.typed", "relabel/pipelines/report.html"}


def test_the_wheel_alone_reads_a_release(bare_python: Path, tmp_path: Path) -> None:
    publish_small_release(tmp_path / "store")
    out = run([str(bare_python), "-c", textwrap.dedent(READ), str(tmp_path / "store")], cwd=tmp_path)
    assert out.splitlines() == ["2 (2, 3, 2) [[0, 1, 2], [3, 0, 1]]", "[]"]


def test_its_command_reads_and_verifies_a_release_without_ray(bare_python: Path, tmp_path: Path) -> None:
    publish_small_release(tmp_path / "store")
    relabel = str(bare_python.parent / "relabel")
    assert "release" in run([relabel, "log", str(tmp_path / "store")], cwd=tmp_path)
    run([relabel, "verify", str(tmp_path / "store"), "--level", "full"], cwd=tmp_path)


def test_with_run_and_a_plugin_of_another_repository_it_labels_from_any_directory(
    wheel: Path, root: Path, demo_shards: Path, tmp_path: Path
) -> None:
    """Installed side by side, far from this checkout: one registry, the same class, and a run by its entry point. The
    packages of `[run]` are those of this session; relabel itself comes from the wheel.
    """
    site, repository = tmp_path / "site", tmp_path / "repository"
    shutil.copytree(root / "tests" / "plugins" / "brightness", repository, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run([*pip, f"--target={site}", str(wheel), str(repository)], tmp_path)
    run([sys.executable, "-c", textwrap.dedent(SAME_CLASS)], tmp_path, str(site))
    where = [sys.executable, "-c", "import relabel.pipelines; print(relabel.pipelines.__file__)"]
    assert run(where, tmp_path, str(site)).strip() == str(site / "relabel" / "pipelines" / "__init__.py")
    command = [sys.executable, "-m", "relabel.pipelines.command_line"]
    labels = tmp_path / "labels"
    settings = [f"source.path={demo_shards}/photos-004.tar", f"store={labels}", STEPS]
    options = [word for setting in settings for word in ("--set", setting)]
    found = json.loads(run([*command, "run", "label_map", *options, "--json"], tmp_path, str(site)))
    assert (found["labelled"], found["ok"], found["published"]) == (1, 5, True)
    assert open_label_store(str(labels)).release().labels.keys() == {"label_map", "brightness"}
    run([*command, "verify", str(labels), "--level", "full"], tmp_path, str(site))
