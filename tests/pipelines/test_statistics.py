"""Statistics in runs: gathered over all rows before anything is labelled, frozen, and anew only on demand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases_of_photos import open_release, shas, write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.loading import load
from pipelines.outcome import Outcome
from pipelines.plan import make_job, plan
from relabel.errors import Recalled, Refused, UnknownName, UsageError
from relabel.reasons import Reason, Status
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify

WORDS = ["one", "three", "four", "stop", "eleven", "a", "of", "nineteen"]
PLUGINS = ["relabel.testing.telling"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of words; `stop` cannot be told. Not to be written to."""
    folder = tmp_path_factory.mktemp("words")
    for number in range(3):
        members = {f"{row}.txt": (word * (number + 1)).encode() for row, word in enumerate(WORDS)}
        write_tar(folder / f"{number}.tar", members)
    return folder


@pytest.fixture
def texts(words: Path, tmp_path: Path) -> Path:
    """A copy of `words`, the same shards to a store in which they are labelled."""
    return shutil.copytree(words, tmp_path / "in")


@pytest.fixture(scope="module")
def of_words(words: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Stores of one run each, not to be written to: `told` has what `tell` says, `whole` its deviations too."""
    folder = tmp_path_factory.mktemp("of_words")
    assert run(of_texts(words, folder / "told", "tell")).published
    assert run(of_texts(words, folder / "whole", "tell", "deviate")).published
    return folder


@pytest.fixture
def told(of_words: Path, tmp_path: Path) -> Path:
    return shutil.copytree(of_words / "told", tmp_path / "told")


@pytest.fixture
def whole(of_words: Path, tmp_path: Path) -> Path:
    return shutil.copytree(of_words / "whole", tmp_path / "whole")


def recipe(source: Any, store: Path, *steps: Any) -> dict[str, Any]:
    return {
        "source": source, "steps": list(steps), "store": str(store), "plugins": PLUGINS,
        "resources": {"actors": 1, "compute_batch": 4, "part_rows": 3},
        "dead_letters": {"max_fraction": 1.0},
    }  # fmt: skip


def of_texts(texts: Path, store: Path, *steps: Any) -> dict[str, Any]:
    return recipe({"path": f"{texts}/*.tar", "fields": {"text": "txt"}}, store, *steps)


def of_release(told: Path, store: Path, *steps: Any, **source: Any) -> dict[str, Any]:
    return recipe({"path": str(told), "kind": "release", **source}, store, *steps)


def deviations(store: Path) -> dict[tuple[str, str], float]:
    release = open_release(str(store))
    rows = [(shard, row) for shard in release.shards for row in release.table(shard).to_pylist()]
    return {(shard, row["key"]): row["deviate_by"] for shard, row in rows if row["status"] == Status.OK}


def expected() -> dict[tuple[str, str], float]:
    lengths = {
        (f"{number}.tar", str(row)): float(len(word) * (number + 1))
        for number in range(3)
        for row, word in enumerate(WORDS)
        if word * (number + 1) != "stop"
    }
    values = np.array([*lengths.values()])
    spread = np.abs(values - values.mean()).mean()
    return {name: (value - values.mean()) / spread for name, value in lengths.items()}


def counted(outcome: Outcome, kind: str) -> dict[str, Any]:
    """What the account says of one kind of slot; the stages of each kind sum to the time that it was held."""
    usage = outcome.account.to_json()
    for slots in usage["slots"].values():
        assert sum(each["wall"] for each in slots["stages"].values()) == pytest.approx(slots["held_seconds"], abs=0.05)
    found: dict[str, Any] = usage["slots"][kind]
    return found


def test_steps_that_need_the_whole_data_set_get_it_in_one_recipe_or_over_a_release(
    words: Path, whole: Path, told: Path, tmp_path: Path
) -> None:
    found = deviations(whole)
    assert found.keys() == expected().keys()
    assert found == pytest.approx(expected(), rel=1e-6)
    run(of_release(told, tmp_path / "derived", "deviate"))
    assert deviations(tmp_path / "derived") == found
    derived = open_release(str(tmp_path / "derived"))
    steps = make_job(load(of_texts(words, tmp_path / "x", {"tell": {}, "as": "said"}, {"deviate": {"label": "said"}})))
    source = make_job(load(of_release(told, tmp_path / "y", "deviate")))
    step, read = steps.labelers[1], source.labelers[0]
    assert step.read_origins["said"] == read.read_origins["tell"], "the same, whatever it is called and from where"
    assert step.read_fingerprints["said"] != read.read_fingerprints["tell"]
    for shard in derived.shards:
        before, after = (each.table(shard, ["key", "sample_digest"]) for each in (open_release(str(told)), derived))
        assert before.equals(after), "labels of labels join to the same media"
    assert derived.counts.reasons == {Reason.NO_LABEL: 1}
    assert (derived.counts.filtered, derived.counts.dead) == (1, 0)
    assert verify(derived.objects, derived.number, "full").problems == []


def test_a_result_is_frozen_until_refit(texts: Path, whole: Path) -> None:
    wanted = of_texts(texts, whole, "tell", "deviate")
    first = open_release(str(whole)).version
    [mean, spread] = first.labels["deviate"].identity["statistics"]
    assert mean["name"] == spread["name"] == "mean"
    held = json.loads((whole / mean["path"]).read_bytes())
    assert held["result"]["count"] == len(expected())
    assert held["seen"] == mean["seen"] == {"shards": 3, "dead_shards": 0, "ok": 23, "dead": 1, "filtered": 0}
    assert not (whole / "states").exists() or not any((whole / "states").rglob("*.npz"))

    write_tar(texts / "3.tar", {"0.txt": b"x" * 100})
    grown = run(wanted)
    assert grown.labelled == 1
    assert grown.release is not None
    assert grown.release.labels["deviate"].fingerprint == first.labels["deviate"].fingerprint
    assert shas(open_release(str(whole)))["0.tar"] == shas(open_label_store(str(whole)).release(1))["0.tar"]

    refitted = run(wanted, refit=True)
    assert refitted.labelled == 4, "every label means something else now"
    assert refitted.release is not None
    [mean, _] = refitted.release.labels["deviate"].identity["statistics"]
    assert json.loads((whole / mean["path"]).read_bytes())["result"]["count"] == len(expected()) + 1
    reader = counted(refitted, "reader")
    assert reader["slots"] == 4 * 3, "two passes, by tasks, and the labelling"
    assert {"read", "infer", "write"} <= reader["stages"].keys()
    assert run(wanted).labelled == 0, "the newest result is the one that is used"


def test_an_interrupted_pass_goes_on_where_it_was(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import gathering

    wanted = of_release(told, tmp_path / "store", "deviate")

    def fails(*arguments: Any) -> Any:
        raise UsageError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(gathering, "merged", fails)
        with pytest.raises(UsageError, match="interrupted"):
            run(wanted)
    states = sorted((tmp_path / "store" / "states").rglob("*.npz"))
    assert len(states) == 3
    states[0].unlink()
    built = []
    real = gathering.build
    with monkeypatch.context() as patch:
        patch.setattr(
            gathering, "build", lambda job, asked, shards: built.append(len(shards)) or real(job, asked, shards)
        )
        run(wanted)
    assert built == [1, 3], "the first pass needed one shard more, the second all"
    assert deviations(tmp_path / "store") == pytest.approx(expected(), rel=1e-6)


def test_a_plan_says_that_something_comes_first(texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = of_texts(texts, tmp_path / "store", "tell", "deviate")
    job = make_job(load(wanted))
    assert plan(job).to_json()["pending"] == "mean"
    with pytest.raises(UsageError, match="needs the statistic 'mean' of the whole data set, which is not gathered yet"):
        job.require_results()
    (tmp_path / "r.yaml").write_text(json.dumps(wanted))
    assert main(["plan", str(tmp_path / "r.yaml")]) == 0
    assert "before    the statistic mean is gathered over all shards" in capfd.readouterr().out
    assert main(["try", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "x.png")]) == 2


def test_a_release_is_read_by_number_tag_or_the_latest_and_never_changes_on_the_way(
    texts: Path, told: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not a label store"):
        make_job(load(of_release(tmp_path / "none", tmp_path / "store", "deviate")))
    write_tar(texts / "3.tar", {"0.txt": b"more"})
    run(of_texts(texts, told, "tell"))
    job = make_job(load(of_release(told, tmp_path / "store", "deviate")))
    assert job.source.release == "2"
    assert make_job(load(of_release(told, tmp_path / "store", "deviate", release=1))).source.release == "1"
    with pytest.raises(UnknownName, match="unknown release '9'"):
        make_job(load(of_release(told, tmp_path / "store", "deviate", release=9)))
    open_label_store(str(told)).recall(2, "wrong words")
    assert make_job(load(of_release(told, tmp_path / "store", "deviate"))).source.release == "1"
    with pytest.raises(Recalled, match="wrong words"):
        make_job(load(of_release(told, tmp_path / "store", "deviate", release=2)))
    with pytest.raises(UsageError, match="cannot go into the store that they come from"):
        make_job(load(of_release(told, told, "deviate")))
    with pytest.raises(UsageError, match="has a label 'tell' already"):
        make_job(load(of_release(told, tmp_path / "store", {"deviate": {}, "as": "tell"})))


def test_a_text_of_a_release_is_a_field_and_a_condition_like_any_other(told: Path, tmp_path: Path) -> None:
    where = [{"field": "tell_length", "ge": 5}]
    wanted = of_release(
        told, tmp_path / "store", {"tell": {}, "as": "again"}, fields={"text": "tell_word"}, where=where
    )
    run(wanted)
    release = open_release(str(tmp_path / "store"))
    rows = [row for shard in release.shards for row in release.table(shard).to_pylist()]
    words = [row["again_word"] for row in rows if row["status"] == Status.OK]
    assert words == [w * n for n in (1, 2, 3) for w in WORDS if len(w * n) >= 5 and w * n != "stop"]
    assert release.counts.reasons[Reason.WHERE] == len(rows) - len(words) - 1


def test_a_damaged_shard_of_the_release_is_a_dead_shard_and_withdrawn_rows_stay_out(
    told: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = open_label_store(str(told))
    store.withdraw({"0.tar": ["1"]}, "asked for")
    entry = store.release().entry("2.tar")
    assert entry.data is not None
    (told / entry.data.path).write_bytes(b"PAR1 not any more")
    wanted = of_release(told, tmp_path / "store", "deviate")
    run(wanted)
    release = open_release(str(tmp_path / "store"))
    assert release.counts.dead_shards == 1
    for result in release.version.labels["deviate"].identity["statistics"]:
        assert result["seen"] == {"shards": 3, "dead_shards": 1, "ok": 14, "dead": 0, "filtered": 2}
    assert any("lacks 1 of 3 shards" in line for line in plan(make_job(load(wanted))).warnings)
    capfd.readouterr()
    assert main(["show", str(tmp_path / "store")]) == 0
    assert "statistic mean of 14 samples of 2 shards; not seen: 1 shards, " in capfd.readouterr().out
    assert release.counts.reasons == {Reason.CORRUPT_SHARD: 1, Reason.WITHDRAWN: 1, Reason.NO_LABEL: 1}
    shutil.rmtree(told)
    with pytest.raises((UsageError, Refused), match="not a label store"):
        run(wanted)


def test_a_sample_that_kills_while_it_is_gathered_costs_itself(tmp_path: Path, ray_cluster: None) -> None:
    members = {f"{row}.txt": b"x" * (row + 1) for row in range(8)}
    members["8.txt"] = b"kill"
    write_tar(tmp_path / "in" / "0.tar", members)
    wanted = recipe(
        {"path": f"{tmp_path}/in/*.tar"}, tmp_path / "store", "misbehaving", {"deviate": {"label": "misbehaving"}}
    )
    wanted["plugins"] = [*PLUGINS, "relabel.testing.misbehaving"]
    released = run(wanted).release
    assert released is not None
    assert released.counts.reasons == {Reason.PROCESS_DIED: 1}
    [mean, _] = released.labels["deviate"].identity["statistics"]
    held = json.loads((tmp_path / "store" / mean["path"]).read_bytes())
    assert held["result"] == {"count": 8, "mean": 4.5}


def test_actors_that_gather_are_devices_of_the_account(tmp_path: Path, ray_cluster: None) -> None:
    write_tar(tmp_path / "in" / "0.tar", {f"{row}.txt": b"x" * (row + 1) for row in range(8)})
    steps = ("impatient", {"deviate": {"label": "impatient"}})  # which loads something
    wanted = recipe({"path": f"{tmp_path}/in/*.tar"}, tmp_path / "store", *steps)
    device = counted(run({**wanted, "plugins": [*PLUGINS, "impatient"]}), "device")
    assert device["slots"] == 2 + 2, "an actor in each of two passes, and one for each step"
    assert {"start", "load", "read", "infer", "write", "idle"} <= device["stages"].keys()


def test_a_result_that_is_gone_is_a_problem_of_the_release(whole: Path) -> None:
    [mean, spread] = open_release(str(whole)).version.labels["deviate"].identity["statistics"]
    (whole / mean["path"]).unlink()
    held = whole / spread["path"]
    held.write_bytes(held.read_bytes().replace(b"mean", b"mode"))
    store = open_label_store(str(whole))
    found = {problem.object: problem.what for problem in verify(store.objects, 1, "quick").problems}
    assert found[mean["path"]] == "is gone"
    assert "does not match the digest" in found[spread["path"]]


def test_passes_of_one_statistic_see_the_same_rows(
    texts: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two passes, a run goes on the next night, when there is more."""
    from pipelines import gathering

    wanted = of_texts(texts, tmp_path / "store", "tell", "deviate")
    merged, calls = gathering.merged, []

    def fails_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise UsageError("killed")
        return merged(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gathering, "merged", fails_later)
        with pytest.raises(UsageError, match="killed"):
            run(wanted)
    write_tar(texts / "3.tar", {"0.txt": b"x" * 100})
    released = run(wanted).release
    assert released is not None
    named = released.labels["deviate"].identity["statistics"]
    held = [json.loads((tmp_path / "store" / each["path"]).read_bytes()) for each in named]
    assert [each["result"]["count"] for each in held] == [len(expected()) + 1] * 2
    assert held[0]["manifest"] == held[1]["manifest"]
