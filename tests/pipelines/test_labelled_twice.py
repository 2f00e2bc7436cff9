"""Labelled twice: an engine that changed shows before the rest is paid for; labels that depend on neighbours show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases_of_photos import write_tar

from pipelines import run
from pipelines.again import FEWEST
from pipelines.publishing import publish_finished
from pipelines.same import sameness
from relabel.errors import Refused
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Column, Geometry, LabelContract
from relabel.labels.kinds import classes, embedding, scores, text
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.shard_file import label_columns
from relabel.releases.partitions import Partition

WORDS = ("one", "three", "four", "eleven", "of", "nineteen", "a", "seventeen", "two", "thirty")


def add_shards(source: Path, *names: str) -> None:
    for name in names:
        write_tar(source / name, {f"{row}.txt": word.encode() for row, word in enumerate(WORDS)})


def recipe(folder: Path, leaks: bool = False, **gate: Any) -> dict[str, Any]:
    return {
        "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}}, "store": str(folder / "store"),
        "steps": [{"drifting": {"file": str(folder / "factor"), "leaks": leaks}}], "plugins": ["drifting"],
        "resources": {"actors": 1, "compute_batch": 4}, "gate": gate,
    }  # fmt: skip


def check_of(outcome: Any, name: str) -> dict[str, Any]:
    [found] = [check for check in outcome.release.gate["checks"] if check["name"] == name]
    return dict(found)


def test_an_engine_that_changed_is_seen_before_the_rest_is_paid_for(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "factor").write_text("1.0")
    add_shards(tmp_path / "in", *(f"{number}.tar" for number in range(4)))
    run(recipe(tmp_path))
    add_shards(tmp_path / "in", "5.tar")
    same = check_of(run(recipe(tmp_path)), "replay")
    assert same["ok"]
    assert same["value"] == 1
    assert "16 of 16 samples of release 1 get the same label again, computed as then" in same["text"]

    (tmp_path / "factor").write_text("1.5")
    add_shards(tmp_path / "in", *(f"{number}.tar" for number in range(10, 16)))
    with pytest.raises(Refused, match=r"(?s)so the rest was not labelled.*replay drifting: 0 of 16 samples"):
        run(recipe(tmp_path))
    receipts = [path.name for path in (tmp_path / "store" / "receipts").rglob("*-g0000.json")]
    assert len(receipts) == 5, "nothing was labelled by it"

    declared = run(recipe(tmp_path, expect_change="a new engine", scores=99))
    assert declared.published
    assert declared.release is not None
    assert declared.release.gate["expect_change"] == "a new engine"
    assert not check_of(declared, "replay")["ok"]
    add_shards(tmp_path / "in", "20.tar")
    last = run(recipe(tmp_path, replay=0)).release
    assert last is not None
    assert "replay" not in {check["name"] for check in last.gate["checks"]}


def test_labels_that_depend_on_their_neighbours_are_refused(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "factor").write_text("1.0")
    add_shards(tmp_path / "in", "0.tar", "1.tar")
    with pytest.raises(Refused, match=r"singly of drifting: 0 of 4 samples get the same label alone"):
        run(recipe(tmp_path, leaks=True))
    outcome = run(recipe(tmp_path))
    assert check_of(outcome, "singly")["value"] == 1
    assert FEWEST <= 4


def test_what_partitions_labelled_twice_is_judged_where_they_are_published(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "factor").write_text("1.0")
    names = [f"{number}.tar" for number in range(8)]
    halves = [Partition(1, 2), Partition(2, 2)]
    assert all(any(half.holds(name) for name in names[4:]) for half in halves), "each has something to label"
    add_shards(tmp_path / "in", *names[:4])
    run(recipe(tmp_path))
    add_shards(tmp_path / "in", *names[4:])
    for half in halves:
        assert not run(recipe(tmp_path), partition=half).published
    release = publish_finished(recipe(tmp_path, same=0.95))
    assert "32 of 32 samples of release 1 get the same label again" in check_of(release, "replay")["text"]
    assert "8 of 8 samples get the same label alone" in check_of(release, "singly")["text"]

    add_shards(tmp_path / "in", "8.tar")
    last = run(recipe(tmp_path))
    assert "16 of 16 samples of release 2" in check_of(last, "replay")["text"], "its own only"


def test_what_was_refused_stays_so_for_who_publishes_it_later(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "factor").write_text("1.0")
    add_shards(tmp_path / "in", "0.tar", "1.tar")
    leaking = recipe(tmp_path, leaks=True)
    for again in (run, run, publish_finished):
        with pytest.raises(Refused, match=r"singly of drifting: 0 of 4 samples get the same label alone"):
            again(leaking)
    forced = publish_finished(leaking, forced="so be it")
    assert forced.release is not None
    assert forced.release.gate["verdict"] == "forced"


NAMES = ("dog", "cat", "horse", "owl", "whale")
MAPS = label_map_contract(
    "map", ClassMap(NAMES).declare(), (2, 2), 2, Geometry(size=64, interpolation="bilinear", orientation="exif")
)


WORD = LabelContract(name="w", kind="score", columns=(Column(name="w_word", dtype="bytes"),))


def cells(contract: LabelContract, **labels: Any) -> dict[str, Any]:
    columns = {f"{contract.name}_{name}": value for name, value in labels.items()}
    return dict(label_columns(contract, columns, 1).to_pylist()[0])


def of_map(*best: int) -> dict[str, Any]:
    logits = np.full((1, len(NAMES), 2, 2), -4.0, np.float32)
    for cell, index in enumerate(best):
        logits[0, index, cell // 2, cell % 2] = 4.0
    side = np.full(1, 64, np.int32)
    return cells(MAPS, **encode(logits, 2), height=side, width=side)


def vector(*values: float) -> dict[str, Any]:
    return cells(embedding("e", 3), vector=np.array([values], np.float32))


def best(index: int, score: float) -> dict[str, Any]:
    contract = classes("kind", NAMES)
    return cells(contract, ids=np.array([[index]], np.uint16), scores=np.array([[score]], np.float32))


@pytest.mark.parametrize(
    ("contract", "one", "other", "agreement"),
    [
        (MAPS, of_map(0, 1, 2, 3), of_map(0, 1, 2, 4), 0.75),
        (classes("kind", NAMES), best(1, 0.9), best(1, 0.6), 1.0),
        (classes("kind", NAMES), best(1, 0.9), best(2, 0.9), 0.0),
        (scores("s", "value"), {"s_value": 1.0}, {"s_value": 1.01}, 1.0),
        (scores("s", "value"), {"s_value": 1.0}, {"s_value": 1.1}, 0.0),
        (embedding("e", 3), vector(1, 0.001, 0), vector(1, 0.002, 0), 1.0),
        (embedding("e", 3), vector(1, 0.5, 0), vector(1, 0.6, 0), 2 / 3),
        (text("t"), {"t_text": "a red horse"}, {"t_text": "a red horse"}, 1.0),
        (text("t"), {"t_text": "a red horse"}, {"t_text": "a red dog"}, 0.5),
        (WORD, {"w_word": b"owl"}, {"w_word": b"dog"}, 0.0),
        (text("t"), {"t_text": None}, {"t_text": "a dog"}, 0.0),
    ],
)
def test_agreement_by_kind(contract: LabelContract, one: Any, other: Any, agreement: float) -> None:
    assert sameness(contract, one, other) == pytest.approx(agreement)
    assert sameness(contract, one, one) == 1
