"""Exports: equal bytes, killed and gone on with, verified, withdrawn from, and refused where something is wrong."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_disk import SmallDisk, mount_small_disk
from small_releases import Planted, derive, plant, plant_other, write_tar

from pipelines.command_line import main
from relabel.digests import sha256
from relabel.exports import tar_file
from relabel.exports.layout import file_names, layout, safe_key, safe_path
from relabel.exports.manifest import MANIFEST
from relabel.exports.values import npy
from relabel.storage.local import LocalStore
from relabel.storage.opening import open_store

Export = Callable[..., Path]
Told = Callable[[], Any]
KINDS = [("webdataset",), ("hf",), ("hf", "--include", "media,labels"), ("delta",), ("jsonl", "--gzip")]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_two_exports_are_equal_bytes(planted: Planted, export: Export, tmp_path: Path, kind: Sequence[str]) -> None:
    copy = tmp_path / "copy of the photos"
    shutil.copytree(planted.source, copy)
    os.utime(copy / "photos-000.tar")
    media = kind[0] == "webdataset" or "--include" in kind
    first = export(*kind, out=tmp_path / "one")
    second = export(*kind, *(["--source", str(copy)] if media else []), out=tmp_path / "two")
    assert contents(first) == contents(second)
    assert not any(part.startswith(".") for path in contents(first) for part in Path(path).parts)


def test_done_is_done(planted: Planted, export: Export, told: Told) -> None:
    out = export("hf")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    told_before = export("hf", "--json")
    assert told()["written"] == 0
    assert told_before == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "data" / "photos-001.parquet").unlink()
    (out / "README.md").unlink()
    export("hf", "--json")
    assert told()["written"] == 1
    assert main(["verify", str(out)]) == 0


def test_the_counts_say_what_is_left_out(planted: Planted, export: Export, told: Told) -> None:
    export("jsonl", "--json")
    found = told()
    assert (found["samples"], found["left_out"]) == (len(planted.rows), {"corrupt_image": 3, "where": 3})
    assert (found["shards"], found["files"], found["dead_shards"], found["extra"]) == (3, 3, 0, 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[bytes, int]]) -> Planted:
    """Enough shards to be killed between."""
    return plant(tmp_path_factory.mktemp("many"), photos, shards=12, rows=20)


CHILD = """
import sys, relabel
from relabel.exports.export import export
from relabel.exports import tar_file
from relabel.exports.layout import layout
from relabel.storage.opening import open_store

