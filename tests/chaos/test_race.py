"""A driver that sleeps longer than its lease lasts, while another one takes over, publishes nothing when it wakes."""

import os
import signal
import time
from pathlib import Path

import pytest
from race import judge, one_node, start_driver, write_recipe, write_shard

from relabel.releases.fences import Fence
from relabel.releases.versions import Version, read_sequence
from relabel.storage.opening import open_store


@pytest.mark.long
def test_a_driver_that_slept_publishes_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "log", call_seconds=0.25)
    for shard in range(4):
        write_shard(tmp_path / "source", shard)
    with one_node() as address:
        sleeper = start_driver(recipe, address)
        try:
            deadline = time.monotonic() + 120
            while not list((tmp_path / "store").glob("receipts/*/*.json")):
                assert sleeper.poll() is None, sleeper.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(sleeper.pid, signal.SIGSTOP)
            other = start_driver(recipe, address, "wait")
            _, err = other.communicate(timeout=120)
            assert other.returncode == 0, err
            os.kill(sleeper.pid, signal.SIGCONT)
            out, err = sleeper.communicate(timeout=60)
        finally:
            sleeper.kill()
            sleeper.communicate()
    assert sleeper.returncode == 5, out + err
    assert "took over" in err or "took the store over" in err
    assert "Traceback" not in err
    fence, version = read_sequence(open_store(str(tmp_path / "store")))
    assert isinstance(fence, Fence)
    assert isinstance(version, Version)
    assert (version.lease, fence.lease, list(fence.fenced)) == (2, 2, [1])
    found = judge(str(tmp_path / "store"))
    assert (found["problems"], found["shards"], found["releases"]) == ([], 4, 1)
