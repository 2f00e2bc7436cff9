"""Seven nights: what a scheduler does in a week, on a three-node Ray cluster; prints how each night ended, as JSON.

Run as a program with a URL below which source and stores lie. The labeler's pace is a file, so that a night can be slow
without other labels.
"""

import contextlib
import datetime as dt
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.cluster_utils import Cluster
from webhook import listening

from pipelines.cluster import modules
from pipelines.loading import load
from pipelines.nightly import nightly
from relabel.storage.opening import open_store

HERE = Path(__file__).parent
ROWS, LEASE_SECONDS, PATIENCE_SECONDS = 8, 6, 120
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


class Week:
    """A source that changes, a store, and a scheduler."""

    def __init__(self, root: str, folder: Path, address: str, hook: str) -> None:
        self.source, self.address, self.told = open_store(f"{root}/in"), address, list[dict[str, Any]]()
        self.store = open_store(f"{root}/store")
        self.today = dt.datetime.now(dt.UTC).date()
        self.pace = folder / "pace"
        self.recipe = folder / "recipe.yaml"
        os.environ["HOOK"] = hook
        self.write(f"{root}/store")

    def write(self, store: str) -> None:
        self.recipe.write_text(yaml.safe_dump({
            "name": "week", "source": {"path": f"{self.source.url}/*.tar"},
            "steps": [{"paced": {"pace": str(self.pace)}}], "plugins": [str(HERE / "paced.py")], "store": store,
            "gate": {"removed_shards": 0.1},
            "resources": {"actors": {"min": 1, "max": 2}, "part_rows": 4, "compute_batch": 2,
                          "lease_seconds": LEASE_SECONDS},
            "nightly": {"retention": 2, "notify": "${HOOK}"},
        }))  # fmt: skip

    def shard(self, name: str, first: int) -> None:
        """Numbers from `first` on; the same name again is another content."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row in range(ROWS):
                member, data = tarfile.TarInfo(f"{row:04d}.txt"), str(first + row).encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        self.source.put(f"{name}.tar", file.getvalue())

    def slow(self, seconds: float) -> None:
        self.pace.write_text(str(seconds), encoding="ascii")

    def date(self, night: int) -> str:
        return str(self.today - dt.timedelta(10 - night))

    def night(self, night: int, deadline: str | None = None) -> None:
        done = nightly(self.recipe, date=self.date(night), deadline=deadline, address=self.address)
        self.told.append(done.to_json())

    def scheduler(self, night: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", "nightly", str(self.recipe), "--date", self.date(night),
             "--address", self.address, "--json", "-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def receipts(self) -> int:
        return sum(1 for _ in self.store.names("receipts"))

    def crash(self, night: int) -> None:
        """Killed once a shard of this night is finished and others are not."""
        finished = self.receipts()
        process, begun = self.scheduler(night), time.monotonic()
        while self.receipts() == finished:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - begun < PATIENCE_SECONDS
            time.sleep(0.05)
        process.kill()
        process.communicate()

    def two(self, night: int) -> None:
        """Two schedulers at once, and a call afterwards."""
        running = [self.scheduler(night) for _ in range(2)]
        for process in running:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode in (0, 5), err
            self.told.append(json.loads(out))
        self.night(night)


@contextlib.contextmanager
def three_nodes() -> Iterator[str]:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def week(root: str, folder: Path, address: str, hook: str) -> Week:
    nights = Week(root, folder, address, hook)
    nights.slow(0)
    load(nights.recipe)  # and its plugin
    shipped = modules(["relabel", "pipelines", "paced"])
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, runtime_env={"py_modules": shipped})
    for number in range(12):
        nights.shard(f"{number:02d}", 100 * number)
    nights.night(1)  # new shards
    nights.shard("12", 1200)
    nights.shard("03", 5000)
    nights.night(2)  # a changed one, and one more
    nights.source.delete("05.tar")
    nights.night(4)  # a removed one, after a night that was missed
    nights.night(5)  # nothing new
    for number in range(13, 17):
        nights.shard(f"{number:02d}", 100 * number)
    nights.slow(1)
    nights.night(6, deadline="3s")  # a deadline
    ray.shutdown()
    nights.slow(0.5)
    nights.crash(7)
    nights.slow(0)
    nights.two(8)
    nights.write(f"{root}/quiet")
    nights.night(8)  # what one undisturbed run over the same source writes
    return nights


def main(root: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="week"))
    with listening() as hook, three_nodes() as address:
        nights = week(root, folder, address, hook.url)
        print(json.dumps({"nights": nights.told, "told": hook.told}, default=str))


if __name__ == "__main__":
    main(sys.argv[1])
