"""Comparing: two recipes on the same samples, side by side, with agreement and cost, before anyone pays for a run.

Compared is the first label of each.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json
from relabel.errors import TooManyDeadLetters
from relabel.labelers.lock import Lock
from relabel.labels.contract import LabelContract

from .agreement import (
    CellAgreement,
    Correspondence,
    by_common_ids,
    cell_agreement,
    correspond,
    mean_agreement,
    old_class,
)
from .caption_pairs import CaptionPair
from .caption_pairs import render as render_captions
from .clock import Clock
from .gallery import old_label
from .in_process import Trial, label_samples
from .job import Job
from .loading import load, lock_path
from .photos import photo
from .plan import differences, make_job
from .readings import Classified, Reading, read
from .recipe import Recipe
from .sampling import Found, Sampling, parse_condition, take
from .side_by_side import Pair, render
from .trying import MOST_DRAWN, check_place, evenly, narrowed, old_caption, with_source

MOST_TOLD = 3
"""Parameters that the head of a column names."""

AnyRecipe = str | Path | Mapping[str, Any] | Recipe


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two recipes."""

    fingerprint: str
    """Of the recipe as it stands: what a run of it would record."""
    trial: Trial

    @property
    def name(self) -> str:
        return self.trial.job.recipe.name

    @property
    def label(self) -> str:
        return self.trial.job.labelers[0].label

    @property
    def contract(self) -> LabelContract:
        return self.trial.job.labelers[0].writes()

    @property
    def class_names(self) -> Sequence[str]:
        return self.trial.class_names(self.label)

    def readings(self) -> list[Reading | None]:
        """Per sample; None where it is dead."""
        contract, names = self.contract, self.class_names
        return [read(contract, names, labels[self.label]) if labels else None for labels in self.trial.labels]


