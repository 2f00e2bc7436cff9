"""Engines in a run: many samples at once, each its own fate; what is lost with an engine is asked again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar

from pipelines import run
from pipelines.asking import parts_in_flight
from relabel.errors import EngineUnreachable
from relabel.labelers.engine_labeler import seed_of
from relabel.reasons import Reason
from relabel.testing.scripted import ScriptedLabeler, ScriptedParameters

pytestmark = pytest.mark.usefixtures("ray_cluster")

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def asked(tmp_path: Path) -> Make:
    """`asked(texts, **parameters)`: a recipe that sends these texts, one sample each, to the scripted engine."""

    def make(texts: list[str], part_rows: int = 4, **parameters: Any) -> dict[str, Any]:
        write_tar(tmp_path / "in" / "a.tar", {f"{row:04d}.txt": text.encode() for row, text in enumerate(texts)})
        return {
            "source": {"path": str(tmp_path / "in" / "a.tar"), "fields": {"text": "txt"}},
            "steps": [{"scripted": parameters}],
            "store": str(tmp_path / "store"),
            "resources": {"actors": 1, "part_rows": part_rows},
            "plugins": ["relabel.testing.scripted"],
        }

    return make


def rows_of(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_release(recipe["store"]).table("a.tar").to_pylist()
    return rows


def test_every_sample_gets_its_own_answer_with_as_many_at_once_as_asked(asked: Make) -> None:
    texts = [f"wait:0.05 word{row}" for row in range(40)]
    recipe = asked(texts, concurrency=8)
    run(recipe)
    rows = rows_of(recipe)
    assert [row["scripted_text"] for row in rows] == [f"WORD{row}#{seed_of(f'{row:04d}')}" for row in range(40)]
    assert max(row["scripted_peak"] for row in rows) == 8


def test_a_slow_answer_holds_nobody_back(asked: Make) -> None:
    """One sample of every part waits for longer than all others together."""
    texts = ["wait:3 slow" if row % 8 == 0 else f"wait:0.01 word{row}" for row in range(64)]
    recipe = asked(texts, part_rows=8, concurrency=8)
    begun = time.monotonic()
    run(recipe)
    assert [row["status"] for row in rows_of(recipe)] == ["ok"] * 64
    assert time.monotonic() - begun < 8 * 3, "as long as if no two slow answers had been waited for at a time"


def test_a_request_that_fails_costs_its_sample(asked: Make) -> None:
    recipe = asked(["one", "refuse", "three"])
    run(recipe)
    assert [(row["status"], row["reason"]) for row in rows_of(recipe)] == [
        ("ok", None), ("dead", Reason.ENGINE_ERROR), ("ok", None)
    ]  # fmt: skip


def test_a_service_that_stays_away_costs_no_sample(asked: Make) -> None:
    recipe = asked(["one", "away", "three"])
    with pytest.raises(EngineUnreachable, match="Run again to go on"):
        run(recipe)
    assert not list(Path(recipe["store"]).glob("versions/*"))


def test_a_lost_engine_ends_its_process_and_everything_is_asked_again(asked: Make, tmp_path: Path) -> None:
    texts = [f"word{row}" for row in range(12)]
    texts[5] = f"once:{tmp_path / 'died'}:die word5"
    recipe = asked(texts)
    run(recipe)
    assert [row["scripted_text"].partition("#")[0] for row in rows_of(recipe)] == [f"WORD{row}" for row in range(12)]
    assert (tmp_path / "died").exists()


def test_a_sample_that_kills_its_process_is_found_among_those_in_flight(asked: Make) -> None:
    texts = [f"word{row}" for row in range(12)]
    texts[5] = "wait:0.2 kill"
    recipe = asked(texts)
    run(recipe)
    assert [(row["status"], row["reason"]) for row in rows_of(recipe)] == [
        ("dead", Reason.PROCESS_DIED) if row == 5 else ("ok", None) for row in range(12)
    ]


def test_enough_lies_ready_for_an_engine() -> None:
    assert parts_in_flight(64, 256) == 3
    assert parts_in_flight(256, 32) * 32 >= 1.5 * 256 + 32


def test_how_many_at_once_is_no_part_of_what_a_label_means() -> None:
    def fingerprint(concurrency: int) -> str:
        labeler = ScriptedLabeler(ScriptedParameters(concurrency=concurrency))
        labeler.facts = labeler.inspect()
        return labeler.fingerprint()

    assert fingerprint(1) == fingerprint(64)
