"""Runs and the gate: what it refuses is kept and not published; force, declared changes, canaries."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import open_release, write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.publishing import publish_finished
from relabel.errors import Refused, UnknownName
from relabel.releases.candidates import read_candidates
from relabel.releases.collect import plan_collect
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify

WORDS = ("one", "three", "four", "eleven", "of", "nineteen", "a", "seventeen", "two", "thirty")


def shard(folder: Path, name: str, times: int = 1, stops: int = 0) -> None:
    """Ten words, one after the other `times` times; so many of them cannot be told."""
    words = [word * times for word in WORDS]
    words[:stops] = ["stop"] * stops
    write_tar(folder / name, {f"{row}.txt": word.encode() for row, word in enumerate(words)})


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Six shards below `in`, and beside them the store of one run; not to be written to."""
    folder = tmp_path_factory.mktemp("once")
    for number in range(6):
        shard(folder / "in", f"{number}.tar")
    assert run(recipe(folder / "in")).published
    return folder


@pytest.fixture
def source(once: Path, tmp_path: Path) -> Path:
    """The shards, and a copy of that store beside them."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "in"


def recipe(source: Path, stop: str = "stop", **gate: Any) -> dict[str, Any]:
    return {
        "source": {"path": f"{source}/*.tar", "fields": {"text": "txt"}}, "steps": [{"tell": {"stop": stop}}],
        "store": str(source.parent / "store"), "plugins": ["relabel.testing.telling"],
        "resources": {"actors": 1, "compute_batch": 4}, "dead_letters": {"max_fraction": 1.0}, "gate": gate,
    }  # fmt: skip


def test_what_the_gate_refuses_is_kept_and_can_be_forced(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = open_release(str(source.parent / "store")).version
    assert first.gate["verdict"] == "passed"
    assert first.gate["baseline"] is None
    for number in range(6, 9):
        shard(source, f"{number}.tar", stops=9)
    with pytest.raises(
        Refused, match=r"(?s)gate refused.*dead_letters of unusable_text: 27 of 90 samples are dead"
    ) as caught:
        run(recipe(source))
    store = open_label_store(source.parent / "store")
    assert [version.version for version in store.history()] == [1]
    [candidate] = read_candidates(store.objects)
    assert f"candidate:{candidate.run_id}" in str(caught.value)

    kept = store.release(f"candidate:{candidate.run_id}")
    assert kept.counts.dead == 27
    assert kept.table("8.tar").num_rows == 10
    with pytest.raises(UnknownName, match=candidate.run_id):
        store.release("candidate:another")
    assert main(["candidates", str(source.parent / "store")]) == 0
    assert "27 of 90 samples are dead" in capfd.readouterr().out
    doomed = {each.path for each in plan_collect(store.objects, 0.0, force=True).objects}
    assert not {each.path for each in candidate.version.objects} & doomed, "needed as long as it may be published"

    assert main(["publish", "x.yaml", "--force"]) == 2
    outcome = publish_finished(recipe(source), forced="the words are meant to stop")
    assert outcome.release is not None
    assert outcome.release.gate["verdict"] == "forced"
    assert outcome.release.gate["forced"] == "the words are meant to stop"
    assert read_candidates(store.objects) == []
    assert verify(store.objects, "latest", "full").problems == []
    assert main(["show", str(source.parent / "store")]) == 0
    assert "forced: the words are meant to stop" in capfd.readouterr().out


def test_another_meaning_is_declared_or_refused(source: Path) -> None:
    other = recipe(source, stop="halt")
    receipts = source.parent / "store" / "receipts"
    before = sorted(receipts.rglob("*"))
    undeclared = r"(?s)nothing was labelled.*meaning of tell: not the same label as in release 1.*expect_change"
    with pytest.raises(Refused, match=undeclared):
        run(other)
    assert sorted(receipts.rglob("*")) == before, "nothing was paid for"
    declared = run(other, ["gate.expect_change=another word stops it"])
    assert declared.release is not None
    assert declared.release.gate["expect_change"] == "another word stops it"
    with pytest.raises(Refused, match=r"'another word stops it' is what release 2 was declared to be"):
        run(recipe(source, stop="end"), ["gate.expect_change=another word stops it"])


def test_a_gate_that_is_off_is_recorded(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run(recipe(source, stop="halt"), ["gate=off"])
    assert outcome.release is not None
    assert outcome.release.gate["verdict"] == "off"
    assert outcome.release.recipe["gate"]["off"] is True
    assert main(["show", str(source.parent / "store")]) == 0
    assert "off: the recipe asked for no checks" in capfd.readouterr().out


def test_what_a_gate_costs_without_a_baseline(source: Path, tmp_path: Path) -> None:
    """A first release is published without a word, and says that nothing was there to compare it with."""
    fresh = {**recipe(source), "store": str(tmp_path / "fresh")}
    first = run({name: value for name, value in fresh.items() if name != "gate"})
    assert first.release is not None
    assert (first.release.gate["verdict"], first.release.gate["baseline"]) == ("passed", None)
    assert {check["name"] for check in first.release.gate["checks"]} == {"reconciliation", "singly"}


def test_a_canary_is_judged_before_the_rest_is_labelled(source: Path) -> None:
    for number in range(10, 22):
        shard(source, f"{number}.tar", stops=9)
    with pytest.raises(Refused, match="dead_letters"):
        run(recipe(source, canary=0.25))
    receipts = list((source.parent / "store" / "receipts").rglob("*-g0000.json"))
    assert len(receipts) == 6 + 3, "three of twelve shards were labelled"
    for number in range(10, 22):
        shard(source, f"{number}.tar", times=1)
    outcome = run(recipe(source, canary=0.25))
    assert outcome.published
    assert outcome.labelled == 12
    assert len(open_release(str(source.parent / "store")).shards) == 18
