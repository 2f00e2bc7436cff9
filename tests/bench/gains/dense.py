"""Dense: the same small network trained on one label a scene and on label maps of the pipeline, by random crops.

Scenes show two to four things (`many_objects`), of which the data set names one. A ResNet that learned things one by
one (`teacher`) labels every cell of the training scenes: a release, joined with its scenes by `release.dataset`. What
was made stays in the folder; run again, only students are trained.
"""

import dataclasses
import io
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gains import students, teacher
from gains.arms import Claim, Row, conclude
from gains.many_objects import NAMES, SIZE, Box, Scene, Split, World, members, write_scenes
from measure import report, talk
from PIL import Image
from torch.utils.data import DataLoader

import relabel
from pipelines.running import run
from pipelines.stamps import find_stamps
from relabel import Release

CROP = 48
"""Pixels that a student sees, of a random crop in training and of whole scenes in tests."""
TRIED_RATES = (1e-3, 3e-3, 8e-3)
"""Peak learning rates; each arm has the one that is best for it on the validation scenes."""
TUNING_SEED = 1000
JUDGED = 300
"""Pictures that the teacher is judged by."""
PANELS: Mapping[str, tuple[Split, str]] = {
    "names a class that is there": ("test", "there"),
    "names the one label": ("test", "named"),
    "mean average precision": ("test", "mean_ap"),
    "names a class that is there, new cut-outs": ("new", "there"),
}
"""Heading -> split and field of Scores."""
TITLE = "Small network, scenes of 2 to 4 things, one labelled"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much the experiment does."""

    train: int = 3000
    """Scenes."""
    valid: int = 600
    test: int = 1500
    new: int = 800
    alone: int = 2000
    """Pictures of one thing, for the teacher."""
    epochs: int = 12
    tuning_epochs: int = 4
    batch: int = 64
    mode: Literal["prob", "logit"] = "prob"
    """How maps are pooled."""
    seeds: Sequence[int] = tuple(range(4))
    processes: int = 2


@dataclasses.dataclass(frozen=True)
class Held:
    """Scenes of a split that no student is trained on."""

    images: np.ndarray
    """uint8 [scenes, 3, CROP, CROP]."""
    label: np.ndarray
    """int64 [scenes]."""
    there: np.ndarray
    """float32 [scenes, classes]."""


def main(folder: Path, sizes: Sizes = Sizes()) -> None:
    begun = time.monotonic()

    def say(text: str) -> None:
        talk(f"{time.monotonic() - begun:4.0f} s  {text}")

    stamps = find_stamps(folder / "stamps")
    with multiprocessing.get_context("spawn").Pool(sizes.processes, torch.set_num_threads, (1,)) as pool:
        world = World(stamps)
        write_scenes(world, "train", sizes.train, folder / "scenes")
        parts: dict[Split, int] = {"valid": sizes.valid, "test": sizes.test, "new": sizes.new}
        held = {split: pool.apply_async(held_scenes, (stamps, split, count)) for split, count in parts.items()}
        say(f"{sizes.train} scenes of {len(NAMES)} classes")
        if not (folder / "teacher" / teacher.HEAD).is_file():
            train_teacher(pool, stamps, sizes, folder / "teacher")
            say("the teacher is trained")
        splits = {split: waiting.get() for split, waiting in held.items()}
        release = labelled(folder)
        say(f"release {release.version.version}")
        about = judged(world, release, folder, sizes)
        rates = tune(pool, folder, sizes, splits["valid"])
        say(f"learning rates: {rates}")
        tasks = [(folder, sizes, seed, rates, {name: splits[name] for name in ("test", "new")}) for seed in sizes.seeds]
        rows = [row for found in pool.starmap(run_seed, tasks) for row in found]
    say("students are trained")
    conclude(TITLE, rows, claims(), folder, {}, {**about, "rates": rates, "sizes": dataclasses.asdict(sizes)})


def held_scenes(stamps: Path, split: Split, count: int) -> Held:
    """The JPEGs of a split, each stretched whole to what a student sees."""
    world = World(stamps)
    scenes = [world.scene(split, index) for index in range(count)]
    resize = relabel.Resize(CROP, output="array")
    images = [resize({"image": opened(world, scene)})["image"] for scene in scenes]
    return Held(
        np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)),
        np.array([scene.label for scene in scenes], np.int64),
        np.stack([scene.there for scene in scenes]),
    )


def opened(world: World, scene: Scene) -> Image.Image:
    return Image.open(io.BytesIO(members(world, scene)[f"{scene.key}.jpg"]))


def train_teacher(pool: Any, stamps: Path, sizes: Sizes, folder: Path) -> None:
    """Saves it, and beside it how often it is right on pictures that it did not learn from."""
    step = -(-(sizes.alone + JUDGED) // (4 * sizes.processes))
    parts = pool.starmap(teacher.look, [(stamps, at, step) for at in range(0, sizes.alone + JUDGED, step)], 1)
    seen = teacher.Seen(*(torch.cat(each) for each in zip(*parts, strict=True)))
    head = teacher.train(teacher.Seen(*(each[:-JUDGED] for each in seen)))
    said = (seen.whole[-JUDGED:] @ head["weight"].T + head["bias"]).argmax(dim=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accuracy.json").write_text(json.dumps(float((said == seen.kinds[-JUDGED:]).float().mean())))
    teacher.save(head, folder)


def labelled(folder: Path) -> Release:
    """The release of label maps of the training scenes."""
    fields = {"model": str(folder / "teacher"), "input_size": teacher.SIZE, "top_k": 5}
    recipe = {
        "name": "many-objects",
        "source": {"path": f"{folder}/scenes/train-*.tar", "old_label": "cls"},
        "steps": [{"head_teacher": fields, "as": "label_map"}],
        "store": str(folder / "labels"),
        "plugins": [str(teacher.PLUGIN)],
    }
    run(recipe)
    return relabel.open(str(folder / "labels")).release()


def judged(world: World, release: Release, folder: Path, sizes: Sizes) -> dict[str, float]:
    """How good the teacher is on pictures of one thing, and how true both kinds of labels are of random crops.

    A crop shows a thing where it has at least half of its box; of crops that show something, how often is the one label
    of the scene among what they show, and how often is the first class of the pooled map?
    """
    alone = float(json.loads((folder / "teacher" / "accuracy.json").read_text()))
    report("teacher: right on pictures of one thing", alone, f"of {JUDGED}")
    crop = relabel.RandomResizedCrop(CROP)
    dataset = release.dataset(columns=["label_map"], transform=crop, fields=["cls"], seed=TUNING_SEED)
    right: list[tuple[bool, bool]] = []
    for batch in DataLoader(dataset, batch_size=sizes.batch, collate_fn=relabel.collate):
        best = relabel.label_pooling(batch["label_map"], batch["crop"], sizes.mode).argmax(axis=1)
        for key, box, kind in zip(batch["__key__"], batch["crop"].tolist(), best, strict=True):
            scene = world.scene("train", int(key.rpartition("-")[2]))
            if shown := shown_in(world, scene, box):
                right.append((scene.label in shown, int(kind) in shown))
        if len(right) >= JUDGED:
            break
    named, pooled = (float(share) for share in np.mean(right, axis=0))
    report("random crops that show a thing: the one label is of such", named, f"of {len(right)}")
    report("the same: the first class of the pooled map is", pooled, f"of {len(right)}")
    return {"teacher alone": alone, "one label in crop": named, "pooled map in crop": pooled}


def shown_in(world: World, scene: Scene, crop: Sequence[float]) -> set[int]:
    """Classes of which a crop (y1, x1, y2, x2 in fractions) has at least half of the box."""
    top, left, bottom, right = (round(SIZE * side) for side in crop)
    seen = Box(left, top, right, bottom)
    boxes = zip(scene.things, world.boxes(scene), strict=True)
    return {thing.kind for thing, box in boxes if seen.common(box) >= 0.5 * box.area}


def batches(release: Release, sizes: Sizes, seed: int, epochs: int) -> Iterator[students.Batch]:
    """Of random crops with their pooled labels: `image`, `cls`, `label_map`, `__seed__`."""
    transform = [
        relabel.RandomResizedCrop(CROP, pool="label_map", mode=sizes.mode),
        relabel.hard_labels("cls", NAMES),
    ]
    dataset = release.dataset(
        columns=["label_map"], transform=transform, fields=["cls"], seed=seed, batch_size=sizes.batch
    )
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        yield from DataLoader(dataset, batch_size=sizes.batch, drop_last=True)


def train_arms(folder: Path, sizes: Sizes, seed: int, epochs: int, rates: Mapping[str, float]) -> dict[str, Any]:
    """By arm the trained network; the crops of a seed are the same for all."""
    release = relabel.open(str(folder / "labels")).release()
    steps = epochs * (release.counts.ok // sizes.batch)
    trainings = {
        name: students.Training(targets, len(NAMES), seed, rates[name], steps)
        for name, targets in students.ARMS.items()
    }
    return students.train_together(batches(release, sizes, seed, epochs), steps, trainings)


def tune(pool: Any, folder: Path, sizes: Sizes, valid: Held) -> dict[str, float]:
    """By arm the rate whose student names most often something that is there, in validation scenes."""
    found = pool.starmap(try_rate, [(folder, sizes, rate, valid) for rate in TRIED_RATES])
    return {name: max(zip(TRIED_RATES, found, strict=True), key=lambda pair: pair[1][name])[0] for name in found[0]}


def try_rate(folder: Path, sizes: Sizes, rate: float, valid: Held) -> dict[str, float]:
    rates = dict.fromkeys(students.ARMS, rate)
    networks = train_arms(folder, sizes, TUNING_SEED, sizes.tuning_epochs, rates)
    return {name: scores_on(network, valid).there for name, network in networks.items()}


def scores_on(network: torch.nn.Module, held: Held) -> students.Scores:
    return students.scores(network, held.images, held.label, held.there)


def run_seed(
    folder: Path, sizes: Sizes, seed: int, rates: Mapping[str, float], splits: Mapping[Split, Held]
) -> list[Row]:
    networks = train_arms(folder, sizes, seed, sizes.epochs, rates)
    rows = []
    for name, network in networks.items():
        of = {split: dataclasses.asdict(scores_on(network, held)) for split, held in splits.items()}
        rows += [Row(f"{panel}: {name}", seed, of[split][measure]) for panel, (split, measure) in PANELS.items()]
    return rows


def claims() -> list[Claim]:
    plain, smooth, maps, mixed = students.ARMS
    pairs = ((maps, plain), (maps, smooth), (mixed, maps))
    return [Claim(f"{panel}: {better}", f"{panel}: {worse}") for panel in PANELS for better, worse in pairs]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