release = relabel.open(sys.argv[1]).release()
export(release, open_store(sys.argv[2]), layout(sys.argv[3], list(release.labels.values()), ["media", "labels"]))
"""


@pytest.mark.parametrize("kind", ["webdataset", "hf"])
def test_killed_and_gone_on_with(many: Planted, tmp_path: Path, root: Path, kind: str, told: Told) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    environment = {**os.environ, "PYTHONPATH": str(root / "operators")}
    command = [sys.executable, "-c", CHILD, str(many.store), str(out), kind]
    for finished in (1, 6):
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None:
                if len(list(out.glob(".export/shards/*.json"))) >= finished:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.001)
        assert process.returncode == -signal.SIGKILL
    assert main(["verify", str(out)]) == 2, "it is not finished"
    half = {path: path.stat().st_mtime_ns for path in out.rglob("photos-*")}
    arguments = ["export", str(many.store), str(out), "--format", kind, "--include", "media,labels", "--json"]
    assert main(arguments) == 0
    found = told()
    assert 1 <= found["written"] <= 6
    assert found["samples"] == len(many.rows)
    assert sum(path.stat().st_mtime_ns == half[path] for path in half) >= 12 - found["written"]
    assert main([argument.replace(str(out), str(whole)) for argument in arguments]) == 0
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("kind", ["webdataset", "delta"])
def test_verify_names_every_file(planted: Planted, export: Export, told: Told, kind: str) -> None:
    out = export(kind)
    for path in sorted(contents(out)):
        if path == MANIFEST:
            continue
        data = (out / path).read_bytes()
        for damaged in (
            data[:-1],
            bytes([data[0] ^ 1]) + data[1:],
            data[: len(data) // 2] + b"\0" + data[len(data) // 2 + 1 :],
        ):
            if damaged == data:
                continue
            (out / path).write_bytes(damaged)
            assert main(["verify", str(out), "--json"]) == 3
            assert [problem["path"] for problem in told()["problems"]] == [path]
        (out / path).unlink()
        assert main(["export", str(planted.store), str(out), "--verify", "--json"]) == 3
        assert told()["problems"] == [{"path": path, "what": "is gone"}]
        (out / path).write_bytes(data)
    (out / "photos-999.tar").write_bytes(b"x")
    assert main(["verify", str(out), "--json"]) == 3
    assert told()["problems"] == [{"path": "photos-999.tar", "what": "is not part of the export"}]
    (out / "photos-999.tar").unlink()
    assert main(["verify", str(out)]) == 0
    (out / MANIFEST).write_bytes((out / MANIFEST).read_bytes().replace(b'"release":1', b'"release":2'))
    assert main(["verify", str(out)]) == 3


def test_withdrawn_samples_never_appear(
    photos: list[tuple[bytes, int]], tmp_path: Path, export: Export, told: Told
) -> None:
    planted = plant(tmp_path / "own", photos)
    before = export("jsonl", store=planted.store)
    (shard, key), (gone, _) = min(planted.rows), max(planted.rows)
    store = str(planted.store)
    assert main(["withdraw", store, "--shard", shard, "--key", key, "--reason", "asked"]) == 0
    assert main(["withdraw", store, "--shard", gone, "--reason", "asked"]) == 0
    told_keys = {name: keys_of(export(name, store=planted.store)) for name in ("jsonl", "hf", "delta", "webdataset")}
    expected = sorted(known for known in planted.rows if known != (shard, key) and known[0] != gone)
    assert told_keys == dict.fromkeys(told_keys, expected)
    assert not (before / "photos-002.jsonl").exists()
    assert main(["verify", str(before)]) == 0
    assert main(["export", store, store, "--format", "delta"]) == 3  # its label shards still hold them
    assert main(["erase", store, "--apply"]) == 0
    assert main(["export", store, store, "--format", "delta"]) == 0
    rows = deltalake.DeltaTable(store).to_pyarrow_table(columns=["key", "status"]).to_pylist()
    assert {row["key"] for row in rows if row["status"] == "ok"} == {known[1] for known in expected}


def keys_of(folder: Path) -> list[tuple[str, str]]:
    """What an export holds."""
    found = []
    for path in sorted(folder.rglob("photos-*")):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found += [(row["shard"], row["key"]) for row in rows]
        elif path.suffix == ".parquet":
            found += [(row["shard"], row["key"]) for row in pq.read_table(path, columns=["shard", "key"]).to_pylist()]
        else:
            with tarfile.open(path) as archive:
                found += sorted({(path.name, name.partition(".")[0]) for name in archive.getnames()})
    return sorted(found)


@pytest.fixture
def copied(planted: Planted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted.source, tmp_path / "copied"))


def members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, (archive.extractfile(member) or io.BytesIO()).read()) for member in archive]


def test_media_that_is_not_what_was_labelled(
    planted: Planted, export: Export, copied: Path, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    held = members(copied / "photos-001.tar")
    changed = [(name, data + b"\0" if name == "s/13.jpg" else data) for name, data in held if name[:4] != "s/14"]
    write_tar(copied / "photos-001.tar", [*reversed(changed), ("new.jpg", b"new")])
    options = ["--source", str(copied)]
    out = export("webdataset", *options, code=3)
    assert "'s/13' of shard 'photos-001.tar' is not what was labelled" in capfd.readouterr().err
    assert main(["verify", str(out)]) == 2
    assert export("hf", "--include", "media,labels", *options, code=3)
    skipped = export("webdataset", *options, "--on-missing", "skip", "--json", out=out.with_name("skipped"))
    found = told()
    assert found["samples"] == len(planted.rows) - 2
    assert (found["left_out"]["other_media"], found["left_out"]["missing_media"], found["extra"]) == (1, 1, 1)
    assert keys_of(skipped) == sorted(set(planted.rows) - {("photos-001.tar", "s/13"), ("photos-001.tar", "s/14")})


def test_another_order_is_found_by_key(planted: Planted, export: Export, copied: Path) -> None:
    """Members of one sample stay together."""
    held = members(copied / "photos-000.tar")
    groups = [held[at : at + 2] for at in range(0, len(held), 2)]
    write_tar(copied / "photos-000.tar", [member for group in reversed(groups) for member in group])
    out = export("webdataset", "--source", str(copied / "photos-{000..002}.tar"))
    assert keys_of(out) == sorted(planted.rows)
    labels = [json.loads(data) for name, data in members(out / "photos-000.tar") if name.endswith("labels.json")]
    assert [each["key"] for each in labels] == ["s/04", "s/03", "s/00"]
    for each in labels:
        assert each["caption_old"] == planted.rows["photos-000.tar", each["key"]]["caption_old"]


def test_missing_and_damaged_shards(
    planted: Planted, export: Export, copied: Path, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    (copied / "photos-002.tar").unlink()
    options = ["--source", str(copied)]
    out = export("webdataset", *options, code=3)
    said = capfd.readouterr().err
    assert "1 of the 3 shards" in said
    assert "photos-002.tar" in said
    assert not out.exists(), "nothing was begun"
    data = (copied / "photos-001.tar").read_bytes()
    (copied / "photos-001.tar").write_bytes(data[: len(data) // 2])
    export("webdataset", *options, "--on-missing", "skip", "--json")
    assert told()["left_out"]["missing_media"] >= 3
    export("webdataset", "--source", str(copied / "elsewhere"), out=out.with_name("none"), code=2)


def test_what_is_refused(planted: Planted, export: Export, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    export("jsonl", out=tmp_path / "full", code=2)
    assert "thesis.tex" in capfd.readouterr().err
    out = export("hf")
    for options in (("hf", "--arrays", "lists"), ("hf", "--include", "mask"), ("jsonl",), ("hf", "--include", "media")):
        export(*options, out=out, code=3)
        assert "holds another export" in capfd.readouterr().err
    export("hf", "--include", "lable_map", code=2)
    assert "did you mean 'label_map'" in capfd.readouterr().err
    export("delta", "--include", "media", code=2)
    export("hf", "--gzip", code=2)
    export("jsonl", "--source", str(planted.source), code=2)
    export("hf", out=planted.store, code=2)
    export("hf", out=planted.store / "data" / "mine", code=2)
    export("hf", out=tmp_path / "full" / "thesis.tex", code=2)
    assert main(["export", str(planted.store), str(tmp_path / "x")]) == 2
    assert main(["verify", str(tmp_path / "full")]) == 2


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> SmallDisk:
    return mount_small_disk(tmp_path / "disk", request.addfinalizer)


def test_a_full_disk_is_said_and_gone_on_from(
    planted: Planted, disk: SmallDisk, export: Export, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    out = disk.folder / "out"
    for pages in (1, 5, 8):
        disk.leave_bytes(pages)
        export("hf", out=out, code=1)
        assert "disk or quota is full" in capfd.readouterr().err
    disk.make_room()
    finished = len(list(out.rglob("photos-*")))
    export("hf", "--json", out=out)
    assert told()["written"] == 3 - finished
    assert contents(out) == contents(export("hf"))


def test_what_a_dead_writer_left_is_swept(planted: Planted, export: Export, tmp_path: Path) -> None:
    """A writer is killed in the middle of a shard."""
    out = tmp_path / "out"
    writing = LocalStore(str(out)).writing("data/photos-000.parquet")
    writing.__enter__().write(b"half")
    shutil.copytree(out, tmp_path / "dead")
    writing.__exit__(ValueError, ValueError(), None)
    assert len(contents(tmp_path / "dead")) == 1
    export("hf", out=tmp_path / "dead")
    assert contents(tmp_path / "dead") == contents(export("hf", out=out))


def test_on_an_object_store(planted: Planted, s3_root: str, tmp_path: Path, told: Told, export: Export) -> None:
    """Store, source and export lie in a bucket."""
    bucket = open_store(s3_root)
    for folder in (planted.store, planted.source):
        for path in folder.rglob("*"):
            if path.is_file():
                bucket.put(f"{folder.name}/{path.relative_to(folder)}", path.read_bytes())
    for kind in (("webdataset", "--source", f"{s3_root}/{planted.source.name}"), ("hf",), ("delta",)):
        out = f"{s3_root}/out/{kind[0]}"
        command = ["export", f"{s3_root}/{planted.store.name}", out, "--format", *kind, "--json"]
        assert main(command) == 0
        assert told()["written"] == 3
        assert main(["verify", out, "--json"]) == 0
        assert told()["problems"] == []
        local = export(kind[0])
        held = open_store(out)
        assert {info.path: sha256(held.get(info.path)) for info in held.list("")} == contents(local)
    held.put("data/photos-001.parquet", b"x" * held.head("data/photos-001.parquet").size)
    assert main(["verify", out, "--json"]) == 3
    assert [problem["path"] for problem in told()["problems"]] == ["data/photos-001.parquet"]


def test_a_log_in_the_store_itself(photos: list[tuple[bytes, int]], tmp_path: Path, told: Told) -> None:
    planted = plant(tmp_path / "own", photos)
    store = str(planted.store)
    before = contents(planted.store)
    for written in (True, False):
        assert main(["export", store, store, "--format", "delta", "--json"]) == 0
        assert told() == {"out": store, "format": "delta", "release": 1, "table_version": 0, "written": written}
    log = f"_delta_log/{0:020d}.json"
    assert contents(planted.store).keys() - before.keys() == {log}
    table = deltalake.DeltaTable(store).to_pyarrow_table()
    assert table["status"].to_pylist().count("ok") == len(planted.rows)
    assert len(table) == 15
    assert main(["verify", store, "--level", "full"]) == 0
    # Another release becomes the table's next version; the first stays.
    main(["withdraw", store, "--shard", "photos-000.tar", "--key", "s/00", "--reason", "asked"])
    main(["erase", store])
    assert main(["export", store, store, "--format", "delta", "--json"]) == 0
    assert told()["table_version"] == 1
    newest, first = deltalake.DeltaTable(store), deltalake.DeltaTable(store, version=0)
    assert newest.to_pyarrow_table()["status"].to_pylist().count("ok") == len(planted.rows) - 1
    assert first.to_pyarrow_table()["status"].to_pylist().count("ok") == len(planted.rows)
    (planted.store / log.replace("0.json", "7.json")).write_text("{}")
    assert main(["export", store, store, "--format", "delta"]) == 3


def test_names_lead_nowhere() -> None:
    for name in ("../a.tar", "/etc/passwd", "a/../b.tar", ".export/plan", "a//b", "..", "", "_delta_log/x", "a/%2E"):
        parts = safe_path(name).split("/")
        assert not {"", ".", ".."} & set(parts), name
        assert not any(part.startswith((".", "_")) for part in parts), name
    names = ["a.tar", "a.tar.gz", "b/c.tgz", "d.parquet", "bucket-00001-of-00016", "x y.tar", "ü.tar"]
    planned = file_names(names, layout("webdataset", []))
    assert list(planned.values()) == [
        "a.tar.tar", "a.tar.gz.tar", "b/c.tar", "d.tar", "bucket-00001-of-00016.tar", "x y.tar", "ü.tar"
    ]  # fmt: skip
    assert len(set(planned.values())) == len(names)


def test_keys_stay_keys() -> None:
    assert [safe_key(key, dots=False) for key in ("s/01", "a.b/01", "ü", "50%")] == ["s/01", "a.b/01", "ü", "50%"]
    spelled = [safe_key(key, dots=True) for key in ("cats/1.jpg", "cats/1%2Ejpg", "1.png")]
    assert spelled == ["cats/1%2Ejpg", "cats/1%252Ejpg", "1%2Epng"]
    for key in ("../../etc/x", "/abs", "a//b", "__meta__"):
        assert not {"", ".", ".."} & set(safe_key(key, dots=False).split("/")), key


def test_a_folder_of_photographs(photos: list[tuple[bytes, int]], tmp_path: Path, export: Export) -> None:
    """Their keys are paths with dots: they are spelled so that webdataset and tar take each for one sample."""
    planted = plant_other(tmp_path / "own", "images", photos)
    out = export("webdataset", store=planted.store)
    [tar] = out.glob("*.tar")
    assert tar.name == "bucket-00000-of-00001.tar"
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in members(tar):
        key, _, extension = name.partition(".")
        samples.setdefault(key, {})[extension] = data
    assert {json.loads(sample["labels.json"])["key"] for sample in samples.values()} == {key for _, key in planted.rows}
    assert "cats/photo 0%2Ejpg" in samples
    for sample in samples.values():
        assert sample["jpg"] == planted.photos[tar.stem, json.loads(sample["labels.json"])["key"]]
    moved = Path(shutil.move(planted.source, tmp_path / "moved"))
    again = export("webdataset", "--source", str(moved), store=planted.store, out=tmp_path / "again")
    assert contents(again) == contents(out)


def test_parquet_and_json_lines(photos: list[tuple[bytes, int]], tmp_path: Path, export: Export, told: Told) -> None:
    for kind in ("parquet", "jsonl"):
        planted = plant_other(tmp_path / kind, kind, photos)
        out = export("jsonl", "--include", "media,quality", store=planted.store, out=tmp_path / f"{kind}-lines")
        [path] = out.glob("*.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(path.name.split(".")[0], row["key"]) for row in rows] == [
            (f"part-{kind}", f"k{row}") for row in (0, 3, 4)
        ]
        need = "image" if kind == "parquet" else "text"
        assert all(row["media"].keys() == {need} for row in rows)
        export("webdataset", store=planted.store, out=tmp_path / f"{kind}-tars")
        [tar] = (tmp_path / f"{kind}-tars").glob("*.tar")
        assert len(members(tar)) == 3 * (2 + 7), "the media, source.json, and the labels"


def test_a_release_of_older_relabels_and_one_of_a_release(planted: Planted, tmp_path: Path, export: Export) -> None:
    """One that does not say of which fields digests are; and one whose source is the labels of another."""
    for how in ("old", "derived"):
        store = derive(planted, tmp_path / how, how)
        out = export("webdataset", store=store, out=tmp_path / f"{how}-out")
        assert keys_of(out) == sorted(planted.rows)
        names = [name for name, _ in members(out / "photos-000.tar")]
        assert "s/00.jpg" in names
        assert "s/00.label_map_ids.npy" in names


@pytest.mark.parametrize("name", ["s/01.jpg", "x" * 100, "x" * 101, "a/" * 90 + "ü.jpg", "        .        .txt"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_members_are_those_of_tarfile(name: str, size: int) -> None:
    made, buffer = tar_file.member(name, b"7" * size) + bytes(1024), io.BytesIO()
    info = tarfile.TarInfo(name)
    info.size = size
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"7" * size))
    assert buffer.getvalue()[: len(made)] == made


def test_arrays_are_those_of_numpy() -> None:
    for array in (np.arange(6, dtype="<u2").reshape(2, 3), np.zeros((0, 4), "<f2"), np.ones((3, 4, 5), "|u1").T[1]):
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array))
        assert npy(array) == buffer.getvalue()
