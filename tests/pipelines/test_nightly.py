"""Nights on a small store: done once, tried again, told, recorded."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases_of_photos import write_tar
from webhook import listening

from pipelines import awaiting
from pipelines.command_line import main
from pipelines.nightly import nightly
from relabel.releases.nights import begin
from relabel.storage.opening import open_store

TODAY = dt.datetime.now(dt.UTC).date()


def day(ago: int) -> str:
    return str(TODAY - dt.timedelta(ago))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's file, three shards, and nothing yet in the store."""
    for number in range(3):
        shard(tmp_path, number)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path)))
    monkeypatch.setenv("HOOK", "")
    return path


def recipe(folder: Path, **nightly_section: Any) -> dict[str, Any]:
    return {
        "name": "words", "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}},
        "steps": [{"tell": {"stop": "stop"}}], "store": str(folder / "store"), "plugins": ["relabel.testing.telling"],
        "resources": {"actors": 1, "compute_batch": 4}, "gate": {"dead_letters": 0.01}, "nightly": nightly_section,
        "dead_letters": {"max_fraction": 1.0},
    }  # fmt: skip


def shard(folder: Path, number: int, word: str = "one") -> None:
    write_tar(folder / "in" / f"{number}.tar", {f"{row}.txt": (word * (row + 1)).encode() for row in range(10)})