@dataclasses.dataclass(frozen=True)
class Compared:
    """One sample on both sides; a reading is None where the sample is dead."""

    found: Found
    old_label: str | None
    readings: tuple[Reading | None, Reading | None]
    classified: tuple[Classified, Classified] | None
    """By common ids; None where a side has no classes here."""
    cells: CellAgreement | None
    """None also where the two share no class."""
    old_class: int | None
    """By common id, where the old label is one of the classes."""

    @property
    def same_best(self) -> bool | None:
        """Whether the whole image has one class."""
        if self.classified is None or self.cells is None:
            return None
        return self.classified[0].best == self.classified[1].best

    def to_json(self) -> dict[str, Json]:
        first, second = self.readings
        return {
            "shard": self.found.shard,
            "key": self.found.sample.key,
            "old_label": self.old_label,
            "a": first.text if first else "dead",
            "b": second.text if second else "dead",
            "same_best": self.same_best,
            "cells": in_numbers(self.cells),
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two recipes on the same samples."""

    sampling: Sampling
    sides: tuple[Side, Side]
    samples: Sequence[Compared]
    differences: Sequence[str]
    """Between the two labelers, one line each."""
    notes: Sequence[str]
    """What a reader of the figures must know."""
    picture: Path | None
    """None where the labels are of kinds that have no classes to draw."""
    seconds: Mapping[str, float]
    """Of this process by stage."""

    @property
    def cost_ratio(self) -> float:
        """Time per image of the second over that of the first."""
        return self.sides[1].trial.label_seconds / self.sides[0].trial.label_seconds

    def agreement(self) -> dict[str, Json]:
        """How often the two say the same; None where there is nothing to compare."""
        both = [each.readings for each in self.samples if None not in each.readings]
        best = [each.same_best for each in self.samples if each.same_best is not None]
        return {
            "both_labelled": len(both),
            "same_text": sum(first == second for first, second in (texts(pair) for pair in both)),
            "same_best": sum(best) if best else None,
            "cells": in_numbers(mean_agreement([each.cells for each in self.samples if each.cells is not None])),
        }

    def describe_side(self, index: int) -> dict[str, Json]:
        side, trial = self.sides[index], self.sides[index].trial
        found = [each.classified[index] for each in self.samples if each.classified is not None]
        old = [each for each in self.samples if each.classified is not None and each.old_class is not None]
        agreeing = sum(each.classified is not None and each.classified[index].best == each.old_class for each in old)
        return {
            "recipe": side.name,
            "label": side.label,
            "kind": side.contract.kind,
            "fingerprint": side.fingerprint,
            "labelled": trial.num_labelled,
            "dead": {row["key"]: f"{row['reason']}: {row['detail']}" for row in trial.dead},
            "mean_confidence": rounded(mean(each.confidence for each in found)),
            "old_label": {"agree": agreeing, "of": len(old)} if old else None,
            "bytes_per_sample": round(trial.bytes_per_sample),
            "speed": trial.speed(),
        }

    def to_json(self) -> Json:
        return {
            "a": self.describe_side(0),
            "b": self.describe_side(1),
            "differences": list(self.differences),
            "notes": list(self.notes),
            "agreement": self.agreement(),
            "cost_ratio": float(f"{self.cost_ratio:.3g}"),
            "samples": [each.to_json() for each in self.samples],
            "bad_shards": {name: str(error) for name, error in self.sampling.bad_shards},
            "picture": str(self.picture) if self.picture else None,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def compare(
    first: AnyRecipe,
    second: AnyRecipe,
    overrides: Sequence[str] = (),
    second_overrides: Sequence[str] = (),
    *,
    limit: int = 20,
    where: Sequence[str] = (),
    out: str | Path | None = None,
) -> Comparison:
    """Label the first `limit` samples that the first recipe and `where` admit with both recipes, and draw them.

    `overrides` are those of both recipes, `second_overrides` of the second alone; the rest as in `try_recipe`. Raises
    TooManyDeadLetters where no sample was labelled by both.
    """
    clock = Clock()
    check_place(out)
    conditions = [parse_condition(text) for text in where]
    jobs = [open_job(first, overrides), open_job(second, [*overrides, *second_overrides])]
    clock.lap("plan")
    sampling = take(narrowed(jobs[0].source, conditions), limit)
    clock.lap("read")
    # One after the other: they may set different numbers of threads, and memory is not for two.
    a, b = (Side(job.fingerprint, label_samples(with_source(job, sampling.source), sampling)) for job in jobs)
    clock.lap("label")
    classes = common_classes(a, b)
    samples = compare_samples(sampling, (a, b), classes)
    picture = picture_of(sampling, (a, b), samples, classes, Path(out or f"{a.name}-compare.png"))
    clock.lap("draw")
    return Comparison(
        sampling=sampling,
        sides=(a, b),
        samples=samples,
        differences=tell_apart(*jobs),
        notes=list(notes(jobs, (a, b), classes)),
        picture=picture,
        seconds=clock.take(),
    )


def open_job(recipe: AnyRecipe, overrides: Sequence[str]) -> Job:
    return make_job(load(recipe, overrides), Lock(lock_path(recipe), read_only=True))


def common_classes(a: Side, b: Side) -> Correspondence | None:
    """None where a label's kind gives no class to a cell."""
    readable = all(one.classified is not None for side in (a, b) for one in side.readings() if one is not None)
    first, second = a.contract.classes, b.contract.classes
    if not readable or first is None or second is None:
        return None
    return correspond(first, a.class_names, second, b.class_names)


def compare_samples(sampling: Sampling, sides: tuple[Side, Side], classes: Correspondence | None) -> list[Compared]:
    """Raises TooManyDeadLetters where no sample was labelled by both."""
    for side in sides:
        side.trial.require_labels()
    pairs = list(zip(*(side.readings() for side in sides), strict=True))
    if not any(None not in pair for pair in pairs):
        raise TooManyDeadLetters(
            f"none of the {len(pairs)} samples was labelled by both recipes. Try each alone (`relabel try`) to see why."
        )
    rows = zip(sampling.found, pairs, sides[0].trial.labels, strict=True)
    return [compare_sample(sampling, found, pair, classes, old_caption(labels)) for found, pair, labels in rows]


def compare_sample(
    sampling: Sampling,
    found: Found,
    pair: tuple[Reading | None, Reading | None],
    classes: Correspondence | None,
    caption: str | None,
) -> Compared:
    """`caption` is what the sample's caption was, where the first label knows it."""
    old = old_label(sampling.source, found.sample, classes.names if classes and classes.same_classes else ()) or caption
    shared = shared_classes(pair, classes)
    return Compared(
        found=found,
        old_label=old,
        readings=pair,
        classified=shared,
        cells=cell_agreement(*shared) if shared and classes and classes.num_shared else None,
        old_class=old_class(old_label(sampling.source, found.sample, ()), classes) if classes else None,
    )


def shared_classes(
    pair: tuple[Reading | None, Reading | None], classes: Correspondence | None
) -> tuple[Classified, Classified] | None:
    """Both sides by common ids."""
    first, second = (reading.classified if reading else None for reading in pair)
    if first is None or second is None or classes is None:
        return None
    count = len(classes.names)
    return by_common_ids(first, classes.first, count), by_common_ids(second, classes.second, count)


def tell_apart(a: Job, b: Job) -> list[str]:
    """What differs between the two first labelers: parameters as written, then what was found of the weights."""
    one, other = a.labelers[0], b.labelers[0]
    if one.name != other.name:
        return [f"operator: {one.name} -> {other.name}"]
    written = differences(one.parameters.model_dump(mode="json"), other.parameters.model_dump(mode="json"))
    found = differences(one.identity(), other.identity())
    return written + [line for line in found if not line.startswith("parameters.")]


def notes(jobs: Sequence[Job], sides: tuple[Side, Side], classes: Correspondence | None) -> Iterable[str]:
    if classes is not None:
        yield classes.note
    a, b = sides
    if jobs[0].recipe.source != jobs[1].recipe.source:
        yield "the samples are those of A's source; B's source was not read"
    for which, side in zip("AB", sides, strict=True):
        if len(side.trial.job.labelers) > 1:
            yield f"{which} writes several labels: compared is {side.label!r}, the time is that of all"
    if a.trial.device != b.trial.device or a.trial.job.recipe.resources.threads != b.trial.job.recipe.resources.threads:
        yield "the two ran on different devices or threads: the times do not compare"


def picture_of(
    sampling: Sampling, sides: tuple[Side, Side], samples: Sequence[Compared], classes: Correspondence | None, out: Path
) -> Path | None:
    """None where the labels are of kinds that cannot be drawn side by side."""
    if classes is not None:
        return draw(sampling, sides, samples, classes, out)
    if any(side.contract.styles is None for side in sides):
        return None
    both = [row for row, labels in enumerate(zip(*(side.trial.labels for side in sides), strict=True)) if all(labels)]
    pairs = [
        CaptionPair(
            photo(sampling.source, samples[row].found.sample),
            samples[row].found.sample.key,
            samples[row].old_label,
            *(side.trial.labels[row][side.label] for side in sides),
        )
        for row in evenly(both, MOST_DRAWN)
    ]
    same = sum(len({*texts(each.readings)}) == 1 for each in samples if None not in each.readings)
    render_captions(pairs, heads(*sides), f"{same} of {len(both)} samples have the same captions.", out)
    return out


def draw(
    sampling: Sampling, sides: tuple[Side, Side], samples: Sequence[Compared], classes: Correspondence, out: Path
) -> Path | None:
    """A row per sample that both labelled."""
    drawable = [each for each in samples if each.classified is not None]
    chosen = [drawable[index] for index in evenly(range(len(drawable)), MOST_DRAWN)]
    pairs = [
        Pair(
            photo(sampling.source, each.found.sample),
            each.found.sample.key,
            each.old_label,
            *each.classified,
            each.cells,
        )
        for each in chosen
        if each.classified is not None
    ]
    render(pairs, classes.names, heads(*sides), summary(samples, *sides), out)
    return out


def heads(a: Side, b: Side) -> tuple[str, str]:
    """What the two columns of the picture are called: the parameters that differ, else the recipes' names."""
    one, other = (leaves(side.trial.job.labelers[0].parameters.model_dump(mode="json")) for side in (a, b))
    told = [name for name in one if name in other and one[name] != other[name]][:MOST_TOLD]
    if not told:
        return a.name, b.name
    first, second = (", ".join(spoken(name, each[name]) for name in told) for each in (one, other))
    return first, second


def leaves(parameters: Mapping[str, Json]) -> dict[str, Json]:
    """`{"styles": {"short": {"top_k": 3}}}` as `{"styles.short.top_k": 3}`."""
    found: dict[str, Json] = {}
    for name, value in parameters.items():
        inner = leaves(value) if isinstance(value, Mapping) else {}
        found |= {f"{name}.{place}": leaf for place, leaf in inner.items()} or {name: value}
    return found


def spoken(name: str, value: Json) -> str:
    """A parameter; names of models and engines speak for themselves."""
    return str(value) if isinstance(value, str) else f"{name} {value}"


def summary(samples: Sequence[Compared], a: Side, b: Side) -> str:
    """One line above the picture."""
    best = [each.same_best for each in samples if each.same_best is not None]
    cells = mean_agreement([each.cells for each in samples if each.cells is not None])
    first, second = a.trial.label_seconds, b.trial.label_seconds
    unit = "pixels" if a.contract.kind == b.contract.kind == "mask" else "cells"
    agreement = (
        "A and B have no class in common"
        if cells is None
        else f"A and B agree on {sum(best)} of {len(best)} whole images and on {cells} of the {unit}"
    )
    return (
        f"{agreement}.  Time per image: A {1000 * first:.1f} ms, B {1000 * second:.1f} ms, {second / first:.2g} times "
        "as long."
    )


def texts(pair: tuple[Reading | None, Reading | None]) -> list[str]:
    return [reading.whole or reading.text for reading in pair if reading is not None]


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def in_numbers(cells: CellAgreement | None) -> dict[str, Json] | None:
    return None if cells is None else {"equal": round(cells.equal, 4), "compared": round(cells.compared, 4)}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
