"""Trying: a recipe on a few samples, in this process: no Ray, no store, nothing written but a picture."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.labelers.lock import Lock
from relabel.labels.caption import Caption
from relabel.shards.source import SourceConfig
from relabel.shards.where import Condition

from .clock import Clock
from .gallery import old_label, preview_sample
from .in_process import Trial, label_samples
from .job import Job
from .loading import load, lock_path
from .plan import make_job
from .preview import drawable, render
from .readings import read
from .recipe import Recipe
from .sampling import Sampling, parse_condition, take

MOST_DRAWN = 24
"""Rows of a picture; of more samples, so many evenly spaced ones are drawn."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """A recipe's labels of a few samples, and what they cost."""

    fingerprint: str
    """Of the recipe as it stands: what a run of it would record."""
    sampling: Sampling
    trial: Trial
    admitted: float
    """The fraction of the source's samples that the recipe's own `where` seems to admit."""
    old_labels: Sequence[str | None]
    """Per sample what the data set said."""
    picture: Path | None
    """None where no label is of a kind that can be drawn."""
    seconds: Mapping[str, float]
    """Of this process by stage."""

    def samples(self) -> list[dict[str, Json]]:
        """Per sample its place, old label, new labels in words, or why it is dead."""
        rows = zip(self.sampling.found, self.old_labels, self.trial.rows, self.trial.labels, strict=True)
        return [
            {
                "shard": found.shard,
                "key": row["key"],
                "old_label": old,
                "status": row["status"],
                "labels": described(self.trial.job, labels),
                "reason": row["reason"],
                "detail": row["detail"],
            }
            for found, old, row, labels in rows
        ]

    def cost(self) -> dict[str, Json]:
        """What the whole source would take at this speed: one actor, and CPUs that read and decode for it."""
        trial, sampling = self.trial, self.sampling
        samples = max(1, round(sampling.samples_in_source * self.admitted))
        return {
            "images_per_second": round(1 / trial.label_seconds, 2),
            "shards": sampling.num_shards,
            "source_bytes": sampling.size_bytes,
            "samples": samples,
            "actor_seconds": round(samples * trial.label_seconds, 1),
            "cpu_seconds": round(samples * trial.prepare_seconds, 1),
            "label_bytes": round(trial.bytes_per_sample),
            "all_label_bytes": round(samples * trial.bytes_per_sample),
        }

    def to_json(self) -> Json:
        return {
            "fingerprint": self.fingerprint,
            "samples": self.samples(),
            "labelled": self.trial.num_labelled,
            "dead": len(self.trial.dead),
            "refused": self.sampling.refused,
            "bad_shards": {name: str(error) for name, error in self.sampling.bad_shards},
            "speed": self.trial.speed(),
            "cost": self.cost(),
            "picture": str(self.picture) if self.picture else None,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def try_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    limit: int = 20,
    where: Sequence[str] = (),
    out: str | Path | None = None,
) -> Tried:
    """Label the first `limit` samples that the recipe and `where` admit, and draw them.

    `recipe` and `overrides` as in `loading.load`, `where` as in `sampling.parse_condition`; `out` is the PNG (default:
    `<recipe name>-try.png` here). Raises UsageError where no sample is found, TooManyDeadLetters where none could be
    labelled.
    """
    clock = Clock()
    check_place(out)
    conditions = [parse_condition(text) for text in where]
    job = make_job(load(recipe, overrides), Lock(lock_path(recipe), read_only=True))
    clock.lap("plan")
    sampling = take(narrowed(job.source, conditions), limit)
    clock.lap("read")
    trial = label_samples(with_source(job, sampling.source), sampling)
    clock.lap("label")
    trial.require_labels()
    picture = draw(trial, sampling, Path(out or f"{job.recipe.name}-try.png"))
    clock.lap("draw")
    return Tried(
        fingerprint=job.fingerprint,
        sampling=sampling,
        trial=trial,
        admitted=1.0 if conditions else sampling.admitted,
        old_labels=old_labels(trial, sampling),
        picture=picture,
        seconds=clock.take(),
    )


def check_place(out: str | Path | None) -> None:
    """Raises UsageError where no picture can be written: before anything takes time."""
    if out is not None and (not Path(out).absolute().parent.is_dir() or Path(out).is_dir()):
        raise UsageError(f"--out expects a file in a folder that exists, got {str(out)!r}.")


def narrowed(source: SourceConfig, conditions: Sequence[Condition]) -> SourceConfig:
    """The source with more conditions that a sample must meet."""
    return source.model_copy(update={"where": (*source.where, *conditions)})


def with_source(job: Job, source: SourceConfig) -> Job:
    """The job with another source; its fingerprint is another one where the samples are chosen otherwise."""
    return dataclasses.replace(job, recipe=job.recipe.model_copy(update={"source": source}))


def old_labels(trial: Trial, sampling: Sampling) -> list[str | None]:
    """What the data set says of each sample, by name where it is an index into the first label's classes."""
    names = next((names for labeler in trial.job.labelers if (names := trial.class_names(labeler.label))), ())
    said = [old_label(sampling.source, found.sample, names) for found in sampling.found]
    return [old or old_caption(labels) for old, labels in zip(said, trial.labels, strict=True)]


def old_caption(labels: Mapping[str, Any]) -> str | None:
    """What a caption keeps of the one before it."""
    return next((label.old for label in labels.values() if isinstance(label, Caption) and label.old), None)


def described(job: Job, labels: Mapping[str, Any]) -> dict[str, str]:
    """Each label in words."""
    identities = job.describe_labels()
    return {
        name: read(identities[name].contract, identities[name].class_names, value).text
        for name, value in labels.items()
    }


def draw(trial: Trial, sampling: Sampling, out: Path) -> Path | None:
    """The first label that can be drawn, a row per sample."""
    contracts = {each.label: each.writes() for each in trial.job.labelers}
    label = drawable(contracts)
    if label is None:
        return None
    names, old = trial.class_names(label), old_labels(trial, sampling)
    rows = [index for index, labels in enumerate(trial.labels) if labels]
    drawn = [
        preview_sample(sampling.source, sampling.found[row].sample, trial.labels[row][label], names, old[row])
        for row in evenly(rows, MOST_DRAWN)
    ]
    render(drawn, out, contracts[label].kind)
    return out


def evenly(rows: Sequence[int], count: int) -> Sequence[int]:
    """At most `count` of them, evenly spaced."""
    return rows if len(rows) <= count else [rows[index * len(rows) // count] for index in range(count)]
