"""Captions: an image-text model trained on poor alt texts, on new captions of the pipeline, and on both mixed.

Scenes are those of `make demo-captions`; so is the captioner, tuned on scenes that share no pair of things with these,
and taken from the demo's folder where it is there. What is asked is retrieval by what people say of scenes that nothing
was trained on. What was made stays in the folder; run again, only image-text models are trained.
"""

import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gains import pairing
from gains.arms import Claim, Row, conclude
from measure import report, talk
from torch.utils.data import DataLoader

import relabel
from pipelines.demo_captions import Sizes as DemoSizes
from pipelines.demo_captions import measured, shipped, tuning_recipe, written
from pipelines.loading import SHIPPED
from pipelines.running import run
from pipelines.scenes import SceneMaker, demo_photos, write_scenes
from pipelines.stamps import find_stamps, read_stamps
from pipelines.tuning import tune
from pipelines.tuning_loading import load_tuning
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.families import load_classifier
from relabel.releases.release import Release

DEMO = Path(__file__).parents[3] / "demo-captions"
"""Where `make demo-captions` leaves its captioner."""
RATES = (5e-4, 1e-3, 2e-3)
"""Peak learning rates; each arm has the one that is best for it on the validation scenes."""
TUNING_SEED = 1000
PEOPLE = ("gold.short.txt", "gold.long.txt")
PANELS: Mapping[str, str] = {
    "text finds its image first": "first",
    "text finds its image among five": "five",
    "image finds its text first": "text",
}
"""Heading -> field of Retrieval."""
TITLE = "Retrieval by what people say of held-out scenes"
ALT, NEW, MIX, GOLD = "alt texts", "new captions", "both, mixed", "by people"

Sample = dict[str, Any]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much the experiment does."""

    train: int = 1500
    """Scenes with poor alt texts, which are captioned anew."""
    valid: int = 300
    test: int = 600
    epochs: int = 30
    batch: int = 125
    seeds: Sequence[int] = tuple(range(5))
    processes: int = 2
    tuning: int = DemoSizes.tuning
    """Scenes that the captioner is tuned on, where the demo left none."""
    train_captioner: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What of the shipped tuning recipe's `train` is changed."""


@dataclasses.dataclass(frozen=True)
class Held:
    """Scenes that nothing is trained on."""

    features: torch.Tensor
    """float32 [scenes, channels]."""
    texts: Sequence[str]
    """What people say."""


class OldText:
    """A transform: the label becomes the old caption; empty where there is none."""

    def __call__(self, sample: Sample) -> Sample:
        return {**sample, "caption": sample["caption"].old}


class Peoples:
    """A transform: the label becomes what people say, short in one epoch and long in another, by `__pick__`."""

    def __call__(self, sample: Sample) -> Sample:
        text = sample[PEOPLE[(sample["__pick__"] >> 40) % 2]]
        return {**sample, "caption": text.decode() if isinstance(text, bytes) else text}


class Slim:
    """A transform: what training needs."""

    def __call__(self, sample: Sample) -> Sample:
        return {"__key__": sample["__key__"], "caption": sample["caption"]}


ARMS: Mapping[str, Callable[[Sample], Sample]] = {
    ALT: OldText(),
    NEW: relabel.caption_mix({"short": 1.0, "long": 1.0}),
    MIX: relabel.caption_mix({"alt": 1.0, "short": 1.0, "long": 1.0}),
    GOLD: Peoples(),
}


def main(folder: Path, sizes: Sizes | None = None, maker: SceneMaker | None = None, demo: Path = DEMO) -> None:
    sizes, begun = sizes or Sizes(), time.monotonic()

    def say(text: str) -> None:
        talk(f"{time.monotonic() - begun:4.0f} s  {text}")

    maker = maker or SceneMaker(read_stamps(find_stamps(folder / "stamps")), demo_photos())
    model = captioner(folder, maker, sizes, demo, say)
    write_scenes(maker, "held-out", sizes.train, folder / "scenes" / "held-out")
    say(f"{sizes.train} scenes with poor alt texts")
    release = captioned(folder, model)
    said = measured(release)
    say(f"release {release.version.version}: {said}")
    vectors = features_of(folder, maker, sizes)
    say(f"features of {len(vectors)} scenes")
    with multiprocessing.get_context("spawn").Pool(sizes.processes, torch.set_num_threads, (1,)) as pool:
        rates = tune_rates(pool, folder, sizes, maker, vectors)
        say(f"learning rates: {rates}")
        test = held(maker, vectors, range(sizes.train + sizes.valid, sizes.train + sizes.valid + sizes.test))
        tasks = [(folder, sizes, arm, seed, rates[arm], vectors, test) for arm in ARMS for seed in sizes.seeds]
        found = pool.starmap(run_arm, tasks, chunksize=1)
    rows = [
        Row(f"{panel}: {task[2]}", task[3], getattr(retrieval, field))
        for panel, field in PANELS.items()
        for task, retrieval in zip(tasks, found, strict=True)
    ]
    report("test scenes", len(test.texts), "", f"{len(set(test.texts))} different captions")
    about = {"captions": said, "rates": rates, "sizes": dataclasses.asdict(sizes)}
    conclude(TITLE, rows, claims(), folder, {}, about)


