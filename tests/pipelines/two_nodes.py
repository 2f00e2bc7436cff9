"""Two nodes: a Ray cluster of two machines' worth of processes that never heard of a recipe's plugin, and a run on it.

Run as a program with the recipe's path; prints one line of JSON.
"""

import importlib.util
import json
import logging
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines import run
from pipelines.cluster import Session
from pipelines.loading import load
from pipelines.plan import make_job
from relabel import Labeler


def on_every_node(function: Any, *arguments: Any) -> list[Any]:
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    task = ray.remote(num_cpus=0)(function)
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    return list(ray.get([task.options(scheduling_strategy=each).remote(*arguments) for each in strategies]))


def knows_the_plugin() -> bool:
    return importlib.util.find_spec("brightness") is not None


def describe(labeler: Labeler[Any]) -> dict[str, Any]:
    """What a worker makes of a labeler that came to it by pickle."""
    import brightness  # type: ignore[import-not-found]  # shipped with the job

    from relabel.labelers import registry

    return {
        "same_class": type(labeler) is brightness.Brightness is registry.labeler("brightness"),
        "module": type(labeler).__module__,
        "file": brightness.__file__,
        "fingerprint": labeler.fingerprint(),
    }


def main(recipe: str) -> None:
    node: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    cluster.wait_for_nodes()
    ray.init(cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    known_before = on_every_node(knows_the_plugin)
    ray.shutdown()
    outcome = run(recipe, address=cluster.address)
    counts = [outcome.labelled, sum(receipt.ok for receipt in outcome.receipts.values()), outcome.published]
    job = make_job(load(recipe))
    with Session(job.recipe.resources, 1, cluster.address, job.plugins).connected():
        workers = on_every_node(describe, job.labelers[0])
    cluster.shutdown()
    print(json.dumps({"known_before": known_before, "run": counts, "workers": workers}))


if __name__ == "__main__":
    main(sys.argv[1])
