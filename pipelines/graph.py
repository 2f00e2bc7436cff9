"""The graph: shards to events through Ray Data. Read and prepare on CPUs; label and write on actors; tell the driver.

Rows of this graph are parts, not samples: Ray may merge and split blocks as it likes and never mixes two parts.
"""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from relabel.labelers.engine_labeler import EngineLabeler
from relabel.labelers.labeler import Labeler
from relabel.reasons import Reason

from .again import read_again
from .asking import EngineStage, open_stage, parts_in_flight
from .cluster import Pool
from .job import Job, ShardTask
from .labelling import device_stages
from .ledger import Ledger, Unit, Verdict
from .reading import read_parts
from .stages import Stages
from .watchdog import Watchdog, leave
from .writing import write_parts

T = TypeVar("T")

TARGET_BLOCK_BYTES = 32 << 20
MAX_READ_TASKS = 4_000
MIN_READ_TASKS = 200
"""Below so many, no two shards share one."""
READ_TASK_BYTES = 16 << 20
"""What small shards that share a read task may hold together: a task that dies is read once more as a whole."""
WAIT_SECONDS = 0.2
CALLS_IN_FLIGHT = 3
"""Per actor: a part that is labelled, one that is written, one that is ready."""


class RemoteLedger:
    """The run's ledger from a worker: an actor that nothing restarts but its own node's end."""

    def __init__(self, waits: bool = False) -> None:
        """`waits`: readers give nothing on before `go`, but samples of the last release."""
        self._waits = waits
        make: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger)
        self._actor = make.remote()

    def go(self) -> None:
        """The driver has seen what it wanted to see first."""
        self._waits = False
        self._actor.go.remote()

    def wait(self, most_seconds: float) -> None:
        """Until `go`; not for ever, for what the driver waits for may need this reader's place."""
        deadline = time.monotonic() + most_seconds
        while self._waits and time.monotonic() < deadline:
            self._waits = not ray.get(self._actor.may_go.remote())
            if self._waits:
                time.sleep(WAIT_SECONDS)

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
    """A job's shards as streaming read tasks; where they are many and small, or very many, one task reads several."""

    def __init__(self, job: Job, tasks: Sequence[ShardTask], ledger: RemoteLedger) -> None:
        self._job, self._ledger = job, ledger
        main = [task for task in tasks if task.again is None]
        # What is labelled again first has read tasks of its own: what a task gives on may wait for the task's end.
        self._groups = [
            *([task] for task in tasks if task.again is not None),
            *group(main, num_read_tasks([task.shard.size for task in main])),
        ]

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
        stages = Stages("reader", "load")
        job = ray.get(self._job)
        with contextlib.closing(Watchdog(job.recipe.resources.call_seconds, self._ledger)) as watchdog:
            try:
                for task in self._tasks:
                    if task.again is not None:
                        yield from read_again(job, task)
                        continue
                    for part in read_parts(job, task, self._ledger, watchdog, stages):
                        self._ledger.wait(job.recipe.resources.call_seconds)
                        yield part
            except KeyboardInterrupt:
                # So Ray cancels a task, and gives its process to the next one. Where an import of torch was broken off,
                # every later one fails, and all samples of that process would be dead letters.
                leave("its task was cancelled")


class LabelActor:
    """Label stages on the GPU that Ray lends to this actor, else on the CPU; the last actor's also writes.

    Ray calls it from several threads. One of its own does all labelling, for torch keeps state per thread (an engine
    has its own loop, and takes what comes); a part is written by the thread that came with it, while the next one is
    labelled. A stage of writers would cost one more task and one more trip through the object store per part: a third
    of all CPU time beside decoding.
    """

    def __init__(self, job: Job, steps: Sequence[int], ledger: RemoteLedger) -> None:
        watchdog = Watchdog(job.recipe.resources.call_seconds, ledger)
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._job, self._writes = job, steps[-1] == len(job.labelers) - 1
        self._labelling = concurrent.futures.ThreadPoolExecutor(1, "labelling")
        self._device = device_stages(job.labelers[steps[0]].label)
        self._threads = threading.local()
        opened = [
            self._labelling.submit(open_stage, job, step, device, ledger, watchdog, self._device) for step in steps
        ]
        self._stages = [each.result() for each in opened]
        self._device.enter("idle")

    def __call__(self, parts: pa.Table) -> pa.Table:
        thread = self._thread()
        with thread.in_("wait"):  # for its turn and for the labels
            for stage in self._stages:
                asks = isinstance(stage, EngineStage)
                parts = stage(parts) if asks else self._labelling.submit(stage, parts).result()
        return write_parts(parts, self._job, thread) if self._writes else parts

    def _thread(self) -> Stages:
        """Of the thread that calls."""
        if not hasattr(self._threads, "stages"):
            self._threads.stages = Stages("writer", "idle")
        stages: Stages = self._threads.stages
        return stages


def pools(job: Job) -> list[tuple[int, ...]]:
    """The steps that one actor pool does: neighbours that load nothing share one."""
    found: list[tuple[int, ...]] = []
    for step, labeler in enumerate(job.labelers):
        if found and loads_nothing(labeler) and loads_nothing(job.labelers[step - 1]):
            found[-1] = (*found[-1], step)
        else:
            found.append((step,))
    return found


def loads_nothing(labeler: Labeler[Any]) -> bool:
    """Whether it is ready at once, wherever it runs."""
    return type(labeler).load is Labeler.load


def num_read_tasks(sizes: Sequence[int]) -> int:
    """For shards of these sizes in bytes: each task costs the driver 1.5 ms before the first one starts."""
    return min(MAX_READ_TASKS, max(MIN_READ_TASKS, -(-sum(sizes) // READ_TASK_BYTES)))


def group(tasks: Sequence[T], most: int) -> list[Sequence[T]]:
    """At most `most` runs of consecutive ones, as even as can be."""
    per_group = -(-len(tasks) // most)
    return [tasks[start : start + per_group] for start in range(0, len(tasks), per_group)]


def _metadata(tasks: Sequence[ShardTask]) -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=sum(task.shard.size for task in tasks), exec_stats=None)


def imports() -> None:
    """Called in a worker that is not busy yet, it does there what takes longest: it imports this module."""


def build(job: Job, tasks: Sequence[ShardTask], pool: Pool, ledger: RemoteLedger) -> Dataset:
    """The lazy graph of a job: one event per part that was labelled and written."""
    engines = any(isinstance(each, EngineLabeler) for each in job.labelers)
    configure(1 if engines else TARGET_BLOCK_BYTES)
    resources = job.recipe.resources
    source = ShardDatasource(job, tasks, ledger)
    parts: Dataset = ray.data.read_datasource(
        source, override_num_blocks=len(source), concurrency=resources.readers, num_cpus=1
    )
    for steps in pools(job):
        parts = parts.map_batches(
            LabelActor,
            # By value: an actor that restarts must not depend on an object that its driver may have lost.
            fn_constructor_args=(job, steps, ledger),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                max_concurrent_calls_per_actor=calls_in_flight(job, steps[0]),
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
