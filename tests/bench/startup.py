"""Start-up: one small run into an empty store, split into what it waits for, in the order in which it happens.

Wall seconds of a single run; they add up to the line "in all". Stages of the actor lie on the same clock. The weights
are inspected twice: once when a recipe is new, which writes its lock file, and then by every actor; a second plan
shows what the lock file saves.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from measure import process_start, report

PER_SHARD, SHARDS = 32, 2


class Stages:
    """Reports what passed since the last one."""

    def __init__(self, begun: float) -> None:
        self.begun = self._last = begun

    def passed(self, what: str, until: float | None = None) -> None:
        now = time.monotonic() if until is None else until
        report(what, now - self._last, "s")
        self._last = now


def main(folder: Path) -> None:
    source = make_source(folder)
    stages = Stages(time.monotonic())
    report("interpreter and this script's photographs", stages.begun - process_start(), "s")
    import ray.data

    assert ray.data
    stages.passed("import ray.data")
    from devices import StagedLabelMap  # registers itself

    from pipelines import running

    stages.passed("import pipelines")
    log = folder / "calls"
    parameters = {"model": "efficientnet-lite0", "input_size": 224, "log": str(log)}
    job = plan_twice(stages, recipe_of(source, folder, {StagedLabelMap.name: parameters}), folder / "lock.json")
    run_graph(stages, running, job, log)
    report("in all, without the first plan's inspection", time.monotonic() - stages.begun, "s")


def make_source(folder: Path) -> str:
    from photos import jpegs, write_shards

    return write_shards(folder / "shards", jpegs(PER_SHARD, (500, 375)), PER_SHARD * SHARDS, PER_SHARD)


def recipe_of(source: str, folder: Path, step: dict[str, Any]) -> dict[str, Any]:
    return {"source": source, "steps": [step], "store": str(folder / "store"), "resources": {"actors": 1}}


def plan_twice(stages: Stages, recipe: dict[str, Any], lock: Path) -> Any:
    """The job; its lock file is there afterwards. The first plan counts as a stage before the run begins."""
    from pipelines.loading import load
    from pipelines.plan import make_job

    checked = load(recipe)
    make_job(checked, lock)
    stages.passed("new recipe: import torch, inspect the weights, write the lock file")
    job = make_job(checked, lock)
    stages.passed("known recipe: read the lock file")
    return job


def run_graph(stages: Stages, running: Any, job: Any, log: Path) -> None:
    """What `running.run` does with a plan."""
    from pipelines.account import Account
    from pipelines.cluster import Session
    from pipelines.outcome import draft, publish
    from pipelines.progress import Tally
    from pipelines.stopping import StopRequest
    from relabel.releases.doctor import require_commits

    todo = running.plan(job)
    stages.passed("plan: list the source and the store")
    require_commits(job.open_store())
    stages.passed("probe the store")
    receipts = {}
    with Session(job.recipe.resources, len(job.labelers)).connected():
        stages.passed("start Ray")
        for receipt in running.label(todo, Tally(len(todo.todo)), StopRequest()):
            receipts[receipt.token] = receipt
        ended = time.monotonic()
        report_actor(stages, log)
        stages.passed("last call to last receipt: write label shards, end the graph", ended)
        outcome = publish(todo, receipts, Account(), draft)
        assert outcome.published, outcome
        stages.passed("publish the release")
    stages.passed("stop Ray")


def report_actor(stages: Stages, log: Path) -> None:
    from devices import read_calls

    moments = json.loads(Path(f"{log}.stages").read_text(encoding="ascii"))
    calls = read_calls(log)
    stages.passed("graph to actor process", moments["process"])
    stages.passed("actor: start the worker, import Ray and the pipeline", moments["load"])
    stages.passed("actor: import torch", moments["torch"])
    stages.passed("actor: digest and load the weights", moments["network"])
    stages.passed("actor: prove the surgery", moments["proof"])
    stages.passed("actor: buffers", moments["loaded"])
    stages.passed("actor: wait for the first part", calls[0].begun)
    stages.passed("first call (8 images)", calls[0].ended)
    stages.passed(f"the other calls ({len(calls) - 1} of 8 images)", calls[-1].ended)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