@pytest.mark.usefixtures("ray_cluster")
def test_nights_of_a_small_store(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = nightly(written, date=day(9))
    assert (first.state, first.exit_code, first.release, first.before) == ("published", 0, 1, 0)
    assert (first.discovered, first.missed) == ({"new": 3}, ())
    assert first.counts == {
        "shards": 3, "labelled": 3, "by_reference": 0, "open": 0, "ok": 30, "dead": 0, "filtered": 0
    }  # fmt: skip
    # A date is done once, and so is every one before it.
    for date in (day(9), day(20)):
        again = nightly(written, date=date)
        assert (again.state, again.exit_code, again.attempt, again.release) == ("done", 0, 0, 1)
    # Days later, nothing new: a success that says so, as JSON too.
    assert main(["nightly", str(written), "--date", day(5), "--json", str(tmp_path / "result.json")]) == 0
    said, result = capfd.readouterr().out, json.loads((tmp_path / "result.json").read_text())
    assert "nothing new: release 1 has all 3 shards" in said
    assert f"| missed | {day(8)}, {day(7)}, {day(6)}: done with this one |" in said
    assert (result["state"], result["release"], result["releases"], result["next_command"]) == ("nothing", 1, [], "")
    # What the gate refuses leaves the date open; every call tries again, and tells.
    write_tar(tmp_path / "in" / "1.tar", {f"{row}.txt": b"stop" for row in range(10)})
    with listening() as hook:
        monkeypatch.setenv("HOOK", hook.url)
        written.write_text(yaml.safe_dump(recipe(tmp_path, notify="${HOOK}", retention=1)))
        assert main(["nightly", str(written), "--date", day(4), "--json", "-"]) == 3
        out, err = capfd.readouterr()
        result = json.loads(out)
        assert (result["state"], result["exit_code"], result["release"], result["attempt"]) == ("refused", 3, 1, 1)
        assert result["verdict"]["verdict"] == "refused"
        assert result["next_command"].endswith(f" latest candidate:{result['run_id']}")
        assert "> the gate refused to publish" in err
        assert nightly(written, date=day(4)).attempt == 2
        # The next night is a good one: it says what became of the one before, retires, and tells.
        shard(tmp_path, 1, "two")
        good = nightly(written, date=day(3))
        assert [each["text"].splitlines()[0].partition(": ")[2] for each in hook.told] == [
            "REFUSED", "REFUSED", "published release 2"
        ]  # fmt: skip
        assert hook.told[-1]["night"]["discovered"] == {"changed bytes": 1}
    assert [(each["date"], each["state"]) for each in good.attempts] == [(day(4), "refused")] * 2
    assert (good.missed, good.retention["retired"], good.next_command.split()[-2:]) == ((day(4),), (1,), ["1", "2"])
    # A deadline that has passed before anything was begun: the release stands, the next night goes on.
    shard(tmp_path, 7)
    late = nightly(written, date=day(2), deadline="0s")
    assert (late.state, late.exit_code, late.release, late.counts) == ("deadline", 0, 2, None)
    assert late.warnings == ("nobody was told: the webhook in HOOK failed ([Errno 111] Connection refused)",)
    assert "--deadline 4h" in late.next_command
    monkeypatch.delenv("HOOK")
    assert nightly(written, date=day(2), deadline="1h").state == "published"
    assert main(["nights", str(tmp_path / "store")]) == 0
    states = [line.split()[:4] for line in capfd.readouterr().out.splitlines()[1:]]
    assert states == [
        [day(2), "2", "published", "0"], [day(2), "1", "deadline", "0"], [day(3), "1", "published", "0"],
        [day(4), "2", "refused", "3"], [day(4), "1", "refused", "3"], [day(5), "1", "nothing", "0"],
        [day(9), "1", "published", "0"],
    ]  # fmt: skip


@pytest.mark.usefixtures("ray_cluster")
def test_a_release_that_a_killed_attempt_published_is_named(written: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    begin(store, TODAY - dt.timedelta(2), {"began": "02:00", "host": "gone", "pid": 7, "before": 0})
    assert main(["run", str(written)]) == 0  # its run, which lived just long enough
    night = nightly(written, date=day(1))
    assert (night.state, night.release, night.before) == ("published", 1, 0)
    assert "since the night began" in night.why
    assert [each["state"] for each in night.attempts] == ["no end"]


def test_errors_before_and_after_a_night_is_begun(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["nightly", str(tmp_path / "none.yaml"), "--json", "-"]) == 2
    result = json.loads(capfd.readouterr().out)
    assert (result["state"], result["exit_code"]) == ("wrong", 2)
    assert not (tmp_path / "store").exists()
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    failed = nightly(written, date=day(1))
    assert failed.exit_code != 0
    assert failed.next_command

    def breaks(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pipelines.nightly.run", breaks)
    with pytest.raises(ZeroDivisionError):
        nightly(written, date=day(1))
    assert main(["nights", str(tmp_path / "store"), "--json"]) == 0
    states = [(each["attempt"], each["state"], each["why"]) for each in json.loads(capfd.readouterr().out)]
    assert states[0] == (2, "failed", "ZeroDivisionError: a bug")
    assert len(states) == 2


@pytest.mark.usefixtures("ray_cluster")
def test_a_line_that_reads_another_line_comes_after_it(written: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(awaiting, "POLL_SECONDS", 0.01)
    other = str(tmp_path / "store")
    derived = {
        "name": "derived", "source": {"path": other, "kind": "release", "fields": {"text": "tell_word"}},
        "steps": [{"tell": {"stop": "stop"}, "as": "again"}], "store": str(tmp_path / "derived"),
        "plugins": ["relabel.testing.telling"], "resources": {"actors": 1},
        "nightly": {"after": {"store": other, "wait": "0s"}},
    }  # fmt: skip
    late = nightly(derived, date=day(3))
    assert (late.state, late.exit_code) == ("late", 1)
    assert late.next_command == f"relabel nights {other}"
    nightly(written, date=day(3))
    first = nightly(derived, date=day(3))
    assert (first.state, first.after) == ("published", {"store": other, "release": 1})
    shard(tmp_path, 8)
    nightly(written, date=day(2))
    second = nightly(derived, date=day(2))
    assert (second.state, second.after, second.discovered) == ("published", {"store": other, "release": 2}, {"new": 1})
    assert nightly(derived, date=day(1)).state == "late"
