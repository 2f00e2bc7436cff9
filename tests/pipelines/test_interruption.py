"""Killing the driver, or Ctrl-C: running again ends in the release of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases_of_photos import open_release, shas

from pipelines import run
from pipelines.leasing import IfBusy
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify
from relabel.storage.opening import open_store

Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.slow


def start(recipe: Path, root: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)])}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run", str(recipe), "--json", *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(recipe: Path, root: Path, by: str) -> dict[str, Any]:
    """Running again, by the same command or from Python on another Ray; one that was killed held the store."""
    if by == "python":
        return dict(run(recipe, if_busy=IfBusy.WAIT).to_json())
    process = start(recipe, root, "--if-busy", "wait")
    out, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def wait_for_an_object(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not objects_below(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def written(recipe: Make, tmp_path: Path) -> Path:
    """A recipe file that leaves parts and label shards at many moments."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(resources={"actors": 1, "part_rows": 2, "readers": 1, "lease_seconds": 3})))
    return path


def objects_below(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def stop(process: subprocess.Popen[str], how: signal.Signals) -> None:
    """Ends as such a signal should end a run."""
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    if how != signal.SIGKILL:
        assert process.returncode == 1
        assert "Nothing is lost" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("stops", "by"),
    [
        ([(signal.SIGKILL, "parts"), (signal.SIGTERM, "receipts")], "python"),
        pytest.param([(signal.SIGKILL, "receipts")], "command", marks=pytest.mark.long),
        pytest.param([(signal.SIGINT, "receipts")], "python", marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_stopped_ends_like_an_undisturbed_one(
    written: Path, photo_labels: Path, root: Path, tmp_path: Path, stops: list[tuple[signal.Signals, str]], by: str
) -> None:
    """Stopped once, or when it went on a second time."""
    store = tmp_path / "store"
    for how, after in stops:
        process = start(written, root, "--if-busy", "wait")
        wait_for_an_object(store / after, process)
        stop(process, how)
        assert open_label_store(str(store)).history() == []

    again = finished(written, root, by)
    assert again["published"]
    assert again["done"] + again["labelled"] == 5
    assert again["done"] or again["reused_parts"]
    assert objects_below(store / "parts") == 0

    undisturbed = open_release(str(photo_labels))
    assert again["content_digest"] == undisturbed.content_digest
    assert shas(open_release(str(store))) == shas(undisturbed)
    assert verify(open_store(str(store)), "latest", "full").problems == []
