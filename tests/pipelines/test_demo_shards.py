"""The demo's shards: real photos, the same bytes every time, readable by webdataset."""

import importlib.metadata
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipelines import demo
from relabel.errors import UsageError

DISTRIBUTIONS = {"foolbox": "foolbox", "skimage": "scikit-image", "sklearn": "scikit-learn"}


def test_photos_lie_in_the_wheels_and_need_no_download() -> None:
    for photo in demo.PHOTOS:
        files = {str(file) for file in importlib.metadata.files(DISTRIBUTIONS[photo.package]) or ()}
        assert f"{photo.package}/{photo.file}" in files


def test_shards_are_the_same_bytes_every_time(tmp_path: Path, demo_shards: Path) -> None:
    again = demo.build_demo_shards(tmp_path)
    names = [path.name for path in sorted(again.iterdir())]
    assert names == [f"photos-{number:03d}.tar" for number in range(5)]
    for name in names:
        assert (again / name).read_bytes() == (demo_shards / name).read_bytes()


def test_building_again_touches_nothing_and_mends_what_was_changed(tmp_path: Path) -> None:
    shards = demo.build_demo_shards(tmp_path)
    first, second = shards / "photos-000.tar", shards / "photos-001.tar"
    data, when = first.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(b"damaged")
    demo.build_demo_shards(tmp_path)
    assert (first.read_bytes(), first.stat().st_mtime_ns) == (data, when)
    assert second.stat().st_size > 100_000


def test_webdataset_reads_every_photo_with_its_label(demo_shards: Path) -> None:
    samples = {sample["__key__"]: sample for path in demo_shards.iterdir() for sample in webdataset_samples(path)}
    assert len(samples) == len(demo.PHOTOS) == 26
    labels = {key: int(sample["cls"]) for key, sample in samples.items() if "cls" in sample}
    assert len(labels) == 20
    for key, label in labels.items():
        assert key.endswith(f"_{label}")
    for sample in samples.values():
        [image] = [sample[name] for name in ("jpg", "png") if name in sample]
        assert min(Image.open(io.BytesIO(image)).size) >= 300
        assert json.loads(sample["json"])["title"]


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UsageError, match="no_such_package"):
        demo.Photo("no_such_package", "a.jpg", "A", "B").read()


def webdataset_samples(path: Path) -> list[dict[str, Any]]:
    """What webdataset makes of a shard; its own opener would leave the file open."""
    with path.open("rb") as stream:
        return list(group_by_keys(tar_file_expander([{"stream": stream, "url": str(path)}])))
