"""What the bench compares is equal: every reader gives the same samples, every layout the same maps."""

import gc
from pathlib import Path

import numpy as np
import pytest
from devices import Call, steady
from layouts import LAYOUTS, packed_bytes
from measure import process_start
from photos import jpegs, write_shards
from tar_reading import SIZES, readers, write_shard

from relabel.labels.label_map import encode


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its files to the collector
def test_all_readers_of_a_shard_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    write_shard(path, min(SIZES), 7)
    read = {name: list(call()) for name, call in readers(path).items()}
    gc.collect()
    expected = [(sample.key, sample.fields["jpg"], sample.fields["cls"]) for sample in read["parser and grouping"]]
    assert len(expected) == 7
    assert [(one.key, one.fields["jpg"], one.fields["cls"]) for one in read["full source, hashed"]] == expected
    assert [(one["__key__"], one["jpg"], one["cls"]) for one in read["webdataset"]] == expected
    members = [(f"{key}.{kind}", data) for key, jpg, cls in expected for kind, data in (("jpg", jpg), ("cls", cls))]
    assert read["tarfile"] == members
    assert [(name.decode(), data) for name, data in read["parser"]] == members
    assert b"".join(read["bytes alone"]) == path.read_bytes()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_exact(name: str) -> None:
    logits = np.random.default_rng(3).normal(0, 5, (6, 300, 4, 3)).astype(np.float32)
    maps = encode(logits, 5)
    cells = LAYOUTS[name].encode(maps)
    decoded = LAYOUTS[name].decode(cells, maps)
    assert {field: values.tobytes() for field, values in decoded.items()} == {
        field: values.tobytes() for field, values in maps.items()
    }
    assert packed_bytes(cells) > 0


def test_the_steady_state_leaves_out_both_ends() -> None:
    slow = [Call(float(second), second + 0.9, 0.5, 8) for second in (0, 9)]
    calls = sorted(
        [*slow, *[Call(1 + 0.5 * place, 1.4 + 0.5 * place, 0.2, 8) for place in range(16)]], key=lambda c: c.begun
    )
    found = steady(calls)
    assert found.busy == pytest.approx(16 * 0.4 / 8)
    assert found.rate == pytest.approx(16 * 8 / 8)
    assert found.cpu == pytest.approx(0.2 / 8)


def test_photos_and_their_shards_are_the_same_every_time(tmp_path: Path) -> None:
    images = jpegs(3, (64, 48))
    assert images == jpegs(3, (64, 48))
    assert len(set(images)) == 3
    pattern = write_shards(tmp_path / "shards", images, 5, 2)
    assert pattern == f"{tmp_path}/shards/*.tar"
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["0000.tar", "0001.tar", "0002.tar"]


def test_a_process_began_before_now() -> None:
    assert process_start() > 0
