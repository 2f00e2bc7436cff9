"""A run of masks: images of many sizes through the whole pipeline, read back with and without this package."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from releases_of_photos import open_release, shas, write_tar
from two_colours import SIZE, png, rectangles, scene

from pipelines import run
from pipelines.gallery import preview
from pipelines.job import ShardTask
from pipelines.labelling import LabelStage
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.reading import read_parts
from pipelines.writing import write_part
from relabel import scores
from relabel.errors import UsageError
from relabel.labels.mask import Mask
from relabel.reasons import Reason
from relabel.releases.release import Release
from relabel.releases.verify import verify
from relabel.shards.source import open_source
from relabel.storage.opening import open_store

pytestmark = pytest.mark.usefixtures("ray_cluster")

SHAPES = {"square": (64, 64), "wide": (60, 150), "tall": (150, 60), "line": (1, 90), "large": (300, 420)}
HUGE = (500, 500)
MAX_PIXELS = 200_000


def turned(image: np.ndarray) -> bytes:
    """A JPEG whose EXIF says that it is to be shown after a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def truth_of(key: str) -> np.ndarray:
    """What each pixel of the image shows, as it is to be seen."""
    truth = rectangles(*SHAPES.get(key, (90, 130)), seed=sum(key.encode()))
    return np.rot90(truth, -1) if key == "turned" else truth


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two shards, one with an image that is turned and one that is too large."""
    folder = tmp_path_factory.mktemp("scenes")
    images = {f"{key}.png": png(scene(truth_of(key))) for key in SHAPES}
    write_tar(folder / "a.tar", images)
    stored = scene(np.rot90(truth_of("turned")))
    others = {"huge.png": png(scene(np.zeros(HUGE, np.uint8))), "turned.jpg": turned(stored)}
    write_tar(folder / "b.tar", {**others, "wide.png": images["wide.png"]})
    return {"path": f"{folder}/*.tar"}


@pytest.fixture(scope="module")
def masks(source: dict[str, Any], segmenter: Path) -> dict[str, Any]:
    """A recipe, apart from its store."""
    step = {"model": str(segmenter), "input_size": SIZE, "max_pixels": MAX_PIXELS}
    return {
        "source": source,
        "steps": [{"mask": step}],
        "resources": {"actors": 1, "compute_batch": 2, "part_rows": 2},
        "dead_letters": {"max_fraction": 0.5},
    }


@pytest.fixture(scope="module")
def store(masks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Of an undisturbed run."""
    folder = str(tmp_path_factory.mktemp("masks") / "labels")
    assert run({**masks, "store": folder}).published
    return folder


@pytest.fixture(scope="module")
def released(store: str) -> Release:
    return open_release(store)


def test_every_image_has_a_mask_of_its_own_size(released: Release) -> None:
    counts = released.counts
    assert (counts.samples, counts.ok, counts.dead) == (8, 7, 1)
    for shard, keys in {"a.tar": list(SHAPES), "b.tar": ["turned", "wide"]}.items():
        for key in keys:
            mask, truth = released.get(shard, key)["mask"], truth_of(key)
            assert isinstance(mask, Mask)
            assert mask.map.shape == truth.shape
            assert (mask.map == truth).mean() > 0.9, key
            assert mask.shares().sum() == pytest.approx(1)


def test_one_image_has_one_mask_wherever_it_lies(released: Release) -> None:
    here, there = (released.get(shard, "wide")["mask"] for shard in ("a.tar", "b.tar"))
    assert np.array_equal(here.map, there.map)
    assert np.array_equal(here.confidence, there.confidence)


def test_plain_pyarrow_reads_them(store: str, released: Release) -> None:
    """As the README tells those who do not have this package."""
    rows = 0
    for url in released.files():
        table = pq.read_table(url)
        field = json.loads(table.schema.field("mask_map").metadata[b"relabel"])["column"]["varying"]
        assert field["axes"] == ["y", "x"]
        for row in table.to_pylist():
            if row["status"] == "ok":
                shape = tuple(row[name] for name in field["lengths"])
                found = np.frombuffer(row["mask_map"], field["dtype"]).reshape(shape)
                assert (found == truth_of(row["key"])).mean() > 0.9
                assert row["mask_classes"] == np.unique(found).tolist()
                rows += 1
    assert rows == 7


def test_the_release_is_whole(store: str) -> None:
    assert verify(open_store(store), "latest", "full").problems == []


def test_the_preview_shows_them(released: Release, tmp_path: Path) -> None:
    assert len(preview(released, tmp_path / "masks.png", 3)) == 3
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.size == (1650, 1273)


def test_a_release_of_other_labels_is_refused(
    released: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Release, "labels", {"tone": scores("tone", "mean")})
    with pytest.raises(UsageError, match=r"of the kinds caption, label_map, mask; this release has tone \(score\)"):
        preview(released, tmp_path / "none.png", 3)
    assert list(tmp_path.iterdir()) == []


def test_an_image_with_too_many_pixels_is_a_dead_letter(released: Release) -> None:
    dead = list(released.dead_letters())
    assert [(letter["key"], letter["reason"]) for letter in dead] == [("huge", Reason.IMAGE_TOO_LARGE)]
    assert "500" in dead[0]["detail"]


def test_a_resumed_run_ends_in_the_same_bytes(masks: dict[str, Any], released: Release, tmp_path: Path) -> None:
    """Of the first shard, the parts but for the last lie in the store, as a killed run leaves them."""
    wanted = {**masks, "store": str(tmp_path / "labels")}
    job = make_job(load(wanted))
    store, stage = job.open_store(), LabelStage(job, 0, "cpu")
    for part in list(read_parts(job, ShardTask(open_source(job.source).shards()[0])))[:-1]:
        assert write_part(job, store, stage.label_part(part)).part is not None
    outcome = run(wanted)
    assert [len(entry.task.finished_parts) for entry in outcome.plan.todo] == [2, 0]
    resumed = open_release(wanted["store"])
    assert shas(resumed) == shas(released)
    assert resumed.content_digest == released.content_digest


def test_whole_shards_give_the_same_bytes(masks: dict[str, Any], released: Release, tmp_path: Path) -> None:
    """Which are never joined from parts, by other numbers of actors."""
    wanted = {**masks, "store": str(tmp_path / "labels"), "resources": {"actors": 2, "compute_batch": 2}}
    run(wanted)
    assert shas(open_release(wanted["store"])) == shas(released)
