"""A full store, a full folder of Ray's, a full object store: what is full and what to do, and then the run goes on."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import ObjectStoreFullError, OutOfDiskError
from small_disk import SmallDisk, mount_small_disk

from pipelines import run
from pipelines.leasing import IfBusy
from pipelines.ray_errors import ray_errors
from relabel.errors import RelabelError, StorageError
from relabel.storage.opening import open_store

Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.long


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> SmallDisk:
    """Under a short name: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="small", dir="/tmp"))
    request.addfinalizer(folder.rmdir)
    return mount_small_disk(folder / "disk", request.addfinalizer)


def command(recipe: dict[str, Any], folder: Path, root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`run` in a process of its own: one that failed is not to be used again."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    paths = os.pathsep.join([str(root / "operators"), str(root)])
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "run", str(path)],
        cwd=root, env={**os.environ, "PYTHONPATH": paths, **variables},
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("ray_cluster")
def test_a_store_that_gets_full_while_workers_write(recipe: Make, disk: SmallDisk, root: Path, tmp_path: Path) -> None:
    here = recipe(store=str(disk.folder / "store"), resources={"actors": 1, "lease_seconds": 6})
    disk.leave_bytes(12)
    ended = command(here, tmp_path, root)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "is full" in ended.stderr
    assert "Free some space and run again" in ended.stderr
    assert list(open_store(str(disk.folder / "store")).list("versions")) == []
    disk.make_room()
    again = run(here, if_busy=IfBusy.WAIT).release  # the word that the first one has ended may have found no room
    undisturbed = run(recipe(store=str(tmp_path / "undisturbed"))).release
    assert again is not None
    assert undisturbed is not None
    assert again.content_digest == undisturbed.content_digest


def test_ray_cannot_start_where_its_folder_is_full(recipe: Make, disk: SmallDisk, root: Path, tmp_path: Path) -> None:
    disk.leave_bytes(12)
    ended = command(recipe(), tmp_path, root, RAY_TMPDIR=str(disk.folder))
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
