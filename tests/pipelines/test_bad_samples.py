"""One tar with every kind of difficult image: labelled right, or a dead letter with a reason; the counts add up."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from releases_of_photos import open_release, write_tar

from pipelines import run
from pipelines.dead_letters import attempt
from relabel.errors import BadSample, DeviceFailed, DeviceFull, Refused, TooManyDeadLetters
from relabel.readers.pooling import pool
from relabel.releases.release import Release

pytestmark = pytest.mark.usefixtures("ray_cluster")

Make = Callable[..., dict[str, Any]]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def difficult(photo: bytes) -> dict[str, bytes]:
    """Tar members; keys say what is special."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    grey = np.asarray(image.convert("L"), np.uint16) * 257
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    alpha = image.convert("RGBA").quantize(64)
    return {
        "bilevel.png": encoded(image.convert("1"), "PNG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "corrupt.jpg": photo[:200] + bytes(len(photo) - 200),
        "empty.jpg": b"",
        "exif.jpg": encoded(turned, "JPEG", quality=95, exif=exif),
        "grey16.png": encoded(Image.fromarray(grey), "PNG"),
        "none.json": json.dumps({"caption": "no image here"}).encode(),
        "palette.png": encoded(alpha, "PNG"),
        "plain.jpg": photo,
        "text.png": b"this is not an image",
        "truncated.jpg": photo[: len(photo) // 2],
    }


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[bytes, int]], ray_cluster: None) -> Release:
    folder = tmp_path_factory.mktemp("difficult")
    photo = next(data for data, label in photos if label == 471)
    write_tar(folder / "in" / "difficult.tar", difficult(photo))
    run({
        "source": {"path": str(folder / "in" / "*.tar")},
        "steps": [{"label_map": {"model": "efficientnet-lite0", "input_size": 256}}],
        "store": str(folder / "labels"),
    })  # fmt: skip
    return open_release(str(folder / "labels"))


def test_each_is_labelled_right_or_a_dead_letter(released: Release) -> None:
    rows = {row["key"]: row for row in released.table("difficult.tar", ["key", "status", "reason"]).to_pylist()}
    dead = {key: row["reason"] for key, row in rows.items() if row["status"] == "dead"}
    assert dead == {
        "corrupt": "corrupt_image",
        "empty": "empty_field",
        "none": "missing_field",
        "text": "not_an_image",
        "truncated": "corrupt_image",
    }
    for key in rows.keys() - dead.keys():
        label_map = released.get("difficult.tar", key)["label_map"]
        if key != "bilevel":  # dithering is not the photo that the teacher knows
            assert np.argmax(pool(label_map)) == 471, key
    plain, turned = (released.get("difficult.tar", key)["label_map"] for key in ("plain", "exif"))
    assert (turned.height, turned.width) == (plain.height, plain.width)
    same = (plain.ids[..., 0] == turned.ids[..., 0]).mean()
    assert same > 0.8


def test_counts_add_up_and_details_help(released: Release) -> None:
    counts = released.counts
    assert counts.samples == counts.ok + counts.dead + counts.filtered == 11
    assert sum(counts.reasons.values()) == counts.dead == 5
    letters = {letter["key"]: letter for letter in released.dead_letters()}
    assert letters.keys() == {"corrupt", "empty", "none", "text", "truncated"}
    assert "jpg" in letters["none"]["detail"]
    assert "json" in letters["none"]["detail"]
    assert all(letter["detail"] for letter in letters.values())


def test_a_damaged_shard_is_a_dead_letter_and_the_others_are_published(
    recipe: Make, tmp_path: Path, photos: list[tuple[bytes, int]]
) -> None:
    folder = tmp_path / "in"
    for index in range(3):
        write_tar(folder / f"{index}.tar", {f"a{index}.jpg": photos[index][0], f"b{index}.jpg": photos[index + 3][0]})
    cut = (folder / "1.tar").read_bytes()
    (folder / "1.tar").write_bytes(cut[: len(cut) * 2 // 3])
    wanted = recipe(source={"path": f"{folder}/*.tar"}, resources={"actors": 1, "part_rows": 1})
    with pytest.raises(TooManyDeadLetters, match=r"1 of 3 shards cannot be read .*First: 1.tar: truncated_shard"):
        run(wanted)
    assert run({**wanted, "dead_letters": {"max_fraction": 0.5}}).published
    release = open_release(wanted["store"])
    assert (release.counts.shards, release.counts.dead_shards, release.counts.ok) == (3, 1, 4)
    assert release.entry("1.tar").reason == "truncated_shard"
    (folder / "1.tar").write_bytes(cut)
    assert run(wanted).labelled == 1
    assert open_release(wanted["store"]).counts.ok == 6


def test_too_many_dead_samples_publish_nothing(recipe: Make, tmp_path: Path, photos: list[tuple[bytes, int]]) -> None:
    bad = {f"{index}.jpg": b"nonsense" for index in range(4)}
    write_tar(tmp_path / "in" / "bad.tar", {**bad, "good.jpg": photos[0][0]})
    wanted = recipe(source={"path": str(tmp_path / "in" / "*.tar")}, dead_letters={"allow": 3})
    with pytest.raises(TooManyDeadLetters, match="4 of 5 samples are dead letters"):
        run(wanted)
    assert run({**wanted, "dead_letters": {"allow": 4}}).labelled == 0


def test_a_run_that_labels_nothing_publishes_nothing(recipe: Make, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "bad.tar", {"a.jpg": b"nonsense"})
    with pytest.raises(TooManyDeadLetters, match="none of 1 samples got a label"):
        run(recipe(source={"path": str(tmp_path / "in" / "*.tar")}))
    assert not (tmp_path / "store" / "versions").exists()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceFailed),
        (Refused("the labeler breaks its contract"), Refused),
        (MemoryError(), DeviceFull),
    ],
)
def test_what_is_nobodys_sample_stops_the_run(error: Exception, passes: type[Exception]) -> None:
    def work() -> None:
        raise error

    with pytest.raises(passes):
        attempt(work)


def test_what_an_operator_raises_is_a_dead_letter() -> None:
    outcome = attempt(lambda: 1 // 0)
    assert isinstance(outcome, BadSample)
    assert (outcome.reason, outcome.detail) == (
        "operator_error",
        "ZeroDivisionError: integer division or modulo by zero",
    )
