"""Locks: facts are learnt once, kept while weights stay, learnt anew when they change."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.labelers.labeler import Batch, Labeler, Labels, Parameters, Prepared
from relabel.labelers.lock import Lock
from relabel.labels.contract import LabelContract
from relabel.shards.shard import Value


class WeighedParameters(Parameters):
    weights: str
    colour: str = "red"


class Weighed(Labeler[WeighedParameters]):
    """Its one fact is what its weight file holds."""

    name = "weighed"
    version = 1
    Parameters = WeighedParameters
    inspections = 0

    def weight_files(self) -> Sequence[Path]:
        path = Path(self.parameters.weights)
        return [path] if path.exists() else []

    def inspected_parameters(self) -> dict[str, Json]:
        return {"weights": self.parameters.weights}

    def inspect(self) -> dict[str, Json]:
        Weighed.inspections += 1
        return {"text": Path(self.parameters.weights).read_text()}

    def writes(self) -> LabelContract:
        return LabelContract(name=self.label, kind="score", columns=())

    def prepare(self, sample: Mapping[str, Value]) -> Prepared:
        return {}

    def load(self, device: str) -> None: ...

    def __call__(self, batch: Batch) -> Labels:
        return {}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Weighed, "inspections", 0)
    path = tmp_path / "weights"
    path.write_text("first")
    return path


def facts(lock: Path | None, weights: Path, **parameters: Any) -> dict[str, Json]:
    """As a new process would ask."""
    return Lock(lock).facts(Weighed(WeighedParameters(weights=str(weights), **parameters)))


def test_facts_are_learnt_once(weights: Path, tmp_path: Path) -> None:
    lock = tmp_path / "recipe.lock.json"
    assert facts(lock, weights) == facts(lock, weights) == {"text": "first"}
    assert facts(lock, weights, colour="blue") == {"text": "first"}
    assert Weighed.inspections == 1


def test_changed_weights_are_looked_at_again(weights: Path, tmp_path: Path) -> None:
    lock = tmp_path / "recipe.lock.json"
    facts(lock, weights)
    weights.write_text("2")
    assert facts(lock, weights) == {"text": "2"}
    stat = weights.stat()
    weights.write_text("3")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert facts(lock, weights) == facts(lock, weights) == {"text": "3"}
    assert Weighed.inspections == 3


def test_facts_are_known_where_the_weights_are_not(weights: Path, tmp_path: Path) -> None:
    lock = tmp_path / "recipe.lock.json"
    facts(lock, weights)
    weights.unlink()
    assert facts(lock, weights) == {"text": "first"}


def test_a_new_version_is_looked_at_again(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "recipe.lock.json"
    facts(lock, weights)
    monkeypatch.setattr(Weighed, "version", 2)
    facts(lock, weights)
    assert Weighed.inspections == 2
    assert len(json.loads(lock.read_text())["entries"]) == 2


def test_the_file_says_whose_facts_it_holds(weights: Path, tmp_path: Path) -> None:
    lock = tmp_path / "recipe.lock.json"
    facts(lock, weights)
    (entry,) = json.loads(lock.read_text())["entries"].values()
    assert entry["labeler"] == "weighed"
    assert entry["inspected"] == {"weights": str(weights)}
    assert entry["files"]["weights"]["size"] == 5
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == ["recipe.lock.json"]


def test_an_unwritable_folder_costs_time_only(weights: Path, tmp_path: Path) -> None:
    lock = Lock(tmp_path / "no folder" / "recipe.lock.json")
    labeler = Weighed(WeighedParameters(weights=str(weights)))
    assert lock.facts(labeler) == lock.facts(labeler) == {"text": "first"}
    assert lock.unwritten is not None
    assert "was not written" in lock.unwritten
    assert Weighed.inspections == 1
    assert facts(None, weights) == {"text": "first"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entries": {}}', '{"entries": {}, "format": 7}'])
def test_another_file_is_not_taken_for_a_lock(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.lock.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"Delete it|delete the file"):
        Lock(path)
