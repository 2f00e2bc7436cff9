"""Caption demo from end to end on a few drawn scenes: it tunes, recaptions, draws; a second demo redoes nothing."""

from pathlib import Path

import numpy as np
import pytest
from drawn_stamps import small_maker
from PIL import Image
from releases_of_photos import open_release, shas

from pipelines.demo_captions import Sizes, demo_captions
from pipelines.scenes import SceneMaker
from relabel.labels.caption import Caption
from relabel.releases.verify import verify
from relabel.storage.opening import open_store

SIZES = Sizes(
    tuning=60, held_out=12, tuning_shards=2, held_out_shards=2,
    train={"steps": 40, "batch": 16, "evaluate_every": 20, "warmup": 5, "feature_dropout": 0.1},
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> SceneMaker:
    return small_maker(tmp_path_factory.mktemp("stamps"))


@pytest.fixture(scope="module")
def demo(maker: SceneMaker, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, str]:
    """The demo's folder and what it said."""
    home = tmp_path_factory.mktemp("demo")
    return home, told(home, maker)


def told(home: Path, maker: SceneMaker) -> str:
    """What a demo into this folder says."""
    with (home / "said.txt").open("w+") as stream:
        assert demo_captions(str(home), stream, maker, SIZES) == 0
    return (home / "said.txt").read_text()


def test_two_styles_are_published_and_matched(demo: tuple[Path, str], maker: SceneMaker) -> None:
    release = open_release(str(demo[0] / "captions"))
    assert release.labels["caption"].styles == ("short", "long")
    assert (release.counts.shards, release.counts.ok) == (2, SIZES.held_out)
    caption = release.get(release.shards[0], "held-out-00000")["caption"]
    assert isinstance(caption, Caption)
    assert caption.old == maker.scene("held-out", 0).alt
    summary = release.summary
    assert summary is not None
    for style in ("short", "long"):
        column = f"match_{style}_{style}"
        assert summary.numbers[f"{column}_f1"].count == summary.numbers[f"{column}_exact"].count == SIZES.held_out
        assert summary.contests[f"{column}_f1", f"match_{style}_old_f1"].rows == SIZES.held_out
    assert summary.numbers["match_short_short_f1"].mean > summary.numbers["match_short_old_f1"].mean
    assert verify(open_store(str(demo[0] / "captions")), level="full").problems == []


def test_the_picture_shows_scenes_and_words(demo: tuple[Path, str]) -> None:
    pixels = np.asarray(Image.open(demo[0] / "captions.png").convert("RGB")).astype(int)
    assert pixels.shape[1] == 1650
    colourful = np.ptp(pixels, axis=2) > 100
    assert colourful.mean() > 0.01, "red, blue and green things"
    assert (pixels.max(axis=2) < 80).mean() > 0.005, "ink"
    assert (pixels.min(axis=2) > 250).mean() > 0.2, "paper"


def test_it_says_what_came_of_it(demo: tuple[Path, str]) -> None:
    home, said = demo
    for words in (
        "60 with captions by people, 12 with poor alt texts", "CPU seconds",
        "release       1: 12 images; old alt texts",
        f"show {home / 'captions'}",
    ):  # fmt: skip
        assert words in said


def test_a_second_demo_redoes_nothing(demo: tuple[Path, str], maker: SceneMaker) -> None:
    home, _ = demo
    before = open_release(str(home / "captions"))
    kept = [
        file for file in home.rglob("*") if file.is_file() and file.parent.name in ("captioner", "tuning", "held-out")
    ]
    stamped = [(file, file.stat().st_mtime_ns) for file in kept]
    picture = (home / "captions.png").read_bytes()
    assert {file.name for file in kept} >= {"model.safetensors", "tuning.json", "tuning-000.tar", "held-out-001.tar"}
    said = told(home, maker)
    assert "(there from an earlier demo)" in said
    assert "step " not in said
    after = open_release(str(home / "captions"))
    assert (after.number, after.content_digest, shas(after)) == (1, before.content_digest, shas(before))
    assert [(file, file.stat().st_mtime_ns) for file in kept] == stamped
    assert (home / "captions.png").read_bytes() == picture
