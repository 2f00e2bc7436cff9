"""Release commands on a small real store: withdraw, diff, revert, recall, erase, and the runs in between."""

import dataclasses
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases_of_photos import open_release

from pipelines import run
from pipelines.command_line import main
from pipelines.loading import load
from pipelines.plan import make_job, plan
from pipelines.release_commands import from_lines, seconds
from relabel.digests import seal
from relabel.errors import Refused, UsageError
from relabel.releases.commit import commit
from relabel.releases.leases import Lease, write_fence
from relabel.releases.versions import ensure_store
from relabel.releases.withdrawals import write_withdrawals
from relabel.storage.opening import open_store
from relabel.testing.toy import draft, finish_shards


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capfd.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


@pytest.mark.usefixtures("ray_cluster")
def test_the_life_of_a_release(
    recipe: Callable[..., dict[str, Any]], demo_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(str(path) for path in demo_shards.glob("*.tar"))
    few, all_shards = (recipe(source={"path": some}) for some in (paths[:2], paths))
    store = str(few["store"])
    assert run(few).release is not None
    late = open_key(demo_shards, paths[2])
    known = open_release(store).table("photos-000.tar", ["key"])["key"][0].as_py()
    listed = tmp_path / "keys.txt"
    listed.write_text(f'photos-000.tar\t{known}\n{{"shard": "photos-002.tar", "key": "{late}"}}\nphotos-004.tar\n')
    assert main(["withdraw", store, "--keys-file", str(listed), "--reason", "asked"]) == 2
    assert "photos-002.tar" in capfd.readouterr().err
    withdrawn = told(capfd, "withdraw", store, "--keys-file", str(listed), "--reason", "asked", "--ahead")
    assert (withdrawn["samples"], withdrawn["shards"]) == (2, 1)

    # No fingerprint changes, nothing is labelled again, what is withdrawn is not labelled at all.
    planned = plan(make_job(load(all_shards)))
    assert [entry.why for entry in planned.todo] == ["new", "new"]
    assert "1 shards are withdrawn and left out" in planned.warnings
    second = run(all_shards)
    assert second.release is not None
    assert (second.labelled, second.release.counts.shards, second.release.coverage) == (2, 4, 1.0)
    rows = {row["key"]: row for row in open_release(store).table("photos-002.tar").to_pylist()}
    assert (rows[late]["status"], rows[late]["reason"], rows[late]["sample_digest"]) == ("filtered", "withdrawn", None)
    assert second.release.counts.reasons["withdrawn"] == 1

    difference = told(capfd, "diff", store, "1", "latest")
    assert (difference["shards"]["added"], difference["shards"]["unchanged"]) == (2, 2)

    # A revert takes the two shards out; the same recipe does not bring them back by itself.
    back = told(capfd, "revert", store, "1")
    assert (back["release"], back["same_content"]) == (3, True)
    assert main(["revert", store, "1"]) == 0
    assert "nothing to do" in capfd.readouterr().out
    with pytest.raises(Refused, match=r"release 3 went back to 1.*of 2 shards.*--bring-back"):
        run(all_shards)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(all_shards))
    assert main(["plan", str(file)]) == 0
    assert "refused   2 shards (first: photos-002.tar)" in capfd.readouterr().out
    brought = run(all_shards, bring_back=True)
    assert brought.release is not None
    assert (brought.labelled, brought.release.version) == (0, 4)
    assert brought.release.content_digest == second.release.content_digest
    assert run(all_shards).release == brought.release

    assert told(capfd, "recall", store, "3", "--reason", "by mistake")["latest"] == 4
    assert told(capfd, "tag", store, "golden", "--release", "4") == {"tag": "golden", "release": 4}
    assert [(each["tags"], each["recalled"]) for each in told(capfd, "log", store)][2:] == [
        ([], "by mistake"), (["golden"], None),
    ]  # fmt: skip
    erased = told(capfd, "erase", store, "--apply")
    assert (erased["release"], erased["deleted"], erased["redacted"]) == (5, 1, [1, 2, 3, 4])
    assert run(all_shards).release == open_release(store).version
    assert told(capfd, "verify", store, "--release", "1", "--level", "full")["problems"] == []
    assert told(capfd, "collect", store)["objects"] == []
    for command in (["log", store], ["show", store], ["diff", store, "1", "5"], ["collect", store]):
        assert main(command) == 0


