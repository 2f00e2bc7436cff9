"""The dense experiment rests on this: splits share nothing, targets are what arms say, students learn."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gains import students
from gains.dense import Sizes, batches, shown_in
from gains.many_objects import CLASSES, NAMES, OVERLAP, SIZE, SPLITS, World, write_scenes
from labelled_shards import Publisher, write_tars
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score

from relabel.errors import UsageError


def write_cut_outs(folder: Path, each: int = 5) -> Path:
    """So many round things of every class, where the experiment looks for them."""
    for kind, patterns in enumerate(CLASSES.values()):
        room, _, name = patterns[0].replace("**/", "").replace("t_[!b]", "t_a").rpartition("/")
        (folder / room).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            image = Image.new("RGBA", (60, 40 + kind))
            ImageDraw.Draw(image).ellipse((2, 2, 57, 37 + kind), fill=(12 * kind, 50 * number, 255 - 12 * kind))
            image.save(folder / room / f"{name.replace('*', f'{kind}{number}')}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(write_cut_outs(tmp_path_factory.mktemp("cut-outs")))


def test_splits_share_no_photograph_and_new_cut_outs_are_new(world: World) -> None:
    photos = {split: set(world.photos_of(split)) for split in SPLITS}
    assert not photos["train"] & (photos["valid"] | photos["test"] | photos["new"])
    assert not photos["valid"] & photos["test"]
    scenes = {split: [world.scene(split, index) for index in range(60)] for split in SPLITS}
    assert {scene.photo for scene in scenes["test"]} <= photos["test"]
    shown = {split: {thing.stamp for scene in each for thing in scene.things} for split, each in scenes.items()}
    assert not shown["new"] & (shown["train"] | shown["valid"] | shown["test"])
    for kind in range(len(NAMES)):
        assert set(world.stamps(kind, "new")) | set(world.stamps(kind, "train")) == set(world.kinds[kind])


def test_a_scene_shows_its_label_among_others_hardly_over_each_other(world: World) -> None:
    for index in range(40):
        scene = world.scene("train", index)
        assert len({thing.kind for thing in scene.things}) == len(scene.things) >= 2
        assert scene.there[scene.label] == 1
        assert scene.there.sum() == len(scene.things)
        boxes = world.boxes(scene)
        assert all(box.left >= 0 and box.top >= 0 and max(box.right, box.bottom) <= SIZE for box in boxes)
        assert shown_in(world, scene, (0, 0, 1, 1)) == {thing.kind for thing in scene.things}
        top, left, bottom, right = (
            side / SIZE for side in (boxes[0].top, boxes[0].left, boxes[0].bottom, boxes[0].right)
        )
        assert scene.things[0].kind in shown_in(world, scene, (top, left, bottom, right))
    overlaps = [
        one.covers(other)
        for index in range(40)
        for boxes in [world.boxes(world.scene("train", index))]
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    ]
    assert np.median(overlaps) <= OVERLAP
    assert max(overlaps) < 0.7


def test_equal_scenes_give_equal_bytes_and_other_seeds_others(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_scenes(world, "valid", 6, tmp_path / name, shards=2)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["valid-000.tar", "valid-001.tar"]
    assert [(tmp_path / "one" / name).read_bytes() for name in files] == [
        (tmp_path / "two" / name).read_bytes() for name in files
    ]
    read: dict[str, bytes] = {}
    for name in files:
        with tarfile.open(tmp_path / "one" / name) as archive:
            read |= {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert {name for name in read if name.endswith("jpg")} == {f"valid-{index:05d}.jpg" for index in range(6)}
    assert int(read["valid-00003.cls"]) == world.scene("valid", 3).label


def test_too_few_cut_outs_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 4 cut-outs of class 'ball', got"):
        World(write_cut_outs(tmp_path, each=3))


def test_targets_are_what_the_arms_say() -> None:
    one = torch.eye(4)
    batch = {
        "image": torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).to(torch.uint8),
        "cls": one,
        "label_map": torch.full((4, 4), 0.25),
        "__seed__": torch.arange(4),
    }
    targets = {name: make(batch)[1] for name, make in students.ARMS.items()}
    assert torch.equal(targets["one label"], one)
    assert torch.allclose(targets["label smoothing"], one * 0.9 + 0.025)
    assert torch.equal(targets["label maps"], batch["label_map"])
    for target in targets.values():
        assert torch.allclose(target.sum(dim=1), torch.ones(4), atol=1e-6)
    turns = (batch | {"label_map": one, "__seed__": torch.arange(first, first + 4)} for first in range(0, 64, 4))
    mixed = torch.cat([students.pooled_and_mixed(turn)[1] for turn in turns])
    assert 0.1 < ((mixed > 0) & (mixed < 1)).any(dim=1).float().mean() < 0.9


def test_average_precision_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    for share in (0.1, 0.5):
        score, positive = random.random(200), random.random(200) < share
        expected = average_precision_score(positive, score)
        assert students.average_precision(score, positive.astype(float)) == pytest.approx(expected, abs=1e-12)
    assert students.average_precision([0.5, 0.1], [0.0, 0.0]) == 0


class Always(torch.nn.Module):
    """Says what it was told."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


