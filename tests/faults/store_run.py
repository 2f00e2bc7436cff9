"""Store run: everything that a run asks of its store, through the functions of the programs, without Ray and torch."""

import dataclasses
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipelines.account import Account
from pipelines.coverage import Coverage
from pipelines.job import Job, ShardTask
from pipelines.labelling import LabelStage
from pipelines.outcome import Outcome, draft, publish
from pipelines.plan import Plan, plan
from pipelines.reading import read_parts
from pipelines.recipe import Recipe
from pipelines.replay import Replayed, keep_unpublished, plan_replay, publish_repaired, summary
from pipelines.writing import merge_shard, write_part
from relabel import Batch, Fields, LabelContract, Labeler, Labels, Parameters, Prepared, scores
from relabel.errors import BadSample, RelabelError
from relabel.reasons import Reason
from relabel.releases.doctor import require_commits
from relabel.releases.operators import claim_source
from relabel.releases.receipts import Receipt, Receipts
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import Crash

SHARDS = {"a.tar": 2, "b.tar": 3, "broken.tar": 1}
PART_ROWS = 2


class Length(Labeler[Parameters]):
    """How long a text is; the text `bad` is a bad sample, until somebody mends what is wrong with it."""

    name, version, needs = "length", 1, ("txt",)
    mended: ClassVar[bool] = False

    def writes(self) -> LabelContract:
        return scores(self.label, "value")

    def prepare(self, sample: Fields) -> Prepared:
        if sample["txt"] == b"bad" and not Length.mended:
            raise BadSample(Reason.CORRUPT_IMAGE, "says so itself")
        return {"length": np.array(len(str(sample["txt"])), np.float32)}

    def __call__(self, batch: Batch) -> Labels:
        return self.columns(value=np.asarray(batch["length"]))


@dataclasses.dataclass(frozen=True)
class StoreJob(Job):
    """A job whose store is given, whatever its recipe says."""

    objects: ObjectStore | None = None

    def open_store(self) -> ObjectStore:
        assert self.objects is not None
        return self.objects


def write_source(folder: Path) -> Path:
    """Shards of one part, of two, and one that is cut off."""
    folder.mkdir()
    for shard, rows in SHARDS.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for row in range(rows):
                data = b"bad" if row == 1 else b"x" * (row + len(shard))
                info = tarfile.TarInfo(f"{row}.txt")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        data = buffer.getvalue()
        (folder / shard).write_bytes(data[:700] if shard == "broken.tar" else data)
    return folder


def make_run(source: Path, store: ObjectStore, run_id: str = "run", shards: str = "*.tar", **sections: Any) -> StoreJob:
    recipe = Recipe.model_validate(
        {
            "name": "faults",
            "source": {"path": str(source / shards)},
            "steps": ["length"],
            "store": "unused",
            "resources": {"part_rows": PART_ROWS, "compute_batch": 2},
            "dead_letters": {"max_fraction": 1.0},
            **sections,
        }
    )
    return StoreJob(run_id, recipe, (Length(Parameters()),), objects=store)


def run(job: StoreJob) -> Outcome:
    """What `pipelines.run` does, in this thread."""
    todo = plan(job)
    receipts = dict(todo.done)
    if todo.todo:
        store = job.open_store()
        require_commits(store)
        for own in job.own_labelers:
            claim_source(store, own.name, own.version, own.source)
        made = list(label(job, todo))
        receipts |= {receipt.token: receipt for receipt in made}
        if len(made) > 1:
            Receipts(store, job.fingerprint).fold(made)
    return publish(todo, receipts, Account(), draft)


def replay(job: StoreJob, release: int | str | None = "latest", reason: str | None = None) -> Replayed:
    """What `pipelines.replay` does, in this thread."""
    todo = plan_replay(job, release, reason)
    receipts = dict(todo.done)
    if todo.todo:
        made = list(label(dataclasses.replace(job, withdrawn=todo.job.withdrawn), todo))
        receipts |= {receipt.token: receipt for receipt in made}
        if len(made) > 1:
            Receipts(job.open_store(), job.fingerprint).fold(made)
    finish = keep_unpublished if release is None else publish_repaired
    return summary(finish(todo, receipts, Account()))


def label(job: StoreJob, todo: Plan) -> Iterator[Receipt]:
    tasks = [entry.task for entry in todo.todo]
    coverage = Coverage(tasks)
    for task in tasks:
        for part in labelled_parts(job, task):
            event = write_part(job, job.open_store(), part)
            if event.receipt is not None:
                yield event.receipt
            elif (complete := coverage.add(event)) is not None:
                yield merge_shard(job, *complete)


_parts: dict[tuple[Any, ...], list[pa.Table]] = {}


def labelled_parts(job: StoreJob, task: ShardTask) -> list[pa.Table]:
    """What the graph hands to the writer; the same shard is read and labelled once for all runs."""
    replay, withdrawn = task.replay and task.replay.name, tuple(sorted(job.withdrawn.keys_of(task.shard.name)))
    key = (
        task.shard.token,
        task.generation,
        tuple(task.finished_parts),
        replay,
        withdrawn,
        job.fingerprint,
        Length.mended,
    )
    if key not in _parts:
        stage = LabelStage(job, 0, "cpu")
        _parts[key] = [stage(part) for part in read_parts(job, task)]
    return _parts[key]


def until_done(job: StoreJob, most: int = 2) -> tuple[Outcome, int]:
    """The same run again, as its messages ask, and how often it was started."""
    for turn in range(1, most):
        try:
            return run(job), turn
        except RelabelError as error:
            assert "un again" in str(error), error
    return run(job), most


def survived(job: StoreJob) -> bool:
    """Whether a run under faults came to its end; where it did not, it died or said why."""
    try:
        run(job)
    except (Crash, RelabelError):
        return False
    return True
