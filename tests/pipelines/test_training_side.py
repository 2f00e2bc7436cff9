"""The training side on what a run really writes: digests, keys and positions fit the media that were labelled."""

import shutil
from pathlib import Path

import numpy as np
from releases_of_photos import open_release


def test_a_run_is_joined_to_its_photographs(photo_labels: Path, demo_shards: Path, tmp_path: Path) -> None:
    release = open_release(str(photo_labels))
    shutil.copytree(demo_shards, tmp_path / "copy", copy_function=shutil.copyfile)
    for dataset in (release.dataset(), release.dataset(check="digest"), release.dataset(tmp_path / "copy")):
        samples = list(dataset)
        assert len(samples) == len(dataset) == 26
        assert dataset.report().complete
        for sample in samples:
            expected = release.get(sample["__shard__"], sample["__key__"])["label_map"]
            found = sample["label_map"]
            assert np.array_equal(found.ids, expected.ids)
            assert np.array_equal(found.scores, expected.scores)
            assert (found.width, found.height) == sample["image"].size
    assert len(list(release.indexed(tmp_path / "copy"))) == 26
