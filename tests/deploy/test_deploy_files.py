"""The files of deploy/ that are written by hand: images, cluster file, timers, Slurm; each by its own linter."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

DOCKERFILES = ("cpu.Dockerfile", "gpu.Dockerfile")
BIN = Path(sys.executable).parent


def program(name: str) -> str:
    """One that a test package brings."""
    found = shutil.which(name, path=BIN) or shutil.which(name)
    assert found, f"{name} is not installed: pip install 'relabel-ray[test]'"
    return found


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request: pytest.FixtureRequest, root: Path) -> Path:
    return root / "deploy" / "docker" / str(request.param)


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    done = subprocess.run([program("hadolint"), dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN apt-get install wget\n")
    done = subprocess.run([program("hadolint"), tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert {"DL3007", "DL3008"} <= set(re.findall(r"DL\d+", done.stdout))


def test_images_have_two_stages_pinned_bases_and_another_user_than_root(dockerfile: Path) -> None:
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert all(re.fullmatch(r"\S+:\d+\.\d+\.\d+\S*", base) for base in bases)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line or "requirements" in line for line in installs)
    assert not any(line.startswith(("ADD ", "COPY . ")) for line in lines)


def test_images_are_built_of_what_is_there(dockerfile: Path, root: Path) -> None:
    copied = [words[1:-1] for words in map(str.split, dockerfile.read_text().splitlines()) if words[:1] == ["COPY"]]
    names = {name for names in copied for name in names if not name.startswith(("--", "/"))}
    assert all((root / name).exists() for name in names)
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().split()
    assert ignored[0] == "**"
    assert {f"!{name}" for name in names} == {line for line in ignored if line.startswith("!")}


def test_the_cluster_file_is_one_of_rays_launcher(root: Path) -> None:
    config = yaml.safe_load((root / "deploy" / "ray" / "cluster.yaml").read_text())
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**config, "max_worker": 1}, schema)


def test_shellcheck_finds_nothing(root: Path) -> None:
    done = subprocess.run(
        [program("shellcheck"), root / "deploy" / "slurm" / "nightly.sbatch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(root: Path, tmp_path: Path) -> None:
    for unit in (root / "deploy" / "systemd").iterdir():
        text = unit.read_text().replace("/opt/relabel/bin/relabel", "/bin/true")  # must be a program of this machine
        (tmp_path / unit.name).write_text(text)
    units = [tmp_path / f"relabel-nightly@maps.{kind}" for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_crontab_has_a_time_zone_and_one_line_of_five_fields(root: Path) -> None:
    lines = [
        line for line in (root / "deploy" / "cron" / "relabel.crontab").read_text().splitlines() if line[:1] != "#"
    ]
    settings = [line for line in lines if re.match(r"[A-Z_]+=", line)]
    [job] = [line for line in lines if line not in settings]
    assert "CRON_TZ=Europe/Berlin" in settings
    assert job.startswith("0 2 * * * ")
    assert "%" not in job, "cron would read it as the end of the line"


@pytest.mark.parametrize("code", [0, 3])
def test_cron_mails_the_nights_that_failed(root: Path, tmp_path: Path, code: int) -> None:
    job = (root / "deploy" / "cron" / "relabel.crontab").read_text().splitlines()[-1].removeprefix("0 2 * * * ")
    (tmp_path / "relabel").write_text(f"#!/bin/sh\necho progress >&2\necho how it ended\nexit {code}\n")
    (tmp_path / "relabel").chmod(0o755)
    (tmp_path / "environment").write_text("BUCKET=b\n")
    done = subprocess.run(
        ["/bin/bash", "-c", job.replace("/etc/relabel/environment", str(tmp_path / "environment"))],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout + done.stderr == ("progress\nhow it ended\n" if code else "")
    assert (tmp_path / "maps.log").read_text() == "progress\nhow it ended\n"


STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0")" in
    scontrol) printf 'node-1\\nnode-2\\nnode-3\\n' ;;
    srun) while [[ $1 == --* ]]; do shift; done; [[ $1 == hostname ]] && echo "10.0.0.1 fe80::1" && exit; exec "$@" ;;
    ray) [[ $1 == start ]] && exec sleep 60; exit 0 ;;
    relabel) trap 'echo asked >> "$CALLS"; exit 1' TERM; sleep 1; [[ $WAIT ]] && { sleep 60 & wait; }; exit "$CODE" ;;
esac
"""


@pytest.fixture
def slurm(root: Path, tmp_path: Path) -> Any:
    """Starts the script where Slurm's, Ray's and our programs write down how they are called."""
    for name in ("scontrol", "srun", "ray", "relabel"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    script = root / "deploy" / "slurm" / "nightly.sbatch"

    def start(**settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"),
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-3]", "CODE": "0", "WAIT": "", **settings,
        }  # fmt: skip
        return subprocess.Popen(["bash", script, "/shared/maps.yaml"], env=environment, start_new_session=True)

    return start


@pytest.mark.parametrize("code", [0, 1, 3, 5])
def test_slurms_job_ends_as_the_run_ends(slurm: Any, tmp_path: Path, code: int) -> None:
    assert slurm(CODE=str(code)).wait(timeout=30) == code
    calls = (tmp_path / "calls").read_text()
    assert len(re.findall(r"^ray start .*--head --node-ip-address=10\.0\.0\.1 --port=6379", calls, re.MULTILINE)) == 1
    joined = r"^srun .*--nodelist=node-[23] ray start .*--address=10\.0\.0\.1:6379"
    assert len(re.findall(joined, calls, re.MULTILINE)) == 2
    assert "relabel nightly /shared/maps.yaml --address 10.0.0.1:6379" in calls


def test_slurms_warning_reaches_the_run(slurm: Any, tmp_path: Path) -> None:
    process = slurm(WAIT="1")
    deadline = time.monotonic() + 20
    while "relabel nightly" not in (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else True:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 1
    assert "asked" in (tmp_path / "calls").read_text()
