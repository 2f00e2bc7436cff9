"""In process: a job's labels of a few samples, made in this process exactly as a run makes them, and seen by no store.

The samples are cut into parts of one call each, so that the time of a full call is known; the code that prepares,
labels and checks them is that of a run, and so is every label.
"""

import contextlib
import ctypes
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from relabel.digests import Json
from relabel.errors import TooManyDeadLetters
from relabel.labels.shard_file import encode_label_shard
from relabel.reasons import Reason, Status
from relabel.releases.release import decode

from .asking import open_stage
from .job import Job
from .labelling import Stage
from .parts import Header, Row, part_table, prepare_row
from .recipe import Resources
from .sampling import Sampling
from .writing import part_labels

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""glibc's names for what `cluster.ALLOCATOR` sets in workers before they start."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of some samples, in order."""

    job: Job
    device: str
    table: pa.Table
    """As a label shard has it, one row per sample, and `detail`."""
    prepare_seconds: float
    """Per sample, on one CPU; without the first one where there are others."""
    load_seconds: float
    """Until the weights were on the device and proven."""
    label_seconds: float
    """Per sample of a full call, all labelers together; without the first call where there are others."""

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Per sample its cells by column name."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    @property
    def dead(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] != Status.OK]

    @property
    def num_labelled(self) -> int:
        return len(self.rows) - len(self.dead)

    @functools.cached_property
    def labels(self) -> list[dict[str, Any]]:
        """Per sample its decoded labels by name; empty where it is dead."""
        contracts = {labeler.label: labeler.writes() for labeler in self.job.labelers}
        return [
            {name: decode(contract, row) for name, contract in contracts.items()} if row["status"] == Status.OK else {}
            for row in self.rows
        ]

    @functools.cached_property
    def bytes_per_sample(self) -> float:
        """Of the label shard; what a file of no rows takes is not counted."""
        table = self.table.drop_columns(["detail"])
        return (len(encode_label_shard(table)) - len(encode_label_shard(table.slice(0, 0)))) / len(table)

    def class_names(self, label: str) -> Sequence[str]:
        """Empty where the label has none."""
        return next(labeler for labeler in self.job.labelers if labeler.label == label).class_names()

    def require_labels(self) -> None:
        """Raises TooManyDeadLetters where no sample at all was labelled."""
        if not self.num_labelled:
            first = self.dead[0]
            advice = (
                "Mend the labeler."
                if first["reason"] in (Reason.OPERATOR_ERROR, Reason.BAD_OUTPUT)
                else "Mend the samples or the recipe; `--where` chooses other ones."
            )
            raise TooManyDeadLetters(
                f"all {len(self.rows)} samples are dead letters (first: {first['key']}: {first['reason']}: "
                f"{first['detail']}). {advice}"
            )

    def speed(self) -> Json:
        return {
            "device": self.device,
            "threads": self.job.recipe.resources.threads,
            "prepare_ms": round(1000 * self.prepare_seconds, 2),
            "label_ms": round(1000 * self.label_seconds, 2),
            "load_seconds": round(self.load_seconds, 3),
        }


def label_samples(job: Job, sampling: Sampling) -> Trial:
    """Every sample prepared and labelled; a bad one is a row with its reason."""
    job.require_results()
    rows, prepare_seconds = prepare(job, sampling)
    tables = parts(job, rows)
    device = device_for(job.recipe.resources)
    load_seconds, label_seconds = 0.0, 0.0
    for index in range(len(job.labelers)):
        loading = time.perf_counter()
        stage = open_stage(job, index, device)
        load_seconds += time.perf_counter() - loading
        with contextlib.closing(stage):
            tables, seconds = label_parts(stage, tables)
        label_seconds += seconds
    return Trial(
        job=job,
        device=device,
        table=pa.concat_tables([part_labels(job, table) for table in tables]).combine_chunks(),
        prepare_seconds=prepare_seconds,
        load_seconds=load_seconds,
        label_seconds=label_seconds,
    )


def prepare(job: Job, sampling: Sampling) -> tuple[list[Row], float]:
    """The samples prepared, and the mean seconds of one."""
    rows, times = [], []
    for found in sampling.found:
        begun = time.perf_counter()
        rows.append(prepare_row(job, found.sample))
        times.append(time.perf_counter() - begun)
    # The first one also imports the decoders.
    return rows, statistics.fmean(times[1:] or times)


def parts(job: Job, rows: Sequence[Row]) -> list[pa.Table]:
    """The rows as parts that one call of a labeler can take."""
    each = job.recipe.resources.compute_batch
    cut = [rows[start : start + each] for start in range(0, len(rows), each)]
    return [part_table(job, Header("", 0, "", "", 0, rows=len(few)), list(few)) for few in cut]


def label_parts(stage: Stage, tables: Sequence[pa.Table]) -> tuple[list[pa.Table], float]:
    """The parts with one more label, and the seconds per sample of a full call."""
    labelled, calls = [], []
    for table in tables:
        begun = time.perf_counter()
        labelled.append(stage.label_part(table))
        calls.append(time.perf_counter() - begun)
    # The first call also sets kernels up.
    return labelled, statistics.median(calls[1:] or calls) / stage.compute_batch


def device_for(resources: Resources) -> str:
    """`cuda` where there is a GPU that the recipe does not decline, as a run would take it."""
    if resources.gpus == 0 or not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def settle_allocator() -> None:
    """Let this process keep large blocks, as a run's workers do; without it CPU models run at half the rate."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(MMAP_MAX, 0)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
