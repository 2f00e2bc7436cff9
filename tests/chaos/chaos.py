"""Chaos: runs on a three-node Ray cluster whose processes are killed at random moments; every release must be equal.

`make chaos RUNS=50 SEED=0`. Every run labels the same source into a fresh store while one to three things happen: a
model actor, any other worker (reader, writer, merge) or the driver is killed by SIGKILL; a node is, with or without a
new one in its place; the driver gets SIGTERM. A driver that ends without a release is started again, as a person or a
scheduler would. Then the release must verify to the last byte and have the content digest of an undisturbed run, which
holds every row exactly once. Prints a line of JSON per run and a summary; exits 1 where anything differs.
"""

import argparse
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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

ROOT = Path(__file__).parent.parent.parent
SHARDS, ROWS, PART_ROWS = 18, 48, 16
EVENTS = ("actor", "worker", "node", "node replaced", "driver", "driver stopped")
WINDOW_SECONDS = (-1.0, 8.0)
"""After the first object of a run lies in its store; labelling goes on for about as long as the end."""
STARTS = 8
"""Of a driver, before the run counts as lost."""
PATIENCE_SECONDS = 180
JOIN_SECONDS = 60
"""Then the machines are exchanged for new ones."""
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
QUICK_TO_NOTICE = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}


@dataclasses.dataclass(frozen=True)
class Result:
    """How one run ended."""

    events: Sequence[str]
    starts: int
    seconds: float
    digest: str
    problems: Sequence[str]
    labelled: int
    """Samples that went through the labeler, those done twice counted twice."""

    @property
    def redone(self) -> float:
        """Work that was done again, as a fraction of what there was to do."""
        return self.labelled / (SHARDS * ROWS) - 1


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Kill what runs, and compare what it wrote.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    os.environ.update(QUICK_TO_NOTICE)
    with tempfile.TemporaryDirectory(prefix="relabel-chaos-") as folder:
        source = write_source(Path(folder) / "source")
        machines = Machines()
        try:
            quiet = one_run(machines, source, Path(folder) / "quiet", [], random.Random(0))
            tell("quiet", quiet)
            results = []
            for number in range(options.seed, options.seed + options.runs):
                chance = random.Random(number)
                events = chance.choices(EVENTS, k=chance.randint(1, 3))
                results.append(one_run(machines, source, Path(folder) / f"run-{number}", events, chance))
                tell(number, results[-1])
        finally:
            machines.shutdown()
    return summary(quiet, results)


def tell(number: object, result: Result) -> None:
    print(json.dumps({"run": number, **dataclasses.asdict(result), "redone": round(result.redone, 3)}), flush=True)


def summary(quiet: Result, results: Sequence[Result]) -> int:
    wrong = [result for result in [quiet, *results] if result.digest != quiet.digest or result.problems]
    redone = sorted(result.redone for result in results)
    events = Counter(event for result in results for event in result.events)
    print(json.dumps({
        "runs": len(results), "equal": len(results) + 1 - len(wrong), "events": events,
        "redone_mean": round(sum(redone) / len(redone), 3), "redone_max": round(redone[-1], 3),
        "driver_starts": sum(result.starts for result in results),
    }))  # fmt: skip
    return 1 if wrong else 0


def write_source(folder: Path) -> str:
    """Texts that hold numbers, each its own."""
    folder.mkdir()
    file = folder / "member"
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in range(ROWS):
                file.write_text(str(shard * ROWS + row), encoding="ascii")
                archive.add(file, f"{row:04d}.txt")
    file.unlink()
    return f"{folder}/*.tar"


