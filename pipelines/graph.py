"""The graph: shards to events through Ray Data. Read and prepare on CPUs; label and write on actors; tell the driver.

Rows of this graph are parts, not samples: Ray may merge and split blocks as it likes and never mixes two parts.
"""

import concurrent.futures
import contextlib
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from relabel.labelers.engine_labeler import EngineLabeler
from relabel.reasons import Reason

from .asking import EngineStage, open_stage, parts_in_flight
from .cluster import Pool
from .job import Job, ShardTask
from .ledger import Ledger, Unit, Verdict
from .reading import read_parts
from .watchdog import Watchdog, leave
from .writing import write_parts

TARGET_BLOCK_BYTES = 32 << 20
MAX_READ_TASKS = 4_000
CALLS_IN_FLIGHT = 3
"""Per actor: a part that is labelled, one that is written, one that is ready."""


class RemoteLedger:
    """The run's ledger from a worker: an actor that nothing restarts but its own node's end."""

    def __init__(self) -> None:
        make: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger)
        self._actor = make.remote()

    def begin(self, unit: Unit, after: Unit | None = None) -> Verdict:
        verdict: Verdict = ray.get(self._actor.begin.remote(unit, after))
        return verdict

    def at(self, unit: Unit, sample: int) -> None:
        ray.get(self._actor.at.remote(unit, sample))

    def failing(self, unit: Unit, reason: Reason) -> None:
        ray.get(self._actor.failing.remote(unit, reason))

    def end(self, unit: Unit) -> None:
        """Nobody waits: if the word is lost with this process, the unit is done again, carefully."""
        self._actor.end.remote(unit)


class ShardDatasource(Datasource):
    """A job's shards as streaming read tasks; where there are very many, one task reads several in turn."""

    def __init__(self, job: Job, tasks: Sequence[ShardTask], ledger: RemoteLedger) -> None:
        self._job, self._ledger = job, ledger
        self._groups = group(tasks, MAX_READ_TASKS)

    def __len__(self) -> int:
        return len(self._groups)

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(task.shard.size for tasks in self._groups for task in tasks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        job = ray.put(self._job)
        return [ReadTask(ReadShards(job, tasks, self._ledger), _metadata(tasks)) for tasks in self._groups]


class ReadShards:
    """Reads its shards one after the other; a replay yields the same tables."""

    def __init__(self, job: "ray.ObjectRef[Job]", tasks: Sequence[ShardTask], ledger: RemoteLedger) -> None:
        self._job, self._tasks, self._ledger = job, tasks, ledger

    def __call__(self) -> Iterable[pa.Table]:
        job = ray.get(self._job)
        with contextlib.closing(Watchdog(job.recipe.resources.call_seconds, self._ledger)) as watchdog:
            try:
                for task in self._tasks:
                    yield from read_parts(job, task, self._ledger, watchdog)
            except KeyboardInterrupt:
                # So Ray cancels a task, and gives its process to the next one. Where an import of torch was broken off,
                # every later one fails, and all samples of that process would be dead letters.
                leave("its task was cancelled")


class LabelActor:
    """A label stage on the GPU that Ray lends to this actor, else on the CPU; the last stage also writes.

    Ray calls it from several threads. One of its own does all labelling, for torch keeps state per thread (an engine
    has its own loop, and takes what comes); a part is written by the thread that came with it, while the next one is
    labelled. A stage of writers would cost one more task and one more trip through the object store per part: a third
    of all CPU time beside decoding.
    """

    def __init__(self, job: Job, index: int, ledger: RemoteLedger) -> None:
        watchdog = Watchdog(job.recipe.resources.call_seconds, ledger)
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._job, self._writes = job, index == len(job.labelers) - 1
        self._labelling = concurrent.futures.ThreadPoolExecutor(1, "labelling")
        self._stage = self._labelling.submit(open_stage, job, index, device, ledger, watchdog).result()

    def __call__(self, parts: pa.Table) -> pa.Table:
        if isinstance(self._stage, EngineStage):
            labelled = self._stage(parts)
        else:
            labelled = self._labelling.submit(self._stage, parts).result()
        return write_parts(labelled, self._job) if self._writes else labelled


def group(tasks: Sequence[ShardTask], most: int) -> list[Sequence[ShardTask]]:
    """At most `most` runs of consecutive shards, as even as can be."""
    per_group = -(-len(tasks) // most)
    return [tasks[start : start + per_group] for start in range(0, len(tasks), per_group)]


def _metadata(tasks: Sequence[ShardTask]) -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=sum(task.shard.size for task in tasks), exec_stats=None)


def imports() -> None:
    """Called in a worker that is not busy yet, it does there what takes longest: it imports this module."""


def build(job: Job, tasks: Sequence[ShardTask], pool: Pool) -> Dataset:
    """The lazy graph of a job: one event per part that was labelled and written."""
    engines = any(isinstance(each, EngineLabeler) for each in job.labelers)
    configure(1 if engines else TARGET_BLOCK_BYTES)
    resources = job.recipe.resources
    ledger = RemoteLedger()
    source = ShardDatasource(job, tasks, ledger)
    parts: Dataset = ray.data.read_datasource(
        source, override_num_blocks=len(source), concurrency=resources.readers, num_cpus=1
    )
    for index in range(len(job.labelers)):
        parts = parts.map_batches(
            LabelActor,
            # By value: an actor that restarts must not depend on an object that its driver may have lost.
            fn_constructor_args=(job, index, ledger),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                max_concurrent_calls_per_actor=calls_in_flight(job, index),
                enable_true_multi_threading=True,
            ),
            num_gpus=pool.gpus or None,
            num_cpus=0 if pool.gpus else resources.threads,
        )
    return parts


def calls_in_flight(job: Job, index: int) -> int:
    labeler = job.labelers[index]
    if isinstance(labeler, EngineLabeler):
        return parts_in_flight(labeler.concurrency, job.recipe.resources.part_rows, labeler.lead)
    return CALLS_IN_FLIGHT


def configure(block_bytes: int = TARGET_BLOCK_BYTES) -> None:
    """Ray Data's settings for this graph: small blocks, any order, no error hidden, no silent wait, no bars.

    The parts of one block are labelled one after the other: for an engine, every part has to be a block of its own.
    """
    context = DataContext.get_current()
    context.target_max_block_size = block_bytes
    context.execution_options.preserve_order = False
    context.max_errored_blocks = 0
    context.execution_no_progress_timeout_s = 3600
    # Not `wait_for_min_actors_s`: it holds the readers back until every model is loaded, then the models wait for them.
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def events(dataset: Dataset) -> Generator[str, None, None]:
    """The events as they come, in any order. Closing it ends the execution."""
    blocks: Any = iter(dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"))
    with contextlib.closing(blocks):
        for block in blocks:
            yield from block["event"].to_pylist()