def open_key(folder: Path, path: str) -> str:
    """The first key of a tar that is not labelled yet."""
    with tarfile.open(path) as archive:
        return archive.getnames()[0].rsplit(".", 1)[0]


def test_latest_is_what_readers_get(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Releases 1 and 3 are complete, 2 is a milestone; 4 is the milestone again."""
    store = str(tmp_path / "store")
    objects = open_store(store)
    receipts = finish_shards(objects, "run", {f"{number}.tar": "1" for number in range(4)}, "teacher")
    commit(objects, draft("first", 0, receipts[:2], "teacher"))
    milestone = draft("long.m1", 1, receipts[:3], "teacher")
    commit(objects, dataclasses.replace(milestone, num_source_shards=4, coverage=0.75))
    commit(objects, draft("long", 2, receipts, "teacher"))

    assert told(capfd, "recall", store, "3", "--reason", "bad")["latest"] == 1
    for arguments, words in (
        (["revert", store, "2"], "latest    is release 1 for readers: this one is partial"),
        (["show", store], "latest    is release 1 for readers: this one is partial"),
        (["tag", store, "part", "--release", "2"], "latest    is release 1 for readers: this one is partial"),
        (["recall", store, "2", "--reason", "bad"], "`latest` is release 1."),
    ):
        assert main(arguments) == 0
        assert words in capfd.readouterr().out
    assert main(["tag", store, "whole"]) == 0
    assert capfd.readouterr().out == f"whole names release 1 of {objects.url} from now on\n"


def test_the_log_tells_fences_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    objects = open_store(str(tmp_path))
    commit(objects, draft("run", 0, finish_shards(objects, "run", {"a.tar": "0"}, "small"), "small"))
    write_fence(objects, Lease(2, "new"), [Lease(1, "old")])
    release, fence = told(capfd, "log", str(tmp_path))
    assert (release["version"], release["tags"], release["recalled"]) == (1, [], None)
    assert (fence["kind"], fence["number"], fence["fenced"]) == ("fence", 2, {"1": "old"})


def test_files_of_keys() -> None:
    found = from_lines(["a.tar\tx", "", '{"shard": "a.tar", "key": "y"}', "b.tar", "b.tar\tz"], "keys.txt")
    assert found == {"a.tar": ["x", "y"], "b.tar": None}
    with pytest.raises(UsageError, match=r"keys\.txt:1: expected"):
        from_lines(['{"key": "y"}'], "keys.txt")


def test_durations() -> None:
    assert [seconds(text) for text in ("90s", "1.5h", "7d")] == [90, 5400, 604_800]


@pytest.mark.parametrize(
    "arguments",
    [["--key", "x"], [], ["--shard", "a", "--keys-file", "f"], ["--keys-file", "no such file"]],
)
def test_what_to_withdraw_must_be_clear(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:

    (tmp_path / "store.json").write_bytes(seal({"format": 1, "uuid": "u"}))
    assert main(["withdraw", str(tmp_path), *arguments, "--reason", "r"]) == 2
    assert "relabel: " in capfd.readouterr().err


def test_an_erasure_where_nothing_is_published(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a run that was stopped: the message names no release, and what is finished is erased all the same."""
    objects = open_store(str(tmp_path / "store"))
    ensure_store(objects, "0" * 32)
    finish_shards(objects, "night", {"a.tar": "0"}, "small")
    write_withdrawals(objects, {"a.tar": ["a.tar-2"]}, "asked")
    assert main(["erase", str(tmp_path / "store"), "--apply"]) == 0
    out = capfd.readouterr().out
    assert f"nothing is published; what is finished in {objects.url} holds no label of a withdrawn sample" in out
    assert "None" not in out
    assert "deleted: 1 old files" in out
