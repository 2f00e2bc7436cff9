"""Captions scored in one run: chosen by their old captions, scored beside them, summed up in the release."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases_of_photos import open_release, write_tar
from small_encoders import COLOURS, caption, save_clip, scene
from two_colours import png

from pipelines import run
from pipelines.command_line import main
from pipelines.loading import load
from pipelines.outcome import Outcome
from pipelines.plan import make_job
from pipelines.replay import replay
from relabel.labels.summary import add_up, summarise
from relabel.reasons import Reason
from relabel.releases.verify import verify
from relabel.storage.opening import open_store

GOOD = "A small red box lies in the middle of a green field."
OLD = {
    "0": "IMG_2034.jpg", "1": "eine rote Kiste auf blauem Grund im Sommer", "2": "box", "3": GOOD, "4": "",
    "5": "a red box on blue", "6": "my red box.png", "7": "DSC00017",
}  # fmt: skip
"""By key; 3 is good enough and is left out, 4 has none."""
PAIRS = [(box, "green") for box in COLOURS if box != "green"]
POOR = [
    {"field": "txt", "exists": False},
    {"field": "txt", "words": {"lt": 6}},
    {"field": "txt", "looks_like_file_name": True},
    {"field": "txt", "not_language": "en"},
]
CHOSEN = [key for key in OLD if key != "3"]
BAD = "5"
"""Its image is cut off."""

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members: dict[str, bytes] = {}
    for row, (key, old) in enumerate(OLD.items()):
        image = png(scene(*PAIRS[row % len(PAIRS)], seed=row, height=48, width=48 + row))
        members[f"{key}.png"] = image[: len(image) // 2] if key == BAD else image
        if old:
            members[f"{key}.txt"] = old.encode()
        if row % 2 == 0:
            members[f"{key}.gold"] = caption(*PAIRS[row % len(PAIRS)]).encode()
    return write_tar(tmp_path_factory.mktemp("scenes") / "a.tar", members)


@pytest.fixture(scope="module")
def recipe(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = save_clip(tmp_path_factory.mktemp("clip"))
    styles = {"short": {"prompt": "Say it."}, "long": {"prompt": "Say more of it."}}
    return {
        "source": {
            "path": str(shard), "fields": {"old_caption": "txt", "gold": "gold"}, "where": [{"any": POOR}],
        },
        "steps": [
            {"scripted_caption": {"old_caption": True, "styles": styles}, "as": "caption"},
            {"image_text_score": {"model": str(model)}, "as": "fit"},
            {"caption_match": {"styles": ["short"]}, "as": "match"},
        ],
        "store": str(tmp_path_factory.mktemp("store") / "captions"),
        "resources": {"actors": 1, "part_rows": 3, "compute_batch": 4},
        "plugins": ["relabel.testing.captioner"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def outcome(recipe: dict[str, Any], ray_cluster: None) -> Outcome:
    return run(recipe)


@pytest.fixture
def rows(recipe: dict[str, Any], outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_release(recipe["store"]).table("a.tar").to_pylist()
    return found


def test_old_captions_choose_what_is_labelled(rows: list[dict[str, Any]]) -> None:
    assert {row["key"]: (row["status"], row["reason"]) for row in rows} == {
        **dict.fromkeys(CHOSEN, ("ok", None)),
        "3": ("filtered", Reason.WHERE),
        BAD: ("dead", Reason.CORRUPT_IMAGE),
    }


def test_every_style_and_the_old_caption_are_scored(rows: list[dict[str, Any]]) -> None:
    labelled = {row["key"]: row for row in rows if row["status"] == "ok"}
    assert all(-1 <= row[f"fit_{style}"] <= 1 for row in labelled.values() for style in ("short", "long"))
    assert [row["fit_old"] == -2 for row in labelled.values()] == [not OLD[key] for key in labelled]
    assert all(row["fit_short"] == row["fit_long"] for row in labelled.values()), "this engine says one thing"
    assert len({row["fit_short"] for row in labelled.values()}) > 1
    assert all(row["fit_short_cut"] == 2 for row in labelled.values()), "8 words and 2 marks, of 8 tokens"


def test_captions_are_matched_where_there_is_a_true_one(rows: list[dict[str, Any]]) -> None:
    labelled = [row for row in rows if row["status"] == "ok"]
    measured = {row["key"]: row["match_short_f1"] for row in labelled}
    assert {key for key, f1 in measured.items() if f1 == -1} == {"1", "7"}
    assert all(0 <= f1 < 1 for key, f1 in measured.items() if key not in ("1", "7"))
    assert all(row["match_old_exact"] == (-1 if row["key"] in ("1", "7") else 0) for row in labelled)


def test_the_release_says_how_often_new_beats_old(
    recipe: dict[str, Any], outcome: Outcome, rows: list[dict[str, Any]]
) -> None:
    release = open_release(recipe["store"])
    summary = release.summary
    assert summary is not None
    labelled = [row for row in rows if row["status"] == "ok"]
    both = [(row["fit_short"], row["fit_old"]) for row in labelled if row["fit_old"] != -2]
    contest = summary.contests["fit_short", "fit_old"]
    assert (contest.larger, contest.rows) == (sum(new > old for new, old in both), len(both))
    scores = summary.numbers["fit_short"]
    assert (scores.count, scores.mean) == (6, pytest.approx(np.mean([row["fit_short"] for row in labelled]), abs=1e-6))
    assert summary.numbers["match_short_exact"].count == 4
    assert summary.flags["caption_short_flags"].rows == 6
    assert summary.numbers["caption_short_num_tokens"].quantile(0.5) == 9
    whole = summarise(release.labels.values(), release.table("a.tar"))
    assert whole is not None
    assert add_up([whole]) == summary
    assert outcome.to_json()["summary"] == summary.to_json()
    assert verify(open_store(recipe["store"]), level="full").problems == []


def test_commands_show_it(recipe: dict[str, Any], outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", recipe["store"]]) == 0
    shown = capsys.readouterr().out
    for line in ("wins      fit_short > fit_old: ", "numbers   fit_short ", "flags     caption_short_flags ", "% of 6"):
        assert line in shown
    assert main(["log", recipe["store"]]) == 0
    assert "fit_short > fit_old: " in capsys.readouterr().out
    for command in (["show", "--json"], ["log", "--json"], ["diff", "1", "1", "--json"]):
        assert main([command[0], recipe["store"], *command[1:]]) == 0
        assert '"wins"' in capsys.readouterr().out


def test_a_replay_and_a_second_run_leave_it_as_it_is(recipe: dict[str, Any], outcome: Outcome) -> None:
    before = open_release(recipe["store"]).summary
    replayed = replay(recipe, release="latest")
    assert (replayed.samples, replayed.repaired_samples) == (1, 0)
    assert open_release(recipe["store"]).summary == before
    assert verify(open_store(recipe["store"]), level="full").problems == []
    assert run(recipe).labelled == 0


def test_conditions_and_models_are_part_of_the_meaning(recipe: dict[str, Any]) -> None:
    def fingerprint(**source: Any) -> str:
        return make_job(load({**recipe, "source": {**recipe["source"], **source}})).fingerprint

    longer = [{"any": [POOR[0], {"field": "txt", "words": {"lt": 7}}, *POOR[2:]]}]
    assert fingerprint() == fingerprint()
    assert fingerprint(where=longer) != fingerprint()
