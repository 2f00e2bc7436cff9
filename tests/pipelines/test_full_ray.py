"""A full store, a full folder of Ray's, a full object store: what is full and what to do, and then the run goes on."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import ObjectStoreFullError, OutOfDiskError
from small_disk import SmallDisk, mount_small_disk

from pipelines import run
from pipelines.running import ray_errors
from relabel.errors import RelabelError, StorageError
from relabel.storage.opening import open_store

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> SmallDisk:
    return mount_small_disk(tmp_path / "disk", request.addfinalizer)


@pytest.mark.usefixtures("ray_cluster")
def test_a_store_that_gets_full_while_workers_write(recipe: Make, disk: SmallDisk, tmp_path: Path) -> None:
    disk.leave_bytes(12)
    here = recipe(store=str(disk.folder / "store"))
    with pytest.raises(StorageError, match="is full.*Free some space and run again"):
        run(here)
    assert list(open_store(str(disk.folder / "store")).list("versions")) == []
    disk.make_room()
    again, undisturbed = run(here).release, run(recipe(store=str(tmp_path / "undisturbed"))).release
    assert again is not None
    assert undisturbed is not None
    assert again.content_digest == undisturbed.content_digest


def test_ray_cannot_start_where_its_folder_is_full(recipe: Make, disk: SmallDisk, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe()))
    disk.leave_bytes(12)
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)]),
        "RAY_TMPDIR": str(disk.folder),
    }  # fmt: skip
    words = [sys.executable, "-m", "pipelines", "run", str(path)]
    ended = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(disk.folder / "ray") in ended.stderr
    assert "set RAY_TMPDIR" in ended.stderr
    assert not (tmp_path / "store" / "versions").exists()


@pytest.mark.parametrize("full", [OutOfDiskError, ObjectStoreFullError])
def test_an_object_store_without_room_says_what_to_do(full: type[Exception]) -> None:
    with pytest.raises(StorageError, match="set RAY_TMPDIR") as raised, ray_errors():
        raise full("full")
    assert raised.value.exit_code == RelabelError.exit_code == 1
