"""Scale: time and memory of what a store of 100,000 shards costs: plan, resume, publish, open, verify.

    python tests/bench/run.py scale                      SHARDS=100000, S3_SHARDS=20000 by the environment
    python tests/bench/scale.py FOLDER step NAME STORE SHARDS      one measurement, in a process of its own

Receipts are synthetic (see `synthetic`): 10,000 rows each. Every step runs several times, each time in a new process;
wall seconds and CPU seconds are the least of them. Memory is the peak of the step above what the process held before
it; "per shard" compares the store with one of a tenth of its shards.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from measure import TICKS, process_start, report, stat_fields, talk
from synthetic import Place, build, unpublish

from relabel.testing.servers import seaweedfs

REPEATS = 3
KIB = 1024
RAY_ALONE = "Ray alone: to the first row"
RESUME = "resume, 1 % open: to the first sample"
RESUME_THERE = "resume on a running Ray, 1 % open: to the first sample"
FIRST_RUN = "first run: to the first sample"
ADDRESS = "SCALE_RAY_ADDRESS"
CLUSTER_CPUS = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step took."""

    seconds: float
    cpu: float
    """Seconds of this process."""
    memory: int
    """Bytes by which its resident memory rose at most."""


def main(folder: Path) -> None:
    shards = int(os.environ.get("SHARDS", "100000"))
    on_disk(folder, shards)
    on_s3(folder, int(os.environ.get("S3_SHARDS", str(shards // 5))))


def on_disk(folder: Path, shards: int) -> None:
    small = Place(folder / "small", str(folder / "small" / "store"), shards // 10)
    large = Place(folder / "large", str(folder / "large" / "store"), shards)
    for place in (small, large):
        build(place)
        talk(f"{place.shards:,} synthetic shards in {place.store}")
    few = measure(small, list(STEPS), 1)
    report_all(f"{shards:,} shards on disk", large, measure(large, list(STEPS), REPEATS), few, TARGETS)


def on_s3(folder: Path, shards: int) -> None:
    (folder / "weed").mkdir()
    with seaweedfs(folder / "weed") as server:
        os.environ.update(server.environment)
        place = Place(folder / "s3", f"s3://{server.bucket}/store", shards)
        build(place)
        talk(f"{shards:,} synthetic shards in {place.store}")
        report_all(f"{shards:,} shards on S3", place, measure(place, list(STEPS), 1), {}, {})


TARGETS = {"plan, nothing done": 15, RESUME: 10, RESUME_THERE: 10, "publish all": 15,
           "open and read one shard": 1}  # fmt: skip


def report_all(
    title: str, place: Place, costs: Mapping[str, Cost], few: Mapping[str, Cost], targets: Mapping[str, float]
) -> None:
    for name, cost in costs.items():
        memory = f"{cost.memory / 2**20:.0f} MiB"
        if name in few:
            per_shard = (cost.memory - few[name].memory) / (place.shards * 0.9)
            memory += f", {per_shard:.0f} B per shard"
        target = targets.get(name)
        met = None if target is None else cost.seconds <= target
        report(f"{title}: {name}", cost.seconds, "s", f"{cost.cpu:.2f} CPU s", memory,
               "" if target is None else f"<= {target:g} s", met)  # fmt: skip


def measure(place: Place, names: list[str], repeats: int) -> dict[str, Cost]:
    """The least of several turns of each step, in the order in which they need each other."""
    costs = {}
    for name in names:
        with running_ray() if name == RESUME_THERE else contextlib.nullcontext():
            costs[name] = least([step(place, name) for _ in range(repeats)])
    return costs


@contextlib.contextmanager
def running_ray() -> Iterator[None]:
    """A cluster of one node, which steps find in the environment; what one job left in it the next one meets."""
    from ray.cluster_utils import Cluster

    from pipelines.cluster import LASTING, QUIET

    os.environ.update({**QUIET, **LASTING})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CLUSTER_CPUS, "include_dashboard": False})
    os.environ[ADDRESS] = str(cluster.address)
    try:
        yield
    finally:
        del os.environ[ADDRESS]
        cluster.shutdown()


def least(costs: list[Cost]) -> Cost:
    return Cost(*(min(values) for values in zip(*map(dataclasses.astuple, costs), strict=True)))


def step(place: Place, name: str) -> Cost:
    """One step in a new process."""
    words = [sys.executable, __file__, str(place.folder), "step", name, place.store, str(place.shards)]
    place.first_look.unlink(missing_ok=True)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        if name in WATCHED:
            stop_at_first_look(place, process)
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name}: exit code {process.returncode}")
    cost = Cost(**json.loads(out.splitlines()[-1]))
    talk(f"{name}: {cost.seconds:.2f} s, {cost.cpu:.2f} CPU s, {cost.memory / 2**20:.0f} MiB")
    return cost


def stop_at_first_look(place: Place, process: "subprocess.Popen[str]") -> None:
    while not place.first_look.exists() and process.poll() is None:
        time.sleep(0.02)
    process.terminate()


def alone(name: str, place: Place) -> None:
    """The step, in this process; prints its cost."""
    print(json.dumps(dataclasses.asdict(STEPS[name](place))))


def cost_of(work: Callable[[], Any]) -> Cost:
    """Of work whose imports were done."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is that of the work
    before, cpu, begun = memory("VmRSS"), time.process_time(), time.perf_counter()
    work()
    return Cost(time.perf_counter() - begun, time.process_time() - cpu, memory("VmHWM") - before)


def memory(field: str) -> int:
    """VmRSS (now) or VmHWM (the most) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(field))


def plan_nothing(place: Place) -> Cost:
    from pipelines.plan import plan

    job = place.job(store=place.store + "-empty")
    return cost_of(lambda: plan(job))


def plan_done(place: Place) -> Cost:
    from pipelines.plan import plan

    job = place.job()
    return cost_of(lambda: plan(job))


def publish_all(place: Place) -> Cost:
    from pipelines.account import Account
    from pipelines.outcome import draft, publish
    from pipelines.plan import plan

    unpublish(place.store, 1)
    planned = plan(place.job())
    assert len(planned.done) == place.shards, len(planned.done)
    return cost_of(lambda: publish(planned, dict(planned.done), Account(), draft))


def publish_one(place: Place) -> Cost:
    """A release on top, in which one shard is no longer part of the source."""
    from pipelines.outcome import draft
    from pipelines.plan import plan
    from relabel.releases.commit import commit

    unpublish(place.store, 2)
    planned = plan(place.job())
    wanted = draft(planned, planned.done)
    shard = wanted.receipts[-1].shard
    wanted = dataclasses.replace(wanted, receipts=wanted.receipts[:-1], removed=[shard], run_id="one-change")
    cost = cost_of(lambda: commit(planned.job.open_store(), wanted))
    unpublish(place.store, 2)
    return cost


def open_and_read(place: Place) -> Cost:
    import relabel

    def work() -> None:
        table = relabel.open(place.store).release().table("done-0000000.tar")
        assert table.num_rows

    return cost_of(work)


def verify_quick(place: Place) -> Cost:
    from relabel.releases.verify import verify
    from relabel.storage.opening import open_store

    store = open_store(place.store)

    def work() -> None:
        problems = verify(store, "latest", "quick").problems
        assert not problems, problems[:3]

    return cost_of(work)


def resume(place: Place) -> Cost:
    return run_until_first_look(place, place.recipe(with_open=True))


def first_run(place: Place) -> Cost:
    return run_until_first_look(place, place.recipe(store=place.store + "-empty"))


def ray_alone(place: Place) -> Cost:
    """What no run over a local Ray can be below: a process that starts one and takes a row from one of its actors."""
    import ray.data
    from sessions import local_ray

    before = memory("VmRSS")
    with local_ray():
        rows = ray.data.range(1).map_batches(Untouched, compute=ray.data.ActorPoolStrategy(size=1))
        assert rows.take_all() == [{"id": 0}]
        return Cost(time.monotonic() - process_start(), time.process_time(), memory("VmHWM") - before)


class Untouched:
    """An actor that hands on what it gets."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        return rows


def run_until_first_look(place: Place, recipe: dict[str, Any]) -> Cost:
    """From the start of the process to the first sample that is prepared; whoever started it ends it then."""
    from pipelines import run
    from pipelines.stopping import Stopped

    before = memory("VmRSS")
    try:
        run(recipe, address=os.environ.get(ADDRESS))
    except Stopped:
        seconds = float(place.first_look.read_text(encoding="ascii")) - process_start()
        cpu = sum(map(int, stat_fields(Path("/proc/self"))[11:13])) / TICKS
        return Cost(seconds, cpu, memory("VmHWM") - before)
    raise AssertionError("the run ended before it was asked to")


STEPS: Mapping[str, Callable[[Place], Cost]] = {
    "plan, nothing done": plan_nothing,
    "plan, all done, not published": plan_done,
    "publish all": publish_all,
    "publish one change": publish_one,
    "plan, all done": plan_done,
    "open and read one shard": open_and_read,
    "verify quick": verify_quick,
    RAY_ALONE: ray_alone,
    RESUME: resume,
    RESUME_THERE: resume,
    FIRST_RUN: first_run,
}
WATCHED = (RESUME, RESUME_THERE, FIRST_RUN)

if __name__ == "__main__":
    if sys.argv[2:3] == ["step"]:
        alone(sys.argv[3], Place(Path(sys.argv[1]), sys.argv[4], int(sys.argv[5])))
    else:
        main(Path(sys.argv[1]))
