"""Samples that raise, kill, hang, leave or break the device cost themselves and nobody else, on a real Ray."""

from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar

from pipelines import run
from relabel.errors import DeviceFull

pytestmark = [pytest.mark.usefixtures("ray_cluster")]

PART_ROWS = 8


def mischief(tmp_path: Path, texts: dict[str, str], **resources: Any) -> dict[str, Any]:
    """A recipe over one shard of these texts among harmless ones."""
    members = {f"{key}.txt": text.encode() for key, text in sorted({**harmless(), **texts}.items())}
    write_tar(tmp_path / "in" / "0.tar", members)
    return {
        "source": {"path": str(tmp_path / "in" / "*.tar")},
        "plugins": ["relabel.testing.misbehaving"],
        "steps": ["misbehaving"],
        "store": str(tmp_path / "store"),
        "resources": {"actors": 1, "compute_batch": 2, "part_rows": PART_ROWS, **resources},
        "dead_letters": {"allow": 20},
    }


def harmless() -> dict[str, str]:
    return {f"k{number:02d}": "x" * number for number in range(1, 21)}


def check(store: Path, dead: dict[str, str]) -> None:
    """Every harmless sample has its label, the dead ones their reasons."""
    release = open_release(str(store))
    [shard] = release.shards
    rows = {row["key"]: row for row in release.table(shard).to_pylist()}
    assert {key: row["reason"] for key, row in rows.items() if row["status"] == "dead"} == dead
    lengths = {key: rows[key]["misbehaving_length"] for key in harmless()}
    assert lengths == {key: len(text) for key, text in harmless().items()}


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("leave", "operator_error"),
        ("kill", "process_died"),
        ("quit", "process_died"),
        ("break-device", "device_failed"),
    ],
)
def test_a_bad_call_costs_its_sample(tmp_path: Path, word: str, reason: str) -> None:
    assert run(mischief(tmp_path, {"k05a": word})).published
    check(tmp_path / "store", {"k05a": reason})


def test_a_bad_preparation_costs_its_sample(tmp_path: Path) -> None:
    assert run(mischief(tmp_path, {"k05a": "prepare kill", "k14a": "prepare raise"})).published
    check(tmp_path / "store", {"k05a": "process_died", "k14a": "operator_error"})


@pytest.mark.parametrize(("word", "reason"), [("hang", "timed_out"), ("prepare hang-locked", "process_died")])
def test_a_hang_is_ended(tmp_path: Path, word: str, reason: str) -> None:
    """Also one that never lets go of the interpreter lock; its process can no longer say why it ends."""
    assert run(mischief(tmp_path, {"k05a": word}, call_seconds=1.5)).published
    check(tmp_path / "store", {"k05a": reason})


def test_who_dies_once_is_innocent(tmp_path: Path) -> None:
    texts = {f"k{number:02d}a": f"once {tmp_path}/{number} kill" for number in (3, 9, 15)}
    recipe = mischief(tmp_path, texts)
    assert run(recipe).published
    check(tmp_path / "store", {})


def test_memory_that_comes_back_costs_nothing(tmp_path: Path) -> None:
    assert run(mischief(tmp_path, {"k05a": f"once {tmp_path}/full fill-memory"})).published
    check(tmp_path / "store", {})


IMPATIENT = {"plugins": ["impatient"], "steps": ["impatient"]}


def test_memory_that_stays_full_stops_the_run(tmp_path: Path) -> None:
    recipe = mischief(tmp_path, {"k05a": "fill-memory"}) | IMPATIENT
    with pytest.raises(DeviceFull, match=r"Lower resources\.compute_batch"):
        run(recipe)
    assert not (tmp_path / "store" / "versions").exists()
    # And the next run in this process is not held up by what the failed one left.
    again = mischief(tmp_path / "again", {})
    assert run(again).published
