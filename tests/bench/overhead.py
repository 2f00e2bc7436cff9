"""Overhead: CPU seconds of the whole machine per 224 px image around the model, beyond what Ray Data itself takes.

Three graphs over the same shards of JPEGs that are 224 px already, each with one actor that does nothing:

- the pipeline, with a labeler that takes no time and hands out ready label maps: hashing, checking, packing, writing
  parts, merging them into label shards, receipts;
- Ray Data alone, arrays: Ray Data's identity graph. Reads with the same tar parser and the same decoder, hands tensor
  blocks to an actor that returns its batch;
- Ray Data alone, keys: the same with an actor that returns the keys alone, so that nothing comes to this process. No
  labels are written by either.

Counted is the CPU time of this process and all that it started (raylet, workers, dead ones too), in a steady state:
from the moment when a third of the shards are finished to that when eleven twelfths are. The least of several turns,
taken in turns on one Ray.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from devices import SIZE, Simulated, SimulatedParameters
from measure import TreeCpu, report, talk
from photos import jpegs, write_shards
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import Block, BlockAccessor, BlockMetadata
from sessions import local_ray, recipe
from tar_reading import chunks

from pipelines.graph import configure
from pipelines.loading import load
from pipelines.plan import make_job, plan
from pipelines.progress import Tally
from pipelines.running import label
from pipelines.stopping import StopRequest
from relabel.shards import tar
from relabel.shards.webdataset import group

PER_SHARD = 1024
PART_ROWS = 256
SHARDS, FROM, TO = 24, 8, 22
TURNS = 2
TARGET, GOAL = 0.20, 0.15


def main(folder: Path) -> None:
    source = shards_of_photos(folder)
    graphs: dict[str, Callable[[int], Iterator[int]]] = {
        "pipeline": lambda turn: pipeline(source, folder / f"store-{turn}"),
        "Ray Data alone, keys": lambda _: identity(source, Keys),
        "Ray Data alone, arrays": lambda _: identity(source, Everything),
    }
    least: dict[str, float] = {}
    with local_ray():
        for turn in range(TURNS):
            for name, graph in graphs.items():
                spent = cpu_per_image(name, graph(turn))
                least[name] = min(spent, least.get(name, spent))
    report_all(least)


def shards_of_photos(folder: Path) -> str:
    """One shard under many names."""
    pattern = write_shards(folder / "shards", jpegs(400, (SIZE, SIZE)), PER_SHARD, PER_SHARD)
    [first] = Path(pattern).parent.glob("*.tar")
    for number in range(1, SHARDS):
        (first.parent / f"{number:04d}.tar").hardlink_to(first)
    return pattern


def cpu_per_image(name: str, finished: Iterator[int]) -> float:
    """Milliseconds of CPU; `finished` yields how many images are through, and is read to its end."""
    marks: list[tuple[int, dict[str, float]]] = []
    with TreeCpu(os.getpid()) as cpu:
        for rows in finished:
            if len(marks) < 2 and rows >= (FROM, TO)[len(marks)] * PER_SHARD:
                marks.append((rows, cpu.now()))
    (begun, before), (ended, after) = marks
    per_image = {who: (after[who] - before.get(who, 0.0)) / (ended - begun) * 1e3 for who in after}
    most = sorted(per_image, key=lambda who: -per_image[who])[:6]
    talk(f"{name}: {sum(per_image.values()):.3f} ms/image: { ({who: round(per_image[who], 3) for who in most}) }")
    return sum(per_image.values())


def report_all(per_image: dict[str, float]) -> None:
    """Milliseconds of CPU per image."""
    for name, spent in per_image.items():
        report(f"{name}: reading and decoding in it", spent, "CPU ms/image")
    for baseline in ("Ray Data alone, keys", "Ray Data alone, arrays"):
        beyond = per_image["pipeline"] - per_image[baseline]
        identity = baseline.endswith("arrays")
        target = f"<= {TARGET:g} ms, then {GOAL:g}" if identity else ""
        report(f"pipeline beyond {baseline}", beyond, "CPU ms/image", f"{per_image[baseline]:.3f} ms", "", target,
               beyond <= TARGET if identity else None)  # fmt: skip


def pipeline(source: str, store: Path) -> Iterator[int]:
    """The graph of a run; yields how many images are in finished label shards."""
    step = {"simulated": {"rate": 0, "log": "", "input_size": SIZE}}
    todo = plan(make_job(load(recipe(source, store, step, compute_batch=32, part_rows=PART_ROWS))))
    rows = 0
    for receipt in label(todo, Tally(len(todo.todo)), StopRequest()):
        assert receipt.ok == PER_SHARD, receipt
        rows += receipt.rows
        yield rows


def identity(source: str, actor: type) -> Iterator[int]:
    """The graph without us: tensor blocks of as many rows as a part has, through an actor, to this process."""
    configure()
    DataContext.get_current().enable_progress_bars = False
    paths = sorted(Path(source).parent.glob("*.tar"))
    blocks = ray.data.read_datasource(Shards(paths), override_num_blocks=len(paths), num_cpus=1)
    pool = ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=2)
    passed = blocks.map_batches(actor, batch_size=PART_ROWS, batch_format="numpy", compute=pool, num_cpus=1)
    batches: Iterable[Any] = passed.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
    rows = 0
    for batch in batches:
        rows += len(batch)
        yield rows


class Shards(Datasource):
    """Tar shards as tensor blocks, read and decoded as the pipeline does, and nothing else."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(path.stat().st_size for path in self._paths)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        return [
            ReadTask(ReadBlocks(path), BlockMetadata(None, path.stat().st_size, None, None)) for path in self._paths
        ]


class ReadBlocks:
    """One shard's images and keys, so many rows a block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Iterable[Block]:
        labeler = Simulated(SimulatedParameters(rate=0, log=""))
        keys, images = [], []
        for sample in group(tar.members(chunks(self._path))):
            keys.append(sample.key)
            images.append(labeler.prepare({"image": sample.fields["jpg"]})["image"])
            if len(keys) == PART_ROWS:
                yield BlockAccessor.batch_to_block({"key": np.array(keys), "image": np.stack(images)})
                keys, images = [], []


class Keys:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"key": batch["key"]}


class Everything:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch


if __name__ == "__main__":
    main(Path(sys.argv[1]))
