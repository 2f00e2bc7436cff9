"""Labels that read labels: which rows and columns arrive, how meanings chain, and what is refused."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar

from pipelines import run
from pipelines.in_process import label_samples
from pipelines.job import Job
from pipelines.loading import load
from pipelines.plan import make_job
from pipelines.sampling import take
from relabel.errors import UsageError
from relabel.reasons import Reason, Status

TEXTS = ["one", "stop", "three", "", "four", "stop", "eleven"]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(tmp_path: Path) -> Make:
    def make(*steps: Any, texts: list[str] | None = None, **sections: Any) -> dict[str, Any]:
        found = TEXTS if texts is None else texts
        write_tar(tmp_path / "in" / "a.tar", {f"{row:04d}.txt": text.encode() for row, text in enumerate(found)})
        return {
            "source": {"path": str(tmp_path / "in" / "a.tar"), "fields": {"text": "txt"}},
            "steps": list(steps), "store": str(tmp_path / "store"), "plugins": ["relabel.testing.telling"],
            "resources": {"actors": 1, "compute_batch": 4}, **sections,
        }  # fmt: skip

    return make


def job_of(made: dict[str, Any]) -> Job:
    return make_job(load(made))


def rows_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    job = job_of(made)
    return label_samples(job, take(job.source, 100)).rows


def test_columns_arrive_under_their_names_in_the_types_of_the_contract(recipe: Make) -> None:
    [row] = rows_of(recipe("tell", "retell", texts=["three"]))
    assert row["retell_types"].split() == [
        "tell_word:list", "tell_words:list", "tell_bytes:list", "tell_even:|b1[]", "tell_length:<i4[]",
        "tell_vector:<f4[3]",
    ]  # fmt: skip
    assert ast.literal_eval(row["retell_rows"]) == ["three", ["three", "eerht"], b"three", False, 5, [5.0, 0.5, -1.0]]


def test_rows_that_an_earlier_step_could_not_label_do_not_arrive(recipe: Make) -> None:
    rows = rows_of(recipe("tell", "retell"))
    assert [row["reason"] for row in rows] == [
        None, Reason.UNUSABLE_TEXT, None, Reason.EMPTY_FIELD, None, Reason.UNUSABLE_TEXT, None,
    ]  # fmt: skip
    alive = [row for row in rows if row["status"] == Status.OK]
    assert [(row["retell_key"], row["retell_word"]) for row in alive] == [
        (row["key"], TEXTS[int(row["key"])]) for row in alive
    ], "each row meets its own label"
    assert all(row["retell_word"] is None for row in rows if row["status"] != Status.OK)


def test_a_label_is_read_by_the_name_that_the_recipe_gives_it(recipe: Make) -> None:
    steps = [{"tell": {}, "as": "said"}, {"retell": {"label": "said"}, "as": "again"}, {"retell": {"label": "again"}}]
    [row] = rows_of(recipe(*steps, texts=["seven"]))
    assert (row["again_word"], row["retell_word"]) == ("seven", "seven")
    assert row["retell_types"].split() == ["again_key:list", "again_word:list", "again_types:list", "again_rows:list"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            ["retell"],
            "'tell', which neither a step before it writes nor the source has; there are: none",
        ),
        (["retell", "tell"], "Put the step that writes it first"),
        (["tell", {"retell": {"label": "told"}}], "reads the label 'told', .*; there are: tell"),
        ([{"retell": {"label": "retell"}}], "there are: none"),
    ],
)
def test_a_label_that_no_earlier_step_writes_is_refused(recipe: Make, steps: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        job_of(recipe(*steps))


def test_meanings_chain(recipe: Make) -> None:
    def fingerprints(*steps: Any) -> dict[str, str]:
        return job_of(recipe(*steps)).label_fingerprints

    chain = [{"retell": {}}, {"retell": {"label": "retell"}, "as": "last"}]
    base = fingerprints("tell", *chain)
    other = fingerprints({"tell": {"stop": "halt"}}, *chain)
    assert all(base[label] != other[label] for label in ("tell", "retell", "last")), "what was read is part of it"
    assert fingerprints("tell", *chain) == base
    further = fingerprints("tell", {"tell": {"stop": "x"}, "as": "beside"}, *chain)
    assert {label: further[label] for label in base} == base, "what is not read is not"


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_gives_what_a_trial_gave_over_several_parts(recipe: Make) -> None:
    texts = [*TEXTS, *(f"word{row}" for row in range(20))]
    made = recipe("tell", "retell", texts=texts, resources={"actors": 1, "compute_batch": 4, "part_rows": 6})
    tried = rows_of(made)
    outcome = run(made)
    rows = open_release(made["store"]).table("a.tar").to_pylist()
    names = ["key", "status", "reason", "tell_word", "retell_key", "retell_word", "retell_types", "retell_rows"]
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in tried]
    assert outcome.release is not None
    assert outcome.release.labels["retell"].fingerprint == job_of(made).label_fingerprints["retell"]
