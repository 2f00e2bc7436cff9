"""Submit, on a real head with its job server: every end has its exit code, and leaves a store that goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_head import RayHead, code_as_wheel

from relabel.releases.leases import holders
from relabel.releases.verify import verify
from relabel.storage.opening import open_store
from relabel.testing.servers import free_ports

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
SHARDS = 3

Submit = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def ray_head() -> Iterator[RayHead]:
    head = RayHead()
    try:
        head.start()
        yield head
    finally:
        head.close()


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_as_wheel(root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a recipe, its plugin beside it, and texts on a file system that the head sees, too."""
    for shard in range(SHARDS):
        lines = [json.dumps({"text": f"text {shard} {row}"}) for row in range(4)]
        (tmp_path / f"texts-{shard}.jsonl").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("held_text.py"), folder)
    (folder / "recipe.yaml").write_text(
        f"name: texts\nsource: {{path: {tmp_path}/texts-*.jsonl}}\nplugins: [held_text.py]\n"
        f"steps: [held_text: {{hold: {tmp_path}/hold}}]\nstore: {tmp_path}/store\n"
        "resources: {actors: 1, readers: 1, lease_seconds: 6}\ngate: {singly: 0, replay: 0}\n"
    )
    return folder


@pytest.fixture
def submit(project: Path, ray_head: RayHead, wheel: Path, root: Path) -> Submit:
    """The command, typed in the project's folder."""

    def start(*arguments: str, environment: dict[str, str] | None = None, address: str = ray_head.address) -> Any:
        after = list(arguments)
        options = ["submit", "recipe.yaml", "--address", address, "--wheel", str(wheel)]
        path = os.pathsep.join([str(root / "operators"), str(root)])
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", *options, *after], cwd=project, stdin=subprocess.DEVNULL, text=True,
            env={**ray_head.environment, "PYTHONPATH": path, **(environment or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def ended(process: "subprocess.Popen[str]", code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, f"{process.returncode}\n{out[-3000:]}\n{err[-3000:]}"
    assert "Traceback" not in err
    return out, err


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def receipts(project: Path) -> int:
    return sum(1 for path in (project.parent / "store" / "receipts").rglob("*") if path.is_file())


def check_store(project: Path, releases: int) -> None:
    """As many releases, all good, and nobody at work."""
    objects = open_store(str(project.parent / "store"))
    assert [holder.lease.run_id for holder in holders(objects)] == []
    versions = [json.loads(path.read_text()) for path in (project.parent / "store" / "versions").glob("v*.json")]
    assert sum(version.get("kind") != "fence" for version in versions) == releases
    if releases:
        assert verify(objects, "latest", "full").problems == []


def test_success_and_again(submit: Submit, project: Path) -> None:
    out, _ = ended(submit("--follow"), 0)
    assert "files     held_text.py, recipe.yaml" in out
    assert "published release 1" in out
    check_store(project, 1)
    again, _ = ended(submit("--follow"), 0)
    assert "nothing to do: release 1" in again
    first, second = (text.split("submitted ", 1)[1].split()[0] for text in (out, again))
    assert second == f"{first}-2"


def test_failure_comes_through(submit: Submit, project: Path) -> None:
    out, err = ended(submit("--follow", "--json", "--set", "held_text.broken=true", "--set", "dead_letters.allow=0"), 4)
    told = json.loads(out)
    assert (told["status"], told["exit_code"]) == ("FAILED", 4)
    assert "dead" in err
    check_store(project, 0)


def test_a_second_submission_attaches_and_a_stop_leaves_the_store_clean(submit: Submit, project: Path) -> None:
    hold = project.parent / "hold"
    hold.touch()
    first = submit("--follow")
    wait_for(lambda: receipts(project) >= 1, first)
    told = json.loads(ended(submit("--json"), 0)[0])
    assert told["attached"]
    stopped, _ = ended(submit("--stop"), 0)
    assert told["job"] in stopped
    hold.unlink()
    out, err = ended(first, 1)
    assert told["job"] in out
    assert "STOPPED" in err
    check_store(project, 0)
    _, err = ended(submit("--stop"), 2)
    assert "no job of this recipe" in err
    out, _ = ended(submit("--follow"), 0)
    assert f"{SHARDS} shards" in out
    check_store(project, 1)


def test_an_interrupted_follower_stops_its_job(submit: Submit, project: Path) -> None:
    """Without a terminal nobody can be asked: who ends the command means the work."""
    hold = project.parent / "hold"
    hold.touch()
    follower = submit("--follow")
    wait_for(lambda: receipts(project) >= 1, follower)
    follower.send_signal(signal.SIGTERM)
    time.sleep(1)
    hold.unlink()
    _, err = ended(follower, 1)
    assert "asked the job" in err
    check_store(project, 0)


def test_a_head_that_is_started_anew_has_lost_the_job(submit: Submit, project: Path, ray_head: RayHead) -> None:
    hold = project.parent / "hold"
    hold.touch()
    follower = submit("--follow")
    wait_for(lambda: receipts(project) >= 1, follower)
    ray_head.stop()
    ray_head.start()
    _, err = ended(follower, 1)
    assert "Waiting for up to" in err
    assert "no longer knows the job" in err
    hold.unlink()
    out, _ = ended(submit("--follow", "--if-busy", "wait"), 0)
    assert "published release 2" in out, "the fence of the takeover has number 1"
    check_store(project, 1)


def test_without_the_token_nobody_submits(submit: Submit) -> None:
    _, err = ended(submit(environment={"RAY_AUTH_TOKEN": "f" * 32}), 2)
    assert "RAY_AUTH_TOKEN" in err


def test_a_head_that_is_not_there(submit: Submit) -> None:
    _, err = ended(submit(address=f"http://127.0.0.1:{free_ports(1)[0]}"), 1)
    assert "does not answer" in err
    _, err = ended(submit("--limit", "2", "--command", "nightly"), 2)
    assert "--limit is an option of `run`" in err
    _, err = ended(submit(address="auto"), 2)
    assert "relabel run RECIPE --address auto" in err
