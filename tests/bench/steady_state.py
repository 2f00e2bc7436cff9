"""Steady state: images/s of the pipeline against the bare model loop, with the same labeler, thread and batch.

Two devices, because two cores cannot feed a fast model and run it:

- a simulated accelerator, which sleeps as long as a device of 300 images/s would compute. It leaves the CPUs to
  whoever feeds it, so its busy fraction says what the feeding costs: reading, decoding and resizing real JPEGs,
  hashing, moving, writing labels.
- a real network, EfficientNet-lite0 at 224 px on one thread. Here decoding and labels share two cores and their
  caches with the model, and one figure is how much slower the model itself becomes by that.

The bare loop calls the labeler on images that lie decoded in memory; a second baseline feeds it from a torch
DataLoader with one worker that reads the same shards with webdataset and prepares images by the same code. All three
append every call to a log, and rates are taken from the logs: without the first and the last tenth of the calls.
Shards hold whole parts and parts whole batches; a shard that ends within a batch costs the rest of that batch.
Start-up (command to first call) and tail (last call to published release) are told apart.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from devices import SIZE, Simulated, SimulatedParameters, Steady, TimedLabelMap, TimedParameters, read_calls, steady
from measure import report, talk
from photos import jpegs, samples, write_shards
from sessions import local_ray, recipe

from pipelines.running import run
from relabel.labelers.labeler import Batch, Labeler
from relabel.labelers.lock import Lock

RATE = 300.0
TARGET, GOAL = 0.95, 0.97
DISTINCT = 300
Labelers = Callable[[str], Labeler[Any]]
"""Makes the labeler that logs to a file."""


def main(folder: Path) -> None:
    images = jpegs(DISTINCT, (500, 375))
    source = write_shards(folder / "shards", images, 10_240, 512)
    measure(folder, "simulated accelerator", simulated, source, batch=32, bare_rows=1_600)
    few = write_shards(folder / "few", images, 1_536, 256)
    measure(folder, "lite0 on one core", real, few, batch=8, bare_rows=400)


def simulated(log: str) -> Labeler[Any]:
    return Simulated(SimulatedParameters(rate=RATE, log=log))


def real(log: str) -> Labeler[Any]:
    labeler = TimedLabelMap(TimedParameters(model="efficientnet-lite0", input_size=SIZE, log=log))
    labeler.facts = Lock(None).facts(labeler)
    return labeler


def measure(folder: Path, title: str, make: Labelers, source: str, batch: int, bare_rows: int) -> None:
    """The pipeline between two turns of the bare loop, whose mean is the baseline: the machine's own speed drifts."""
    place = folder / title.split(maxsplit=1)[0]
    place.mkdir()
    bare = bare_loop(make, place / "bare", source, batch, bare_rows)
    piped = pipeline(title, make, place / "pipeline", source, batch)
    again = bare_loop(make, place / "again", source, batch, bare_rows)
    loader = loader_loop(make, place / "loader", source, batch, 2 * bare_rows)
    mean = mean_of(bare, again)
    talk(f"{title}: bare {bare}, again {again}, loader {loader}, pipeline {piped}")
    report(f"{title}: bare loop, decoded images", mean.rate, "images/s")
    report_against(f"{title}: DataLoader of one worker", loader, mean)
    report_against(f"{title}: pipeline", piped, mean, f">= {TARGET:g}, then {GOAL:g}")
    if mean.cpu > 1e-3:
        slower = piped.cpu / mean.cpu
        report(f"{title}: model in the pipeline", piped.cpu * 1e3, "CPU ms/image", f"bare {mean.cpu * 1e3:.3g} ms",
               f"{slower:.3f}")  # fmt: skip


def report_against(title: str, turn: Steady, mean: Steady, target: str = "") -> None:
    ratio = turn.rate / mean.rate
    baseline = f"bare loop {mean.rate:.4g}/s"
    report(title, turn.rate, "images/s", baseline, f"{ratio:.3f}", target, ratio >= TARGET if target else None)
    report(f"{title}: device busy", turn.busy, "of the time", f"bare loop {mean.busy:.3f}")


def mean_of(*turns: Steady) -> Steady:
    return Steady(*(sum(values) / len(turns) for values in zip(*map(dataclasses.astuple, turns), strict=True)))


def bare_loop(make: Labelers, log: Path, source: str, batch: int, rows: int) -> Steady:
    """The labeler over decoded images in memory, one call after the other."""
    labeler = loaded(make(str(log)), batch)
    few = [labeler.prepare({"image": data}) for data, _ in zip(encoded(source), range(DISTINCT), strict=False)]
    batches = [stack(few[start : start + batch]) for start in range(0, len(few) - batch + 1, batch)]
    for index in range(rows // batch):
        labeler(batches[index % len(batches)])
    return steady(read_calls(log))


def loaded(labeler: Labeler[Any], batch: int) -> Labeler[Any]:
    labeler.compute_batch, labeler.threads = batch, 1
    labeler.load("cpu")
    torch.set_num_threads(1)
    return labeler


def encoded(source: str) -> Iterator[bytes]:
    return (sample["jpg"] for sample in samples(sorted(Path(source).parent.glob("*.tar"))))


def stack(samples: list[Any]) -> Batch:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


class PreparedImages(torch.utils.data.IterableDataset[Any]):
    """The shards' images, prepared as the pipeline prepares them."""

    def __init__(self, labeler: Labeler[Any], source: str) -> None:
        self.labeler, self.source = labeler, source

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for data in encoded(self.source):
            prepared = self.labeler.prepare({"image": data})
            yield {name: torch.from_numpy(np.array(values)) for name, values in prepared.items()}


def loader_loop(make: Labelers, log: Path, source: str, batch: int, rows: int) -> Steady:
    """The labeler fed by torch's own loader."""
    labeler = loaded(make(str(log)), batch)
    images = PreparedImages(make(str(log)), source)
    loader = torch.utils.data.DataLoader(images, batch_size=batch, num_workers=1, prefetch_factor=4, drop_last=True)
    for index, tensors in enumerate(loader):
        labeler({name: tensor.numpy() for name, tensor in tensors.items()})
        if (index + 1) * batch >= rows:
            break
    return steady(read_calls(log))


def pipeline(title: str, make: Labelers, log: Path, source: str, batch: int) -> Steady:
    """A run into a fresh store, on a Ray that has just been started."""
    labeler = make(str(log))
    step = {labeler.name: labeler.parameters.model_dump(mode="json", exclude_none=True)}
    with local_ray():
        begun = time.monotonic()
        outcome = run(recipe(source, log.with_suffix(".store"), step, compute_batch=batch))
        ended = time.monotonic()
    assert outcome.published, outcome
    calls = read_calls(log)
    report(f"{title}: start-up, run to first call", calls[0].begun - begun, "s")
    report(f"{title}: tail, last call to release", ended - calls[-1].ended, "s")
    talk(f"stage seconds {dict(outcome.seconds)}")
    return steady(calls)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
