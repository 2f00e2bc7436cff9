"""A run of `make chaos`: a node and two actors are killed, and the release is that of a quiet run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_runs_end_in_the_release_of_a_quiet_one(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "chaos" / "chaos.py"), "--runs", "1", "--seed", "10"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)])},
        capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    *runs, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["labelled"] >= 864 for run in runs] == [True] * 2
    assert summary["equal"] == 2
