"""What a worker refuses reaches the person at the terminal: the sentence and the exit code, not Ray's wrapping."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
import yaml
from releases_of_photos import write_tar

from pipelines import run
from pipelines.loading import load
from pipelines.parts import Header
from pipelines.plan import make_job, plan
from pipelines.reading import read_parts
from pipelines.writing import job_schema, merge_shard, put_part
from relabel.errors import Refused, StorageError
from relabel.labels.shard_file import label_table
from relabel.shards.shard import Sample
from relabel.storage.opening import open_store

Make = Callable[..., dict[str, Any]]


def save_tiny_resnet(folder: Path) -> Path:
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        id2label={0: "a", 1: "b", 2: "c", 3: "d"},
        layer_type="basic",
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(do_center_crop=False).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("ray_cluster")
def test_other_weights_than_planned_are_refused_by_name(recipe: Make, tmp_path: Path) -> None:
    model = save_tiny_resnet(tmp_path / "model")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(steps=[{"label_map": {"model": str(model), "input_size": 64, "top_k": 2}}])))
    make_job(load(path), path.with_name("recipe.lock.json"))
    weights = model / "model.safetensors"
    before, data = weights.stat(), bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Refused, match="have digest") as caught:
        run(path)
    assert "Traceback" not in str(caught.value)
    assert "UDF" not in str(caught.value)


def test_a_parser_that_stumbles_is_a_bad_shard(recipe: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", {"a.jpg": b"x"})
    job = make_job(load(recipe(source={"path": str(tmp_path / "in" / "*.tar")})))

    def stumble(members: Any) -> Any:
        yield Sample("a", 0, {"jpg": b"x"})
        raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")

    monkeypatch.setattr("relabel.shards.webdataset.group", stumble)
    [entry] = plan(job).todo
    [part] = read_parts(job, entry.task)
    header = Header.from_json(part["header"][0].as_py())
    assert header.problem is not None
    assert header.problem[0] == "corrupt_shard"


def test_parts_of_other_bytes_are_not_joined(recipe: Make, tmp_path: Path) -> None:
    job = make_job(load(recipe(store=str(tmp_path / "store"))))
    [whole] = read_parts(job, plan(job).todo[0].task)
    header = Header.from_json(whole["header"][0].as_py())
    assert header.whole
    keys = [f"another {index}" for index in range(header.rows)]
    columns = {
        column.name: np.zeros((0, *column.shape), column.dtype)
        for labeler in job.labelers
        for column in labeler.writes().columns
    }
    status, reason, none = (["dead"] * len(keys), ["bad_key"] * len(keys), [None] * len(keys))
    table = label_table(job_schema(job), keys, none, status, reason, columns)
    store = open_store(str(tmp_path / "store"))
    part = put_part(job, store, header, table.append_column("detail", pa.array(none, pa.string())))
    with pytest.raises(StorageError, match="labels of other bytes"):
        merge_shard(job, header, [part])
    assert not store.exists(part.path)
