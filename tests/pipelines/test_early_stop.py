"""On a real Ray: a run that cannot keep its budget stops early; mended, `replay` and `run` finish it; releases too."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases_of_photos import open_release, shas, write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.replay import replay
from relabel.errors import TooManyDeadLetters

pytestmark = [pytest.mark.usefixtures("ray_cluster")]

SHARDS, ROWS = 16, 6


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Sixteen shards of six texts, of which two need the file `needed`."""
    for shard in range(SHARDS):
        texts = [f"need {tmp_path}/needed" if row in (1, 4) else "x" * (row + shard + 1) for row in range(ROWS)]
        members = {f"{row}.txt": text.encode() for row, text in enumerate(texts)}
        write_tar(tmp_path / "in" / f"{shard:02d}.tar", members)
    return {
        "source": {"path": str(tmp_path / "in" / "*.tar")},
        "plugins": ["relabel.testing.misbehaving"],
        "steps": ["misbehaving"],
        "store": str(tmp_path / "store"),
        "resources": {"actors": 1, "compute_batch": 2, "part_rows": 4, "readers": 1},
        "dead_letters": {"max_fraction": 0.02, "allow": 3},
    }


def printed(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(arguments)
    return code, out.getvalue()


def test_a_run_stops_early_and_is_finished_by_replay(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TooManyDeadLetters, match=r"operator_error.*Stopped early with \d+ of 16 .*--open") as caught:
        run(recipe)
    assert "FileNotFoundError" in str(caught.value)
    receipts = list((tmp_path / "store" / "receipts").rglob("*-g0000.json"))
    assert 3 <= len(receipts) < SHARDS
    assert not (tmp_path / "store" / "versions").exists()

    code, shown = printed("dead", recipe["store"], "--open")
    assert code == 0
    assert "samples operator_error" in shown
    assert "00.tar/1" in shown
    assert printed("dead", recipe["store"])[0] == 2
    with pytest.raises(TooManyDeadLetters):
        run(recipe)  # as it says: before anything is labelled

    (tmp_path / "needed").touch()
    opened = replay(recipe)
    assert all("-g0000-" in path for path in opened.outcome.plan.redone)
    assert opened.repaired_samples == opened.samples == 2 * len(opened.outcome.receipts) >= 6
    outcome = run(recipe)
    assert outcome.published
    assert outcome.labelled == SHARDS - len(opened.outcome.receipts)
    assert open_release(recipe["store"]).counts.dead == 0


def test_a_release_is_repaired_and_equals_one_labelled_whole(recipe: dict[str, Any], tmp_path: Path) -> None:
    loose = {**recipe, "dead_letters": {"max_fraction": 0.5}, "publish": "40%"}
    first = run(loose)
    assert [round(version.coverage, 2) for version in first.milestones] in ([0.44, 0.88], [0.44], [0.5])
    dead = open_release(recipe["store"]).counts.dead
    assert dead == 2 * SHARDS
    _, shown = printed("dead", recipe["store"], "--reason", "operator_error", "--json", "--limit", "2")
    lines = [json.loads(line) for line in shown.splitlines()]
    assert [(line["shard"], line["key"], line["attempts"]) for line in lines] == [
        ("00.tar", "1", 1),
        ("00.tar", "4", 1),
    ]

    (tmp_path / "needed").touch()
    done = replay(loose, release="latest")
    assert (done.repaired_samples, done.outcome.published) == (dead, True)
    whole = {**loose, "store": str(tmp_path / "whole")}
    run(whole)
    assert shas(open_release(recipe["store"])) == shas(open_release(whole["store"]))
    assert run(loose).published is False
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(loose))
    again = subprocess.run(
        [sys.executable, "-m", "pipelines", "replay", str(tmp_path / "recipe.yaml"), "--release", "latest"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "nothing to do" in again.stdout
