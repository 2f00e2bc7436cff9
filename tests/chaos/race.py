"""Race: two drivers started at the same time on one store, with random delays, kills and pauses; one linear history.

`make race RUNS=20 SEED=0`. Half of the source is there when they start, the rest comes while they run. Each driver has
a `--if-busy` mode of its own and may be killed by SIGKILL or paused by SIGSTOP for longer than its lease lasts; one
that ends without a release is started again, as a scheduler would. Afterwards: numbers without gaps, every release
verifies to its last byte, no run id twice, none under a lease older than a fence before it, and the newest has the
content digest of an undisturbed run. Files of data/ that no release reaches are counted. Prints a line of JSON per race
and a summary; exits 1 where anything is wrong.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from ray.cluster_utils import Cluster

from relabel.releases.fences import Fence
from relabel.releases.segments import read_segments
from relabel.releases.verify import verify
from relabel.releases.versions import Version, read_sequence
from relabel.storage.opening import open_store

ROOT = Path(__file__).parent.parent.parent
SHARDS, ROWS = 6, 8
LEASE_SECONDS = 3
PAUSE_SECONDS = 6.0
"""Of SIGSTOP: longer than a lease lasts."""
MODES = ("take-over", "wait", "refuse")
STARTS = 12
PATIENCE_SECONDS = 400


@dataclasses.dataclass
class Racer:
    """A driver, started again until it has a release."""

    recipe: Path
    mode: str
    address: str
    event: str
    """killed | paused | nothing."""
    at: float
    """Seconds after its first start."""
    process: "subprocess.Popen[str] | None" = None
    codes: list[int] = dataclasses.field(default_factory=list)
    starts: int = 0
    wakes_at: float = float("inf")

    def start(self) -> None:
        self.starts += 1
        # One that is strict would wait for ever for what was killed.
        mode = "take-over" if self.mode == "refuse" and self.starts > 3 else self.mode
        self.process = start_driver(self.recipe, self.address, mode)

    def turn(self, elapsed: float) -> bool:
        """Look after it; whether it is done."""
        if self.process is None:
            self.start()
        assert self.process is not None
        self.disturb(self.process, elapsed)
        code = self.process.poll()
        if code is None:
            return False
        self.codes.append(code)
        said = self.process.communicate()[1][-3000:]
        assert code in (0, 1, 5, -signal.SIGKILL), f"exit code {code}: {said}"
        assert code == 0 or self.starts < STARTS, f"{STARTS} starts and no release: {said}"
        if code != 0:
            self.start()
        return code == 0

    def disturb(self, process: "subprocess.Popen[str]", elapsed: float) -> None:
        if elapsed > self.wakes_at:
            process.send_signal(signal.SIGCONT)
            self.wakes_at = float("inf")
        if self.event != "nothing" and elapsed > self.at:
            process.send_signal(signal.SIGKILL if self.event == "killed" else signal.SIGSTOP)
            if self.event == "paused":
                self.wakes_at = elapsed + PAUSE_SECONDS
            self.event = "nothing"


def start_driver(recipe: Path, address: str, mode: str = "take-over") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run", str(recipe), "--address", address, "--if-busy", mode, "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "operators"), str(ROOT)])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@contextlib.contextmanager
def one_node() -> Iterator[str]:
    """The address of a Ray cluster that every driver may join."""
    node = {"num_cpus": 8, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def write_shard(folder: Path, shard: int) -> None:
    """Texts that hold numbers, each its own; it appears whole and always with the same time."""
    folder.mkdir(exist_ok=True)
    hidden, file = folder / f".{shard}", folder / ".member"
    with tarfile.open(hidden, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row in range(ROWS):
            file.write_text(str(shard * ROWS + row), encoding="ascii")
            archive.add(file, f"{row:04d}.txt")
    os.utime(hidden, (1.7e9, 1.7e9))
    file.unlink()
    hidden.rename(folder / f"{shard:03d}.tar")


def write_recipe(folder: Path, log: Path, call_seconds: float = 0.1) -> Path:
    """A recipe over `folder`/source into `folder`/store; `log` is part of the fingerprint."""
    log.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({
        "name": "race",
        "source": {"path": f"{folder}/source/*.tar"},
        "steps": [{"counted": {"log": str(log), "call_seconds": call_seconds}}],
        "plugins": [str(Path(__file__).parent / "counted.py")],
        "store": f"{folder}/store",
        "resources": {"actors": 1, "part_rows": 4, "compute_batch": 2, "readers": 1, "lease_seconds": LEASE_SECONDS},
    }))  # fmt: skip
    return path


def race(number: int, folder: Path, log: Path, address: str) -> dict[str, Any]:
    """One race; what it left behind is told, and what is wrong with it."""
    chance = random.Random(number)
    folder.mkdir()
    recipe = write_recipe(folder, log)
    for shard in range(SHARDS // 2):
        write_shard(folder / "source", shard)
    late = [(chance.uniform(2, 14), shard) for shard in range(SHARDS // 2, SHARDS)]
    events = [chance.choice(("killed", "paused", "nothing")) for _ in range(2)]
    racers = [Racer(recipe, chance.choice(MODES), address, event, chance.uniform(3, 12)) for event in events]
    told = [f"{racer.mode}, {racer.event}" for racer in racers]
    begun = time.monotonic()
    open_racers = list(racers)
    try:
        while open_racers or late:
            elapsed = time.monotonic() - begun
            for moment, shard in [each for each in late if each[0] < elapsed]:
                write_shard(folder / "source", shard)
                late.remove((moment, shard))
            open_racers = [racer for racer in open_racers if not racer.turn(elapsed)]
            if elapsed > PATIENCE_SECONDS:
                raise AssertionError(f"race {number} did not end: {racers}")
            time.sleep(0.05)
    finally:
        for racer in racers:
            if racer.process is not None and racer.process.poll() is None:
                racer.process.kill()
    last = start_driver(recipe, address, "wait")
    _, err = last.communicate(timeout=PATIENCE_SECONDS)
    assert last.returncode == 0, err[-3000:]
    codes = [racer.codes for racer in racers]
    return {"race": number, "racers": told, "codes": codes, **judge(str(folder / "store"))}


def judge(url: str) -> dict[str, Any]:
    """What lies in a store, and which promises it breaks."""
    store = open_store(url)
    sequence = read_sequence(store)
    problems = [f"{each}" for entry in sequence if isinstance(entry, Version)
                for each in verify(store, entry.version, "full").problems]  # fmt: skip
    if [entry.number for entry in sequence] != list(range(1, len(sequence) + 1)):
        problems.append(f"the history has a gap: {[entry.number for entry in sequence]}")
    versions = [entry for entry in sequence if isinstance(entry, Version)]
    if len({version.run_id for version in versions}) != len(versions):
        problems.append("a run published twice")
    newest = 0
    for entry in sequence:
        if isinstance(entry, Fence):
            newest = max(newest, entry.lease)
        elif entry.lease is not None and entry.lease < newest:
            problems.append(f"version {entry.number} was published under lease {entry.lease} after fence {newest}")
    held: dict[str, Any] = {}
    reached: set[str] = set()
    for version in versions:
        entries = read_segments(store, version.segments)
        if lost := held.keys() - entries.keys():
            problems.append(f"version {version.number} lost {sorted(lost)}")
        held = entries
        reached |= {each.path for entry in entries.values() for each in entry.objects()}
    return {
        "releases": len(versions),
        "fences": len(sequence) - len(versions),
        "shards": len(held),
        "orphans": len([info for info in store.list("data") if info.path not in reached]),
        "digest": versions[-1].content_digest if versions else "",
        "problems": problems,
    }


def quiet_digest(folder: Path, log: Path, address: str) -> str:
    """Of a run that nothing disturbs."""
    folder.mkdir()
    for shard in range(SHARDS):
        write_shard(folder / "source", shard)
    driver = start_driver(write_recipe(folder, log), address)
    out, err = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 0, err[-3000:]
    return str(json.loads(out)["content_digest"])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Two drivers at once on one store, again and again.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="relabel-race-"))
    try:
        with one_node() as address:
            wanted = quiet_digest(folder / "quiet", folder / "log", address)
            results = []
            for number in range(options.seed, options.seed + options.runs):
                begun = time.monotonic()
                result = race(number, folder / f"race-{number}", folder / "log", address)
                result["seconds"] = round(time.monotonic() - begun, 1)
                result["equal"] = result.pop("digest") == wanted
                print(json.dumps(result), flush=True)
                results.append(result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    wrong = [result["race"] for result in results if result["problems"] or not result["equal"]]
    print(json.dumps({
        "races": len(results), "equal": len(results) - len(wrong), "wrong": wrong,
        **{name: sum(result[name] for result in results) for name in ("releases", "fences", "orphans")},
    }))  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
