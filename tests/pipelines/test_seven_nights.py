"""A week of nights on SeaweedFS and three Ray nodes ends in the history that a careful person would have written."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import relabel
from relabel.releases.fences import Fence
from relabel.releases.nights import attempts
from relabel.releases.retirements import read_retired
from relabel.releases.verify import verify
from relabel.releases.versions import read_sequence

Nights = list[dict[str, Any]]


def told(result: dict[str, Any]) -> tuple[Any, ...]:
    counts = result["counts"]
    return result["state"], result["exit_code"], result["release"], result["discovered"], counts and counts["labelled"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_seven_nights(root: Path, s3_root: str) -> None:
    paths = os.pathsep.join([str(root / "operators"), str(root), str(root / "tests" / "pipelines")])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("seven_nights.py")), s3_root],
        cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    week = json.loads(done.stdout.splitlines()[-1])
    first, second, fourth, fifth, sixth, *eighth, after, quiet = week["nights"]
    assert told(first) == ("published", 0, 1, {"new": 12}, 12)
    assert told(second) == ("published", 0, 2, {"changed bytes": 1, "new": 1}, 2)
    assert told(fourth) == ("published", 0, 3, {"removed": 1}, 0)
    assert (len(fourth["missed"]), fourth["retention"]["retired"]) == (1, [1])
    assert told(fifth) == ("nothing", 0, 3, {}, 0)
    assert told(sixth)[:4] == ("deadline", 0, 3, {"new": 4})
    assert 0 < sixth["counts"]["open"] <= 4
    check_two_at_once(eighth)
    assert (after["state"], after["exit_code"], after["release"]) == ("done", 0, 5)
    check_history(s3_root, quiet)
    check_records(s3_root)
    heads = [body["text"].splitlines()[0].partition(": ")[2] for body in week["told"]]
    assert heads[:5] == [
        "published release 1", "published release 2", "published release 3", "nothing new", "stopped at the deadline"
    ]  # fmt: skip
    assert "published release 5" in heads
    assert "0 open" in week["told"][-1]["text"]


def check_two_at_once(nights: Nights) -> None:
    """One did the night, and what the two before it left open; the other was turned away, or found it done."""
    [winner] = [each for each in nights if each["state"] == "published"]
    [other] = [each for each in nights if each is not winner]
    assert (winner["exit_code"], winner["release"], winner["before"], winner["counts"]["open"]) == (0, 5, 3, 0)
    assert (other["state"], other["exit_code"]) in (("busy", 5), ("done", 0))
    assert [each["state"] for each in winner["attempts"]][:2] == ["deadline", "no end"]
    assert len(winner["missed"]) == 2
    assert 0 < winner["counts"]["labelled"] < 4  # what the killed attempt finished was not done again


def check_history(s3_root: str, quiet: dict[str, Any]) -> None:
    store = relabel.open(f"{s3_root}/store")
    sequence = read_sequence(store.objects)
    assert [each.number for each in sequence if isinstance(each, Fence)] == [4]  # the killed attempt's lease
    assert [each.number for each in store.history()] == [1, 2, 3, 5]
    assert read_retired(store.objects) == {1, 2}
    assert [verify(store.objects, number, "full").problems for number in (1, 2, 3, 5)] == [[]] * 4
    entries = [store.release(number, recalled="ignore").entries for number in (1, 2, 3, 5)]
    files = [{name: entry.data.path for name, entry in each.items() if entry.data} for each in entries]
    unchanged = files[0].keys() - {"03.tar", "05.tar"}
    for later in files[1:]:
        assert {name: later[name] for name in unchanged} == {name: files[0][name] for name in unchanged}
    assert files[1]["03.tar"] != files[0]["03.tar"]
    assert ("05.tar" in files[1], "05.tar" in files[2]) == (True, False)
    assert (quiet["state"], quiet["counts"]["labelled"]) == ("published", 16)
    assert store.release().content_digest == relabel.open(f"{s3_root}/quiet").release().content_digest


def check_records(s3_root: str) -> None:
    today = dt.datetime.now(dt.UTC).date()
    found = [(10 - (today - each.date).days, each.state) for each in attempts(relabel.open(f"{s3_root}/store").objects)]
    assert [each for each in found[::-1] if each[0] < 8] == [
        (1, "published"), (2, "published"), (4, "published"), (5, "nothing"), (6, "deadline"), (7, "no end")
    ]  # fmt: skip
    assert (8, "published") in found