def test_scores_of_known_answers() -> None:
    logits = torch.tensor([[3.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]])
    there = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1]], np.float32)
    found = students.scores(Always(logits), np.zeros((4, 3, 8, 8), np.uint8), np.array([1, 1, 1, 2]), there)
    assert (found.named, found.there) == (0.5, 0.75)


def test_a_student_learns_one_class_of_colour_and_equal_seeds_learn_equally() -> None:
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)

    def stream() -> "list[dict[str, torch.Tensor]]":
        found = []
        for _ in range(60):
            kinds = torch.randint(0, 3, (16,), generator=random)
            images = torch.randint(0, 60, (16, 3, 48, 48), generator=random).to(torch.uint8)
            images[torch.arange(16), kinds] += 150
            found.append({"image": images, "cls": torch.eye(3)[kinds], "kinds": kinds})
        return found

    seen = stream()
    made = {name: students.Training(students.one_label, 3, seed, 3e-3, 50)
            for name, seed in (("a", 1), ("b", 1), ("c", 2))}  # fmt: skip
    networks = students.train_together(seen, 50, made)
    weights = {name: torch.cat([each.flatten() for each in network.parameters()]) for name, network in networks.items()}
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])
    held = seen[-1]
    said = networks["a"](students.scaled(held["image"])).argmax(dim=1)
    assert (said == held["kinds"]).float().mean() > 0.9
    with pytest.raises(ValueError, match="expected 50 batches, got 10"):
        students.train_together(seen[:10], 50, {"a": students.Training(students.one_label, 3, 1, 3e-3, 50)})


def test_batches_are_crops_with_pooled_labels_equal_for_equal_seeds(
    tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    labels = [(photo, number % len(NAMES)) for number, (photo, _) in enumerate(photos)]
    write_tars(f"{tmp_path}/media", labels, [12, 12])
    release = Publisher(
        f"{tmp_path}/labels", {"path": f"{tmp_path}/media/*.tar"}, labels=["label_map"], classes=len(NAMES)
    ).publish()
    sizes = Sizes(batch=8)
    one, again, other = (list(batches(release, sizes, seed, 2)) for seed in (0, 0, 1))
    assert len(one) == len(again) == 6
    for batch, same in zip(one, again, strict=True):
        assert batch["__key__"] == same["__key__"]
        assert torch.equal(batch["image"], same["image"])
        assert batch["image"].shape == (8, 3, 48, 48)
        assert torch.allclose(batch["label_map"].sum(dim=1), torch.ones(8, dtype=batch["label_map"].dtype), atol=1e-4)
    assert [batch["__key__"] for batch in one] != [batch["__key__"] for batch in other]