class Machines:
    """A head and two more nodes, all on this machine; only the head is never killed."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.others = [self.cluster.add_node(**NODE) for _ in range(2)]
        self.cluster.wait_for_nodes(timeout=PATIENCE_SECONDS)

    def kill_node(self, chance: random.Random) -> None:
        node = self.others.pop(chance.randrange(len(self.others)))
        self.cluster.remove_node(node, allow_graceful=False)

    def complete(self) -> None:
        """Three nodes again, also where a slow one was taken for dead and has ended itself."""
        for lost in [node for node in self.others if not node.remaining_processes_alive()]:
            self.others.remove(lost)
            self.cluster.remove_node(lost, allow_graceful=False)
        while len(self.others) < 2:
            self.others.append(self.cluster.add_node(**NODE))
        try:
            self.cluster.wait_for_nodes(timeout=JOIN_SECONDS)
        except TimeoutError:  # the head, too, may have been taken for dead
            self.begin_anew()

    def require_head(self) -> None:
        """A busy machine may have taken it for dead, and nobody can join what is left."""
        head = self.cluster.head_node
        if head is None or not head.remaining_processes_alive():
            self.begin_anew()

    def begin_anew(self) -> None:
        self.cluster.shutdown()
        self.start()

    def workers(self, kind: str) -> list[int]:
        """Processes below our nodes that call themselves `ray::MapWorker...` (kind "actor") or something else."""
        parents = {pid: int(fields[1]) for pid, fields in stats().items()}
        raylets = {
            process.process.pid for node in self.cluster.list_all_nodes()
            for process in node.all_processes.get("raylet", [])
        }  # fmt: skip
        names = {pid: name_of(pid) for pid, parent in parents.items() if parent in raylets}
        found = {pid: name for pid, name in names.items() if name.startswith("ray::")}
        return [pid for pid, name in found.items() if name.startswith("ray::MapWorker") == (kind == "actor")]

    def shutdown(self) -> None:
        self.cluster.shutdown()


def stats() -> dict[int, list[str]]:
    """The fields of /proc/PID/stat from `state` on, of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = (folder / "stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def one_run(machines: Machines, source: str, folder: Path, events: Sequence[str], chance: random.Random) -> Result:
    """Label the source while the events happen, starting the driver again until there is a release."""
    log = folder.parent / "log"  # the same for all: it is part of the fingerprint
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir()
    folder.mkdir()
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps({
        "name": "chaos", "source": source, "store": str(folder / "store"),
        "plugins": [str(Path(__file__).with_name("counted.py"))], "steps": [{"counted": {"log": str(log)}}],
        "resources": {"actors": {"min": 1, "max": 3}, "compute_batch": 4, "part_rows": PART_ROWS, "lease_seconds": 3},
    }))  # fmt: skip
    due = sorted((chance.uniform(*WINDOW_SECONDS), event) for event in events)
    begun, starts, told = time.monotonic(), 0, {}
    while not told and starts < STARTS:
        starts += 1
        machines.require_head()
        told = drive(machines, recipe, due, chance)
    machines.complete()
    problems = [] if told else ["no release"]
    if told:
        check = command("verify", str(folder / "store"), "--level", "full", "--json")
        done = subprocess.run(check, capture_output=True, text=True, env=environment(), check=False)
        problems += [] if done.returncode == 0 else [done.stdout + done.stderr]
    labelled = sum(len(file.read_text().splitlines()) for file in log.iterdir())
    seconds = round(time.monotonic() - begun, 1)
    return Result(tuple(events), starts, seconds, told.get("content_digest", ""), tuple(problems), labelled)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "operators"), str(ROOT)])}


def drive(machines: Machines, recipe: Path, due: list[tuple[float, str]], chance: random.Random) -> dict[str, Any]:
    """One driver, from its start to its end; what it tells of its release, nothing where there is none.

    Events are taken from `due` as their moments come.
    """
    address = str(machines.cluster.address)
    driver = subprocess.Popen(
        command("run", str(recipe), "--address", address, "--if-busy", "wait", "--json"), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    begun, first = time.monotonic(), float("inf")
    while driver.poll() is None:
        if (recipe.parent / "store" / "receipts").exists() or (recipe.parent / "store" / "parts").exists():
            first = min(first, time.monotonic())
        if due and time.monotonic() - first > due[0][0]:
            happen(due.pop(0)[1], machines, driver, chance)
        if time.monotonic() - begun > PATIENCE_SECONDS:
            os.kill(driver.pid, signal.SIGKILL)
        time.sleep(0.05)
    out, err = driver.communicate()
    told: dict[str, Any] = {}
    if driver.returncode == 0:
        try:
            told = json.loads(out)
        except ValueError:
            raise AssertionError(f"standard output must be one JSON document, got {out[:2000]}") from None
    if driver.returncode not in (0, 1, -signal.SIGKILL):
        print(err[-2000:], file=sys.stderr, flush=True)
    return told if told.get("release") else {}


def happen(event: str, machines: Machines, driver: "subprocess.Popen[str]", chance: random.Random) -> None:
    if event in ("actor", "worker"):
        victims = machines.workers(event)
        if victims:
            os.kill(chance.choice(sorted(victims)), signal.SIGKILL)
    elif event.startswith("node") and machines.others:
        machines.kill_node(chance)
        if event == "node replaced":
            machines.complete()
    elif event.startswith("driver"):
        driver.send_signal(signal.SIGKILL if event == "driver" else signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
