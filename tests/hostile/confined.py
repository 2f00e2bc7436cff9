"""Confined: run code in a process of its own whose address space is capped, and learn how much memory it took."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PRELUDE = """
import json, resource, sys
from relabel.errors import RelabelError
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def guarded(work):
    before = peak()
    try:
        answer = {"answer": work()}
    except RelabelError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps({**answer, "grown": peak() - before}))
"""


def confined(code: str, *arguments: str, limit_bytes: int = 3 << 30, seconds: int = 120) -> dict[str, Any]:
    """What `code` gives to `guarded`; an answer, or the error of ours that it ended with. Any other end fails.

    The limit is on address space, of which the libraries themselves reserve about 1 GiB.
    """
    limit = f"resource.setrlimit(resource.RLIMIT_AS, ({limit_bytes}, {limit_bytes}))\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + limit + code, *arguments],
        capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/operators:{ROOT}", "OPENBLAS_NUM_THREADS": "1", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