def captioner(folder: Path, maker: SceneMaker, sizes: Sizes, demo: Path, say: Say) -> Path:
    """The folder of the demo's captioner where it is there, else of one tuned here."""
    if (demo / "captioner" / "tuning.json").is_file():
        say(f"captioner of {demo}")
        return demo / "captioner"
    write_scenes(maker, "tuning", sizes.tuning, folder / "scenes" / "tuning", DemoSizes.tuning_shards)
    return tune(load_tuning(tuning_recipe(folder, sizes.train_captioner)), say).folder


def captioned(folder: Path, model: Path) -> Release:
    """The release of new captions of the training scenes."""
    fields = shipped(SHIPPED / "recaption.yaml")
    fields["source"]["path"] = f"{folder}/scenes/held-out/*.tar"
    fields["steps"][0]["caption"]["engine"]["model"] = str(model)
    fields["store"] = str(folder / "captions")
    run(written(folder / "recaption.yaml", fields))
    return relabel.open(str(folder / "captions")).release()


def features_of(folder: Path, maker: SceneMaker, sizes: Sizes) -> dict[str, torch.Tensor]:
    """Of all scenes, by key: mean and largest of EfficientNet-lite0's last features over the cells."""
    keys = [maker.scene("held-out", index).key for index in range(sizes.train + sizes.valid + sizes.test)]
    kept = folder / "features.npz"
    if not kept.is_file() or list(np.load(kept)["keys"]) != keys:
        classifier = load_classifier(find_checkpoint("efficientnet-lite0"))
        rows = []
        for start in range(0, len(keys), 8):
            scenes = [maker.scene("held-out", index) for index in range(start, min(start + 8, len(keys)))]
            pixels = torch.from_numpy(np.stack([maker.picture(scene) for scene in scenes]))
            with torch.inference_mode():
                cells = classifier.features(classifier.normalisation.apply(pixels))
            assert isinstance(cells, torch.Tensor)
            rows.append(torch.cat([cells.mean(dim=(2, 3)), cells.amax(dim=(2, 3))], dim=1).numpy())
        np.savez(kept, keys=keys, features=np.concatenate(rows))
    read = np.load(kept)
    return dict(zip(keys, torch.from_numpy(read["features"]), strict=True))


def held(maker: SceneMaker, vectors: pairing.Vectors, indices: Sequence[int]) -> Held:
    scenes = [maker.scene("held-out", index) for index in indices]
    return Held(torch.stack([vectors[scene.key] for scene in scenes]), [scene.short for scene in scenes])


def batches(folder: Path, sizes: Sizes, arm: str, seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Keys and texts, epoch by epoch; samples without a text are left out."""
    release = relabel.open(str(folder / "captions")).release()
    dataset = release.dataset(
        columns=["caption"], transform=[ARMS[arm], Slim()], seed=seed, batch_size=sizes.batch, decode=False
    )
    for epoch in range(sizes.epochs):
        dataset.set_epoch(epoch)
        for batch in DataLoader(dataset, batch_size=sizes.batch, drop_last=True):
            pairs = [(key, text) for key, text in zip(batch["__key__"], batch["caption"], strict=True) if text]
            yield [key for key, _ in pairs], [text for _, text in pairs]


def run_arm(
    folder: Path, sizes: Sizes, arm: str, seed: int, rate: float, vectors: pairing.Vectors, scenes: Held
) -> pairing.Retrieval:
    steps = sizes.epochs * (sizes.train // sizes.batch)
    model = pairing.train(batches(folder, sizes, arm, seed), steps, vectors, seed, rate)
    return pairing.retrieve(model, scenes.features, scenes.texts)


def tune_rates(pool: Any, folder: Path, sizes: Sizes, maker: SceneMaker, vectors: pairing.Vectors) -> dict[str, float]:
    """By arm the rate at which most validation texts find their image among five."""
    valid = held(maker, vectors, range(sizes.train, sizes.train + sizes.valid))
    tasks = [(folder, sizes, arm, TUNING_SEED, rate, vectors, valid) for arm in ARMS for rate in RATES]
    found = {(task[2], task[4]): each.five for task, each in zip(tasks, pool.starmap(run_arm, tasks, 1), strict=True)}
    return {arm: max(RATES, key=lambda rate: found[arm, rate]) for arm in ARMS}


def claims() -> list[Claim]:
    pairs = ((NEW, ALT), (MIX, ALT), (MIX, NEW))
    return [Claim(f"{panel}: {better}", f"{panel}: {worse}") for panel in PANELS for better, worse in pairs]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
