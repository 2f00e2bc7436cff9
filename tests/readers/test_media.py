"""Media: other formats, orientation, releases that were made from releases, and readers without torch."""

import gzip
import importlib
import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import make_tar
from labelled_shards import Publisher, members, write_file
from PIL import Image
from torch.utils.data import DataLoader

import relabel
from relabel.errors import BadSample, Refused, UsageError
from relabel.readers.media import open_image, orientation_of

wds: Any = importlib.import_module("webdataset")

Publish = Callable[..., relabel.Release]
Photos = list[tuple[bytes, int]]


def keys(dataset: Any) -> list[str]:
    return [sample["__key__"] for sample in dataset]


def test_compressed_tars(publish: Publish, tmp_path: Path, photos: Photos) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.tar.gz").write_bytes(gzip.compress(make_tar(members(photos, 0, 12))))
    release = publish(tmp_path / "media" / "*.tar.gz")
    found = [
        key for rank in range(5) for key in keys(release.dataset(rank=rank, world=5, remainder="exact", shuffle=0))
    ]
    assert found == [f"{row:05d}" for row in range(12)] == keys(release.indexed())


def test_lines_of_json_and_texts(publish: Publish, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.mkdir()
    rows = [{"id": f"{row}", "text": f"text {row}", "old": row} for row in range(9)]
    (lines / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    release = publish(lines / "*.jsonl", source={"key": "id"}, needs=["text"], labels=["mark"])
    for check in ("auto", "digest"):
        samples = list(release.dataset(check=check))
        assert sorted((sample["__key__"], sample["old"]) for sample in samples) == [(f"{row}", row) for row in range(9)]
        assert all("image" not in sample for sample in samples)
    texts = tmp_path / "texts"
    texts.mkdir()
    for row in range(5):
        (texts / f"{row}.txt").write_text(f"text {row}")
    release = publish(texts, store="other", source={"kind": "texts", "buckets": 2}, needs=["text"], labels=["mark"])
    assert sorted(keys(release.dataset())) == [f"{row}.txt" for row in range(5)]


def test_a_release_made_from_a_release_has_its_media(publish: Publish, tars: Path, tmp_path: Path) -> None:
    """Labels of the second, media and old labels of the first's source; withdrawn in either is withdrawn."""
    first = publish(tars / "*.tar")
    refined = Publisher(str(tmp_path / "refined"), {"path": str(tars / "*.tar")}, labels=["mark"]).publish()
    source = {"kind": "release", "path": str(tmp_path / "store"), "release": "1"}
    version = refined.version.model_copy(update={"recipe": {"source": source, "steps": []}})
    made = type(refined)(refined.objects, version)
    samples = list(made.dataset(columns={"mark": "mark", "map": (first, "label_map")}))
    assert len(samples) == 51
    assert samples[0]["image"].size == (32, 32)
    relabel.open(tmp_path / "store").withdraw({"train-00.tar": ["00001"]}, "asked for")
    assert "00001" not in keys(made.dataset())
    assert len(made.dataset()) == 50


def turned(photos: Photos, tag: int) -> bytes:
    with Image.open(io.BytesIO(photos[0][0])) as image:
        exif = image.getexif()
        exif[0x0112] = tag
        out = io.BytesIO()
        image.convert("RGB").resize((40, 20)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_images_lie_as_the_labels_say(photos: Photos, release: relabel.Release) -> None:
    for tag, size in ((1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))):
        data = turned(photos, tag)
        assert open_image(data, "exif", "here").size == size
        assert open_image(data, "stored", "here").size == (40, 20)
    with pytest.raises(BadSample, match="here: the image does not open"):
        open_image(b"no image", "exif", "here")
    contract = release.labels["label_map"]
    assert contract.geometry is not None
    other = contract.model_copy(update={"geometry": contract.geometry.model_copy(update={"orientation": "stored"})})
    assert orientation_of({"a": contract}) == "exif"
    assert orientation_of({"a": other}) == "stored"
    with pytest.raises(Refused, match="labels disagree on how pixels lie"):
        orientation_of({"a": contract, "b": other})


def test_nothing_to_give_is_an_error(publish: Publish, tars: Path, release: relabel.Release) -> None:
    empty = publish(tars / "*.tar", statuses=lambda shard, key: "filtered")
    with pytest.raises(UsageError, match="gives out no sample of .*: 51 have no label"):
        empty.dataset()
    with pytest.raises(UsageError, match="51 samples do not go round 60 ranks"):
        iter(release.dataset(rank=0, world=60))
    assert len(keys(release.dataset(rank=59, world=60, remainder="pad"))) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_more_shards_at_a_time_than_stay_open(publish: Publish, tmp_path: Path, photos: Photos) -> None:
    """A pipeline that mixes many small shards: their labels are read again, and nothing counts as missing."""
    (tmp_path / "media").mkdir()
    for shard in range(12):
        (tmp_path / "media" / f"{shard:02d}.tar").write_bytes(make_tar(members(photos, 3 * shard, 3)))
    release = publish(tmp_path / "media" / "*.tar", labels=["mark"])
    urls = sorted(map(str, (tmp_path / "media").glob("*.tar")))
    samples = [sample for url in urls for sample in wds.WebDataset([url], shardshuffle=False)]
    mixed = [samples[3 * shard + row] for row in range(3) for shard in range(12)]
    attached = release.attach(mixed)
    assert [sample["mark"] for sample in attached] == [
        release.get(Path(sample["__url__"]).name, sample["__key__"])["mark"] for sample in mixed
    ]
    assert attached.report().delivered == 36
    assert attached.report().complete


def first_key(sample: dict[str, Any]) -> str:
    """A transform that a worker can import."""
    return str(sample["__key__"])


def test_forked_workers_read_a_bucket(s3_root: str, photos: Photos) -> None:
    for name in "ab":
        write_file(f"{s3_root}/media/{name}.tar", make_tar(members(photos, 10 * ord(name), 7)))
    release = Publisher(f"{s3_root}/store", {"path": f"{s3_root}/media/*.tar"}, labels=["mark"]).publish()
    dataset = release.dataset(transform=first_key, remainder="exact")
    found = [key for batch in DataLoader(dataset, batch_size=3, num_workers=2) for key in batch]
    assert len(set(found)) == len(found) == 14


WITHOUT_TORCH = """
    import sys
    sys.modules["torch"] = None
    import relabel
    dataset = relabel.open(sys.argv[1]).release().dataset(columns=["mark"], shuffle=4)
    print(len({sample["__key__"] for sample in dataset}), dataset.report().delivered, type(dataset).__name__)
"""


def test_without_torch(labelled_tars: Path, tars: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), str(labelled_tars)],
        env={"PYTHONPATH": str(root / "operators"), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["51", "51", "Samples"], done.stderr
