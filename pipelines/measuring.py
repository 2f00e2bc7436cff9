"""Measuring: some shards of a plan read, decoded and labelled here, to say what the whole will take.

Writes nothing. The code is that of a run, without Ray: a part of each shard is labelled, and as much of it is read as
some seconds allow.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence

import pyarrow as pa

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.labels.shard_file import encode_label_shard

from .account import Account
from .asking import open_stage
from .cluster import NUM_READERS, Pool
from .graph import pools
from .in_process import device_for
from .job import Job, ShardTask
from .parts import Header
from .plan import Plan
from .projection import Projection, project
from .reading import read_parts
from .sampling import spread, take
from .stages import Stages
from .writing import part_labels

SHARDS = 3
READ_SECONDS = 10.0
"""For each shard."""
PART_ROWS = 64
"""Labelled of each shard, at most."""
SAMPLES_FOR_SIZE = 20


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a few shards took, and what the plan will take at this speed."""

    shards: int
    rows: int
    """That were read and decoded."""
    labelled: int
    device: str
    pool: Pool
    """As a run on this machine alone has it."""
    samples: int
    """Still to be labelled, estimated."""
    seconds_per_sample: Mapping[str, float]
    """Stage -> of one slot."""
    projection: Projection

    def to_json(self) -> Json:
        return {
            "shards": self.shards,
            "rows": self.rows,
            "labelled": self.labelled,
            "device": self.device,
            "actors": self.pool.least,
            "readers": self.pool.readers,
            "samples": self.samples,
            "ms_per_sample": {stage: round(1000 * each, 4) for stage, each in self.seconds_per_sample.items()},
            "projected": self.projection.to_json(),
        }


def measure(planned: Plan, shards: int = SHARDS) -> Measured:
    """Raises UsageError where the plan has nothing to label."""
    job = smaller(planned.job)
    job.require_results()
    chosen = [entry.task.shard for entry in planned.todo]
    tasks = [ShardTask(shard) for shard in dict.fromkeys(spread(chosen, shards))]
    if not tasks:
        raise UsageError("there is nothing to label, so nothing to measure.")
    account, read = Account(job.recipe.prices), Read()
    with account.graph(len(job.labelers), 1, 1, 1):
        for task in tasks:
            read_some(job, task, account, read)
        if not read.parts:
            raise UsageError(f"none of the {len(tasks)} shards can be read; `relabel try` says why.")
        device = device_for(job.recipe.resources)
        labelled = label_and_encode(job, read.parts, device, account)
    samples = round(sum(entry.task.shard.size for entry in planned.todo) / bytes_per_sample(job, read))
    loads = [load.scaled(samples / (read.rows if load.kind == "reader" else labelled)) for load in account.loads()]
    pool = local_pool(job, device)
    return Measured(
        shards=len(tasks),
        rows=read.rows,
        labelled=labelled,
        device=device,
        pool=pool,
        samples=samples,
        seconds_per_sample={
            stage: seconds / samples for load in loads for stage, seconds in load.working.items() if seconds
        },
        projection=project(
            loads,
            account.seconds.get("load", 0.0),
            samples,
            account.cost().engines_usd * samples / labelled,
            pool,
            job.recipe.resources.threads,
            job.recipe.prices,
        ),
    )


@dataclasses.dataclass
class Read:
    """What was read."""

    parts: list[pa.Table] = dataclasses.field(default_factory=list)
    """The first one of each shard."""
    rows: int = 0
    whole_rows: int = 0
    whole_bytes: int = 0
    """Of the shards that were read to their end."""


def smaller(job: Job) -> Job:
    """The job in parts that a model which takes its time can label."""
    resources = job.recipe.resources
    rows = min(resources.part_rows, max(PART_ROWS, resources.compute_batch))
    recipe = job.recipe.model_copy(update={"resources": resources.model_copy(update={"part_rows": rows})})
    return dataclasses.replace(job, recipe=recipe)


def read_some(job: Job, task: ShardTask, account: Account, read: Read) -> None:
    """The shard's parts, for some seconds."""
    begun = time.monotonic()
    with contextlib.closing(read_parts(job, task, stages=Stages("reader", "read"))) as parts:
        for part in parts:
            header = Header.from_json(part["header"][0].as_py())
            if header.problem is not None:
                return
            account.add(header.usage)
            if not header.start:
                read.parts.append(part)
            read.rows += header.rows
            if header.last:
                read.whole_rows, read.whole_bytes = read.whole_rows + header.total_rows, read.whole_bytes + header.size
            if time.monotonic() - begun > READ_SECONDS:
                return


def label_and_encode(job: Job, parts: Sequence[pa.Table], device: str, account: Account) -> int:
    """How many rows were labelled."""
    for index in range(len(job.labelers)):
        stage = open_stage(job, index, device)
        stage.stages.enter("idle")
        with contextlib.closing(stage):
            parts = [stage.label_part(part) for part in parts]
    writer, rows = Stages("writer", "encode"), 0
    for part in parts:
        header = Header.from_json(part["header"][0].as_py())
        table = part_labels(job, part)
        encode_label_shard(table.drop_columns(["detail"]))
        rows += header.rows
        account.add([*header.usage[1:], writer.take()])  # the first is the reader's
        account.spend(header.spent)
    return max(1, rows)


def bytes_per_sample(job: Job, read: Read) -> float:
    """As it lies in the source."""
    if read.whole_rows:
        return max(1.0, read.whole_bytes / read.whole_rows)
    sampling = take(job.source, SAMPLES_FOR_SIZE)
    return max(1.0, sampling.size_bytes / sampling.samples_in_source)


def local_pool(job: Job, device: str) -> Pool:
    """What a run on this machine alone would have."""
    resources = job.recipe.resources
    actors = resources.actors.min if resources.actors else 1
    gpus = (resources.gpus if resources.gpus is not None else 1.0) if device != "cpu" else 0.0
    cores = len(os.sched_getaffinity(0))
    left = cores - (0 if gpus else len(pools(job)) * actors * resources.threads)
    return Pool(actors, actors, gpus, resources.readers or max(NUM_READERS, left))
