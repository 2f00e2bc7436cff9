"""Pseudo-labels from JSON lines to a release: rows conserved, classes valid or none, flags and files that verify."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases_of_photos import open_release

import relabel
from pipelines import run
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.trying import try_recipe
from relabel.labels.pseudo import no_class
from relabel.reasons import Reason
from relabel.releases.verify import verify
from relabel.storage.opening import open_store

TOPICS = ["sports", "business", "politics"]
TEXTS = {
    "a": "sports and nothing but sports", "b": "business", "c": "politics plant strange until 0.5",
    "d": "plant malformed", "e": "plant other", "f": "sports fail", "g": "politics", "h": "",
}  # fmt: skip


def recipe(folder: Path, store: str, **parameters: Any) -> dict[str, Any]:
    step = {"labels": TOPICS, "how": "json", "other": "Other", **parameters}
    return {
        "source": {
            "path": f"{folder}/*.jsonl*", "kind": "jsonl", "key": "id", "fields": {"text": "article.body"},
            "where": [{"field": "article.lang", "eq": "en"}],
        },
        "steps": [{"scripted_pseudo_label": step, "as": "topic"}],
        "store": store,
        "resources": {"actors": 1, "part_rows": 3},
        "plugins": ["relabel.testing.judge"],
        "dead_letters": {"max_fraction": 0.9},
    }  # fmt: skip


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, one compressed; one row in another language."""
    folder = tmp_path_factory.mktemp("articles")
    rows = [{"id": key, "article": {"body": text, "lang": "de" if key == "g" else "en"}} for key, text in TEXTS.items()]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "1.jsonl").write_bytes(lines)
    (folder / "2.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "3.jsonl").write_bytes(lines[:-9])
    return folder


@pytest.fixture(scope="module")
def store(articles: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    place = str(tmp_path_factory.mktemp("store") / "topics")
    run(recipe(articles, place))
    run(recipe(articles, place, how="score", other=""), ["gate=off"])
    return place


def test_rows_are_conserved_and_every_failure_is_told_apart(store: str) -> None:
    release = relabel.open(store).release(1)
    rows = {row["key"]: row for row in release.table("1.jsonl").to_pylist()}
    assert list(rows) == list(TEXTS)
    assert {key: row["reason"] for key, row in rows.items() if row["status"] != "ok"} == {
        "f": Reason.ENGINE_ERROR, "g": Reason.WHERE, "h": Reason.EMPTY_FIELD
    }  # fmt: skip
    assert {key: (row["topic_flags"], row["topic_attempts"]) for key, row in rows.items() if row["status"] == "ok"} == {
        "a": ([], 1), "b": ([], 1), "c": ([], 2), "d": (["parse_error"], 3), "e": (["other"], 1)
    }  # fmt: skip
    best = {key: int(release.get("1.jsonl", key)["topic"]["topic_ids"][0]) for key in "abcde"}
    assert best == {"a": 0, "b": 1, "c": 2, "d": no_class(3), "e": no_class(3)}
    assert release.table("2.jsonl.gz").drop_columns(["key"]).equals(release.table("1.jsonl").drop_columns(["key"]))
    assert release.labels["topic"].score_domain == "vote_share"
    assert release.summary is not None
    told = release.summary.flags
    assert told["topic_flags"].to_json() == {"rows": 10, "counts": {"other": 2, "parse_error": 2}}
    assert told["topic_truncated"].to_json() == {"rows": 10, "counts": {}}
    assert [letter["reason"] for letter in release.dead_letters() if "key" not in letter] == [Reason.TRUNCATED_SHARD]


def test_scores_are_probabilities_of_all_classes(store: str) -> None:
    release = open_release(store)
    assert release.number == 2
    label = release.get("1.jsonl", "a")["topic"]
    assert label["topic_ids"].tolist()[0] == 0
    assert label["topic_scores"].sum() == pytest.approx(1)
    assert label["topic_log_likelihood"].shape == (1, 3)
    names = release.version.labels["topic"].class_names
    assert list(names) == TOPICS
    ids = np.stack([release.get("1.jsonl", key)["topic"]["topic_ids"] for key in "abcde"])
    assert (np.sort(ids, axis=1) == np.arange(3)).all(), "no label outside the set"
    assert verify(open_store(store), level="full").problems == []


def test_a_release_is_compared_also_where_a_row_has_no_class(store: str) -> None:
    found = relabel.open(store).diff(1, 2).to_json()
    assert "topic" in json.dumps(found)


def test_a_trial_shows_what_a_run_gives(articles: Path, store: str, tmp_path: Path) -> None:
    told = recipe(articles, str(tmp_path / "none"))
    told["source"]["path"] = f"{articles}/1.jsonl"
    shown = {each["key"]: each for each in try_recipe(told).samples()}
    assert shown["a"]["labels"] == {"topic": "sports 1.00"}
    assert shown["e"]["labels"] == {"topic": "no class [other]"}
    assert shown["f"]["reason"] == Reason.ENGINE_ERROR


def test_a_plan_made_here_means_what_the_run_wrote(articles: Path, store: str) -> None:
    job = make_job(load(recipe(articles, store)))
    assert job.labelers[0].fingerprint() == relabel.open(store).release(1).version.fingerprints["topic"]
