"""`try`: a run's labels of a few samples, without Ray, without a store, nothing written but the picture."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import two_colours
import yaml
from PIL import Image
from releases_of_photos import write_tar

from pipelines.command_line import main
from pipelines.job import ShardTask
from pipelines.labelling import LabelStage
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.reading import read_parts
from pipelines.trying import MOST_DRAWN, Tried, evenly, try_recipe
from pipelines.writing import part_labels
from relabel.errors import TooManyDeadLetters, UsageError
from relabel.shards.source import open_source

Make = Callable[..., dict[str, Any]]


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


PROBE = """
import sys
from pipelines.command_line import main
code = main(sys.argv[1:])
print("ray" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_the_command_needs_no_ray_and_writes_only_the_picture(recipe: Make, root: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "maps.yaml", recipe(name="maps"))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "try", str(file), "--limit", "4", "--json"], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "operators"), str(root)])}, text=True, timeout=800,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
    assert {path.name for path in tmp_path.iterdir()} == {"maps.yaml", "maps-try.png"}
    told = json.loads(done.stdout)
    assert (told["labelled"], told["dead"], told["picture"]) == (4, 0, "maps-try.png")
    assert told["fingerprint"] == make_job(load(file)).fingerprint
    with Image.open(tmp_path / "maps-try.png") as picture:
        assert picture.width == 1650


@pytest.fixture(scope="module")
def photos_recipe(demo_shards: Path) -> dict[str, Any]:
    """As `recipe` makes it; its store is never written to."""
    return {
        "source": {"path": f"{demo_shards}/*.tar", "old_label": "cls"},
        "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 64}}],
        "store": "nowhere",
    }


@pytest.fixture(scope="module")
def tried(photos_recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """All 26 photos, more than a picture shows."""
    return try_recipe(photos_recipe, limit=30, out=tmp_path_factory.mktemp("tried") / "all.png")


def test_labels_are_those_of_a_run(photos_recipe: dict[str, Any], tried: Tried) -> None:
    """Bit for bit what the run's stages make of whole shards."""
    job = make_job(load(photos_recipe))
    stage = LabelStage(job, 0, "cpu")
    shards = open_source(job.source).shards()
    wholes = [part for shard in shards for part in read_parts(job, ShardTask(shard))]
    expected = pa.concat_tables([part_labels(job, stage.label_part(part)) for part in wholes])
    assert tried.trial.table.equals(expected)


def test_it_says_what_is_needed_to_decide(tried: Tried) -> None:
    told = tried.to_json()
    chelsea = next(sample for sample in told["samples"] if sample["key"] == "chelsea")
    assert (chelsea["shard"], chelsea["status"], chelsea["old_label"]) == ("photos-001.tar", "ok", None)
    assert chelsea["labels"]["label_map"].endswith(" %")
    assert next(sample for sample in told["samples"] if "_471" in sample["key"])["old_label"] == "cannon"
    cost = told["cost"]
    assert (cost["shards"], cost["source_bytes"]) == (5, tried.sampling.size_bytes)
    assert 26 <= cost["samples"] <= 28
    assert cost["images_per_second"] * told["speed"]["label_ms"] == pytest.approx(1000, rel=0.05)
    assert 50 < cost["label_bytes"] < 500  # 2 x 2 cells of 5 classes
    assert set(told["seconds"]) == {"plan", "read", "label", "draw"}


def test_many_samples_are_drawn_evenly() -> None:
    assert evenly(range(5), MOST_DRAWN) == range(5)
    assert list(evenly(range(100), 4)) == [0, 25, 50, 75]


def test_where_chooses_samples_and_leaves_the_fingerprint(recipe: Make, tmp_path: Path) -> None:
    tried = try_recipe(recipe(), limit=5, where=["cls=609"], out=tmp_path / "jeeps.png")
    assert [row["key"] for row in tried.trial.rows] == ["imagenet_06_609", "imagenet_07_609"]
    assert tried.sampling.refused == 24
    assert tried.fingerprint == make_job(load(recipe())).fingerprint


def test_bad_samples_and_shards_are_told(
    recipe: Make, tmp_path: Path, photos: list[tuple[bytes, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photos[0][0]
    write_tar(tmp_path / "in" / "a.tar", {"cut.jpg": photo[: len(photo) // 2], "good.jpg": photo, "text.png": b"no"})
    whole = write_tar(tmp_path / "in" / "b.tar", {"c.jpg": photo, "d.jpg": photo}).read_bytes()
    (tmp_path / "in" / "b.tar").write_bytes(whole[: len(whole) // 2])
    file = write_recipe(tmp_path / "r.yaml", recipe(source={"path": f"{tmp_path}/in/*.tar"}))
    assert main(["try", str(file), "--limit", "4", "--out", str(tmp_path / "some.png")]) == 0
    said = capsys.readouterr().out
    assert "1 labelled, 2 dead letters" in said
    assert "dead: corrupt_image: " in said
    assert "dead: not_an_image: " in said
    assert "bad shard    b.tar: truncated_shard" in said
    assert (tmp_path / "some.png").is_file()


def test_exit_codes(recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe())
    assert main(["try", str(file), "--where", "cls>5000"]) == 2
    assert "none of the 26 samples looked at is admitted" in capsys.readouterr().err
    assert main(["try", str(file), "--where", "cls"]) == 2
    assert main(["try", str(file), "--out", str(tmp_path / "nowhere" / "a.png")]) == 2
    assert "folder that exists" in capsys.readouterr().err
    write_tar(tmp_path / "bad.tar", {"x.jpg": b"nonsense", "y.jpg": b""})
    assert main(["try", str(file), "--set", f"source.path={tmp_path}/bad.tar"]) == 4
    said = capsys.readouterr().err
    assert "all 2 samples are dead letters (first: x: not_an_image" in said
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.usefixtures("other_kinds")
def test_labels_that_are_no_pictures_are_a_table(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = [{"lightness": {}}, {"tone": {}, "as": "how"}]
    file = write_recipe(tmp_path / "r.yaml", recipe(steps=steps))
    assert main(["try", str(file), "--where", "json.title~cat"]) == 0
    said = capsys.readouterr().out
    [row] = [line for line in said.splitlines() if "chelsea" in line]
    assert "mean 0." in row
    assert "dark 0." in row or "light 0." in row
    assert "picture      none" in said
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_masks(recipe: Make, tmp_path: Path, segmenter: Path) -> None:
    truth = np.zeros((60, 90), np.uint8)
    truth[:, 30:] = 1
    write_tar(tmp_path / "in.tar", {"scene.png": two_colours.png(two_colours.scene(truth))})
    steps = [{"mask": {"model": str(segmenter), "input_size": 64}}]
    tried = try_recipe(recipe(source={"path": f"{tmp_path}/in.tar"}, steps=steps), out=tmp_path / "mask.png")
    [sample] = tried.samples()
    assert sample["labels"]["mask"].startswith("blue 6")
    assert ", red 3" in sample["labels"]["mask"]
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.width == 1650


def test_all_dead_raises(recipe: Make, tmp_path: Path) -> None:
    write_tar(tmp_path / "bad.tar", {"x.jpg": b"nonsense"})
    with pytest.raises(TooManyDeadLetters):
        try_recipe(recipe(source={"path": f"{tmp_path}/bad.tar"}))
    with pytest.raises(UsageError, match="no file matches"):
        try_recipe(recipe(source={"path": f"{tmp_path}/none*.tar"}))
