"""The main job on real photographs: one release, the same bytes however it was made, and only what is new."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from releases_of_photos import open_release, shas, write_tar

from pipelines import run
from pipelines.cluster import Session
from pipelines.job import Part
from pipelines.loading import load
from pipelines.parts import Header
from pipelines.plan import make_job, plan
from pipelines.writing import merge_shard
from relabel.errors import ObjectMissing
from relabel.labels.label_map import LabelMap
from relabel.readers.pooling import pool
from relabel.releases.verify import verify
from relabel.storage.opening import open_store
from relabel.testing.servers import S3Server

pytestmark = pytest.mark.usefixtures("ray_cluster")

Make = Callable[..., dict[str, Any]]


def test_photos_are_labelled_right_and_read_back(recipe: Make) -> None:
    wanted = recipe(steps=[{"label_map": {"model": "efficientnet-lite0", "input_size": 320}}])
    outcome = run(wanted)
    release = open_release(wanted["store"])
    assert outcome.published
    assert (release.counts.shards, release.counts.samples, release.counts.ok, release.counts.dead) == (5, 26, 26, 0)
    right = 0
    for shard in release.shards:
        for key in release.table(shard, columns=["key"])["key"].to_pylist():
            if key.startswith("imagenet_"):
                label_map = release.get(shard, key)["label_map"]
                assert isinstance(label_map, LabelMap)
                right += int(np.argmax(pool(label_map)) == int(key.rsplit("_", 1)[1]))
    assert right >= 16
    assert verify(open_store(wanted["store"]), "latest", "full").problems == []


def test_second_run_does_nothing(labelled: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = labelled()
    for touches in ("connected", "start_ahead"):
        monkeypatch.setattr(Session, touches, lambda *_: pytest.fail("a second run must not touch Ray"))
    second = run(wanted)
    assert (second.labelled, second.published) == (0, False)
    assert second.release is not None
    assert second.release.version == 1


@pytest.mark.parametrize(
    ("actors", "part_rows", "readers"), [(2, 256, None), (4, 2, 1), (1, 3, 3)], ids=["two", "four", "parts"]
)
def test_equal_bytes_however_it_ran(
    recipe: Make, photo_labels: Path, demo_shards: Path, actors: int, part_rows: int, readers: int | None
) -> None:
    paths = [str(path) for path in demo_shards.glob("*.tar")]
    random.Random(actors).shuffle(paths)
    wanted = recipe(source={"path": paths}, resources={"actors": actors, "part_rows": part_rows, "readers": readers})
    run(wanted)
    plain, other = open_release(str(photo_labels)), open_release(wanted["store"])
    assert shas(plain) == shas(other)
    assert plain.content_digest == other.content_digest
    assert list((Path(wanted["store"]) / "parts").rglob("*.arrow")) == []


def test_equal_bytes_on_an_object_store(recipe: Make, photo_labels: Path, seaweed: S3Server, s3_root: str) -> None:
    objects = open_store(s3_root)
    demo = Path(recipe()["source"]["path"]).parent
    for shard in demo.glob("*.tar"):
        objects.put(f"photos/{shard.name}", shard.read_bytes())
    remote = recipe(source={"path": f"{s3_root}/photos/*.tar"}, store=f"{s3_root}/labels")
    assert run(remote).published
    assert shas(open_release(f"{s3_root}/labels")) == shas(open_release(str(photo_labels)))
    assert open_release(f"{s3_root}/labels").content_digest == open_release(str(photo_labels)).content_digest
    assert verify(open_store(f"{s3_root}/labels"), "latest", "full").problems == []
    assert run(remote).labelled == 0


def test_other_compute_batches_agree(recipe: Make, photo_labels: Path) -> None:
    wanted = recipe(resources={"actors": 1, "compute_batch": 1})
    run(wanted)
    eight, one = open_release(str(photo_labels)), open_release(wanted["store"])
    for shard in eight.shards:
        for key in eight.table(shard, columns=["key"])["key"].to_pylist():
            ours, theirs = eight.get(shard, key)["label_map"], one.get(shard, key)["label_map"]
            np.testing.assert_allclose(ours.probabilities(), theirs.probabilities(), atol=2e-3)


def test_only_what_is_new_or_changed(labelled: Make, tmp_path: Path, demo_shards: Path) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(demo_shards, mine)
    wanted = labelled(source={"path": f"{mine}/*.tar"})

    photo = (demo_shards / "photos-000.tar").read_bytes()
    (mine / "photos-100.tar").write_bytes(photo)
    assert planned(wanted) == {"photos-100.tar": "new"}
    assert run(wanted).labelled == 1

    (mine / "photos-001.tar").write_bytes(photo)
    assert planned(wanted) == {"photos-001.tar": "changed bytes"}
    assert run(wanted).labelled == 1

    (mine / "photos-002.tar").unlink()
    assert planned(wanted) == {}
    outcome = run(wanted)
    assert (outcome.labelled, outcome.published) == (0, True)
    release = open_release(wanted["store"])
    assert release.shards == ["photos-000.tar", "photos-001.tar", "photos-003.tar", "photos-004.tar", "photos-100.tar"]
    assert release.number == 4
    assert shas(release)["photos-001.tar"] == shas(release)["photos-100.tar"] == shas(release)["photos-000.tar"]


def test_a_new_meaning_recomputes_all_and_says_why(labelled: Make) -> None:
    wanted = labelled()
    changed = load(wanted, ["label_map.top_k=3"])
    found = plan(make_job(changed))
    assert len(found.todo) == 5
    assert list(found.changes) == ["label label_map: parameters.top_k: 5 -> 3"]
    assert {entry.why for entry in found.todo} == {"new meaning"}
    assert run(changed, ["gate.expect_change=fewer classes"]).release is not None
    assert open_release(wanted["store"]).labels["label_map"].top_k == 3
    assert plan(make_job(load(wanted))).todo == [], "the first meaning's labels are still there"


def test_other_numerics_recompute_nothing_and_are_recorded(labelled: Make, tmp_path: Path, demo_shards: Path) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(demo_shards, mine)
    wanted = labelled(source={"path": f"{mine}/*.tar"})
    wanted["resources"] = {"actors": 2, "threads": 2}
    assert planned(wanted) == {}
    shutil.copy(demo_shards / "photos-000.tar", mine / "photos-100.tar")
    assert run(wanted).labelled == 1
    recorded = open_release(wanted["store"]).version.numerics.values()
    assert sorted((entry["label_map"]["threads"], entry["shards"]) for entry in recorded) == [(1, 5), (2, 1)]


def test_a_lost_output_is_made_again(labelled: Make) -> None:
    wanted = labelled()
    release = open_release(wanted["store"])
    data = release.entry("photos-003.tar").data
    assert data is not None
    (Path(wanted["store"]) / data.path).unlink()
    assert planned(wanted) == {"photos-003.tar": "output lost"}
    assert run(wanted).published
    assert shas(open_release(wanted["store"])) == shas(release)
    assert open_release(wanted["store"]).entry("photos-003.tar").generation == 1


def test_parts_that_a_killed_run_could_not_delete_are_swept(labelled: Make) -> None:
    wanted = labelled()
    job = make_job(load(wanted))
    found = plan(job)
    token, receipt = next(iter(found.done.items()))
    left = f"{job.part_folder(token, receipt.generation)}/{0:010d}-2-{'0' * 32}.arrow"
    store = open_store(wanted["store"])
    store.put(left, b"left behind")
    assert list(plan(job).leftovers) == [left]
    assert not run(wanted).published
    assert not store.exists(left)


def test_a_shard_that_another_run_finished_first_is_taken_over(labelled: Make) -> None:
    wanted = labelled()
    job = make_job(load(wanted))
    receipt = next(iter(plan(job).done.values()))
    end = Header(receipt.shard, receipt.size, receipt.etag, receipt.token, receipt.generation, last=True)
    gone = [Part(0, 2, f"{job.part_folder(receipt.token, 0)}/{0:010d}-2-{'0' * 32}.arrow")]
    assert merge_shard(job, end, gone) == receipt
    end.token = "f" * 64
    with pytest.raises(ObjectMissing):
        merge_shard(job, end, gone)


def test_check_content_finds_bytes_behind_an_unchanged_time(labelled: Make, tmp_path: Path, demo_shards: Path) -> None:
    import os

    mine = tmp_path / "photos"
    shutil.copytree(demo_shards, mine)
    wanted = labelled(source={"path": f"{mine}/*.tar"})
    shard = mine / "photos-000.tar"
    before, data = shard.stat(), bytearray(shard.read_bytes())
    position = data.index(b"\xff\xd8\xff") + 4000
    data[position] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert planned(wanted) == {}
    found = plan(make_job(load(wanted)), check_content=True)
    assert [(entry.task.shard.name, entry.why) for entry in found.todo] == [("photos-000.tar", "content differs")]
    assert run(wanted, check_content=True).labelled == 1
    assert run(wanted, check_content=True).labelled == 0


def test_several_steps_are_labelled_side_by_side(recipe: Make) -> None:
    model = {"model": "efficientnet-lite0", "input_size": 64}
    wanted = recipe(steps=[{"label_map": model, "as": "five"}, {"label_map": {**model, "top_k": 2}, "as": "two"}])
    run(wanted)
    release = open_release(wanted["store"])
    assert {name: contract.top_k for name, contract in release.labels.items()} == {"five": 5, "two": 2}
    shard = release.shards[0]
    labels = release.get(shard, release.table(shard)["key"][0].as_py())
    np.testing.assert_array_equal(labels["five"].ids[..., :2], labels["two"].ids)


def test_limit_labels_some_and_publishes_with_the_last(recipe: Make) -> None:
    wanted = recipe()
    first = run(wanted, limit=2)
    assert (first.labelled, first.open_shards, first.release) == (2, 3, None)
    second = run(wanted)
    assert (second.labelled, second.published) == (3, True)


def test_images_of_a_folder_and_of_parquet(recipe: Make, tmp_path: Path, photos: list[tuple[bytes, int]]) -> None:
    import pyarrow as pa

    folder = tmp_path / "images"
    folder.mkdir()
    for index, (data, _) in enumerate(photos[:6]):
        (folder / f"photo {index}.jpg").write_bytes(data)
    rows = [{"id": f"k{index}", "image": {"bytes": data}} for index, (data, _) in enumerate(photos[:6])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "photos.parquet")
    run(recipe(source={"path": str(folder), "kind": "images", "buckets": 2}, store=str(tmp_path / "a")))
    run(recipe(source={"path": str(tmp_path / "photos.parquet"), "key": "id"}, store=str(tmp_path / "b")))
    images, parquet = open_release(str(tmp_path / "a")), open_release(str(tmp_path / "b"))
    assert images.counts.ok == parquet.counts.ok == 6
    bucket = next(name for name in images.shards if "photo 3.jpg" in images.table(name)["key"].to_pylist())
    from_folder = images.get(bucket, "photo 3.jpg")["label_map"]
    from_parquet = parquet.get("photos.parquet", "k3")["label_map"]
    np.testing.assert_array_equal(from_folder.scores, from_parquet.scores)


def test_where_filters_and_is_part_of_the_meaning(recipe: Make, demo_shards: Path) -> None:
    wanted = recipe()
    wanted["source"] = {**wanted["source"], "where": [{"field": "json.package", "eq": "skimage"}]}
    run(wanted)
    release = open_release(wanted["store"])
    assert (release.counts.ok, release.counts.filtered, release.counts.samples) == (4, 22, 26)
    wanted["source"]["where"] = []
    assert len(plan(make_job(load(wanted))).todo) == 5


def test_an_empty_shard_is_labelled_as_empty(recipe: Make, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "empty.tar", {})
    wanted = recipe(source={"path": str(tmp_path / "in" / "*.tar")})
    assert run(wanted).published
    assert open_release(wanted["store"]).table("empty.tar").num_rows == 0


def planned(recipe: dict[str, Any]) -> dict[str, str]:
    """Shards that a run would label, and why."""
    return {entry.task.shard.name: entry.why for entry in plan(make_job(load(recipe))).todo}
