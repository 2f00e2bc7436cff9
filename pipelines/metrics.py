"""Metrics: the one list of what a run exports through Ray to Prometheus; dashboards and alerts are made from it.

Every metric has the tags of `TAGS`, and those that it names itself. Prometheus sees `ray_` before each name.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ray.util import metrics

from .job import Job
from .progress import Tally

SECONDS = 5.0
"""Between two updates."""
PREFIX = "ray_"
TAGS = ("recipe", "store", "team", "owner", "cost_center")
"""Of every metric. A run's id is not among them: each night would be a new series for ever."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One of them."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    help: str
    tags: tuple[str, ...] = ()
    """Beside `TAGS`."""

    @property
    def exported(self) -> str:
        """As Prometheus knows it; to counters Ray adds `_total`."""
        return f"{PREFIX}{self.name}" + ("_total" if self.kind == "counter" else "")


METRICS = (
    Metric("relabel_samples", "counter", "samples", "Samples that came through the run, dead letters included"),
    Metric("relabel_dead_letters", "counter", "samples", "Samples that could not be labelled"),
    Metric("relabel_shards_done", "counter", "shards", "Shards that are finished, those that cannot be read included"),
    Metric("relabel_dead_shards", "counter", "shards", "Shards that could not be read"),
    Metric("relabel_stage_seconds", "counter", "s", "Where the time of slots went", ("slot", "stage")),
    Metric("relabel_engine_usd", "counter", "USD", "What engines reported that they cost", ("label",)),
    Metric("relabel_open_shards", "gauge", "shards", "Shards of the plan that are still to be finished"),
    Metric("relabel_samples_per_second", "gauge", "samples/s", "Rate over the last half minute"),
    Metric("relabel_eta_seconds", "gauge", "s", "Until the last shard is finished; -1 while nobody can tell"),
    Metric("relabel_device_hours", "gauge", "h", "Device-hours that this run has used so far"),
    Metric("relabel_usd", "gauge", "USD", "What this run has cost so far"),
    Metric(
        "relabel_last_progress_timestamp",
        "gauge",
        "s",
        "When it began, or its last part came; seconds since 1970",
    ),
)
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}


class Exporter:
    """Exports one run's metrics. They end with the run: Ray forgets what a process exported once it is gone."""

    def __init__(self, job: Job, tally: Tally) -> None:
        meta = job.recipe.meta
        self._tally = tally
        self._tags = {
            "recipe": job.recipe.name,
            "store": job.recipe.store.url,
            "team": meta.team,
            "owner": meta.owner,
            "cost_center": meta.cost_center,
        }
        self._made: dict[str, Any] = {}
        self._counted: dict[tuple[str, ...], float] = {}
        self._parts = -1
        """Of which progress was told last; the start is progress, hanging before the first part is none."""

    def update(self) -> None:
        """Where the run is now."""
        tally, account = self._tally, self._tally.account
        told = account.to_json()
        self._count("relabel_samples", float(tally.samples))
        self._count("relabel_dead_letters", float(tally.dead))
        self._count("relabel_shards_done", float(tally.shards_done))
        self._count("relabel_dead_shards", float(tally.dead_shards))
        for slot, used in told["slots"].items():
            for stage, seconds in used["stages"].items():
                self._count("relabel_stage_seconds", seconds["wall"], slot=slot, stage=stage)
        for label, spent in told["spent"].items():
            self._count("relabel_engine_usd", float(spent.get("cost", 0)), label=label)
        self._set("relabel_open_shards", float(tally.shards - tally.shards_done))
        self._set("relabel_samples_per_second", tally.rate)
        eta = tally.eta_seconds
        self._set("relabel_eta_seconds", -1.0 if eta is None else eta)
        self._set("relabel_device_hours", told["cost"]["device_hours"])
        self._set("relabel_usd", told["cost"]["usd"])
        if tally.parts != self._parts:
            self._parts = tally.parts
            self._set("relabel_last_progress_timestamp", time.time())

    def _count(self, name: str, total: float, **tags: str) -> None:
        """A counter stands at `total` of this run: what is more than before is added."""
        key = name, *tags.values()
        more = total - self._counted.get(key, 0.0)
        if more > 0:
            self._metric(name).inc(more, tags={**self._tags, **tags})
            self._counted[key] = total

    def _set(self, name: str, value: float) -> None:
        self._metric(name).set(value, tags=self._tags)

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            one = BY_NAME[name]
            make = metrics.Counter if one.kind == "counter" else metrics.Gauge
            self._made[name] = make(one.name, f"{one.help} ({one.unit}).", (*TAGS, *one.tags))
        return self._made[name]


@contextlib.contextmanager
def exported(job: Job, tally: Tally) -> Iterator[None]:
    """Inside, where Ray must be connected, the run's metrics follow it."""
    exporter, done = Exporter(job, tally), threading.Event()

    def follow() -> None:
        while not done.wait(SECONDS):
            exporter.update()

    exporter.update()
    thread = threading.Thread(target=follow, daemon=True, name="metrics")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        exporter.update()
