"""Approvals: what passed the gate waits for people; their word is recorded, and expires."""

import json
from pathlib import Path
from typing import Any

import pytest
from releases_of_photos import write_tar

from pipelines import run
from pipelines.command_line import main
from pipelines.publishing import publish_finished
from relabel.errors import AwaitsApproval, Refused
from relabel.releases import approvals
from relabel.releases.candidates import read_candidates
from relabel.releases.collect import plan_collect
from relabel.releases.leases import server_now
from relabel.releases.release import open_label_store
from relabel.releases.verify import verify


def recipe(folder: Path, **gate: Any) -> dict[str, Any]:
    return {
        "source": {"path": f"{folder}/in/*.tar", "fields": {"text": "txt"}}, "store": str(folder / "store"),
        "steps": ["tell"], "plugins": ["relabel.testing.telling"], "resources": {"actors": 1, "compute_batch": 4},
        "gate": {"approval": ["owners"], **gate},
    }  # fmt: skip


def add_shard(folder: Path, name: str) -> None:
    write_tar(folder / "in" / name, {f"{row}.txt": word.encode() for row, word in enumerate(["one", "three", "five"])})


def waiting(folder: Path, **gate: Any) -> str:
    """The run of the candidate that waits."""
    with pytest.raises(AwaitsApproval, match="waits for") as caught:
        run(recipe(folder, **gate))
    assert caught.value.exit_code == 6
    [candidate] = read_candidates(open_label_store(folder / "store").objects)
    return candidate.run_id


def test_what_is_approved_is_published(tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    for name in ("0.tar", "1.tar"):
        add_shard(tmp_path, name)
    run_id = waiting(tmp_path)
    objects = open_label_store(store).objects
    assert main(["status", store, "--json"]) == 0
    [told] = json.loads(capfd.readouterr().out)["runs"]
    assert (told["state"], told["exit_code"]) == ("kept", 6)
    assert waiting(tmp_path) == run_id, "the next night makes no second one"
    assert main(["candidates", store]) == 0
    assert "waits for approval by owners" in capfd.readouterr().out
    doomed = {each.path for each in plan_collect(objects, 0.0, force=True).objects}
    [candidate] = read_candidates(objects)
    assert not {each.path for each in candidate.version.objects} & doomed

    add_shard(tmp_path, "2.tar")  # what is approved is what was made, not what the source holds by now
    assert main(["approve", store, run_id, "--by", "ann", "--reason", "looks right"]) == 0
    assert "published release 1" in capfd.readouterr().out
    [release] = open_label_store(store).history()
    assert (release.run_id, release.content_digest) == (run_id, candidate.version.content_digest)
    assert release.gate["approval"]["decisions"]["owners"]["by"] == "ann"
    assert verify(objects, "latest", "full").problems == []
    assert main(["approve", store, run_id, "--by", "ann", "--reason", "looks right"]) == 0, "again is no error"
    assert main(["show", store]) == 0
    assert "approved by ann (owners): looks right" in capfd.readouterr().out
    second = waiting(tmp_path)
    assert second != run_id
    assert main(["reject", store, second, "--by", "ann", "--reason", "not this one"]) == 0
    with pytest.raises(Refused, match="rejected by ann .*not this one"):
        run(recipe(tmp_path))
    assert main(["approve", store, second, "--by", "bob", "--reason", "but it is good"]) == 3, "the first word stands"
    assert len(open_label_store(store).history()) == 1


def test_every_group_must_approve(tmp_path: Path, ray_cluster: None) -> None:
    store = str(tmp_path / "store")
    add_shard(tmp_path, "0.tar")
    run_id = waiting(tmp_path, approval=["owners", "legal"])
    said = ["--by", "ann", "--reason", "fine"]
    assert main(["approve", store, run_id, *said]) == 2, "for whom?"
    assert main(["approve", store, run_id, *said, "--group", "sales"]) == 2
    assert main(["approve", store, run_id, *said, "--group", "legal"]) == 0
    assert open_label_store(store).history() == []
    assert main(["approve", store, run_id, *said, "--group", "owners"]) == 0
    assert len(open_label_store(store).history()) == 1


def test_a_candidate_expires_and_lapses(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    add_shard(tmp_path, "0.tar")
    run_id = waiting(tmp_path)
    with monkeypatch.context() as later:
        later.setattr(approvals, "server_now", lambda objects: server_now(objects) + 8 * 86_400)
        assert main(["approve", store, run_id, "--by", "ann", "--reason", "late"]) == 3
        assert "expired 24.0 h ago" in capfd.readouterr().err
        assert main(["candidates", store]) == 0
        assert "expired" in capfd.readouterr().out
    published = publish_finished(recipe(tmp_path), ["gate.approval=[]"])
    assert published.published
    assert main(["approve", store, run_id, "--by", "ann", "--reason", "too late"]) == 3
    assert "follows release 0, and 1 is the newest" in capfd.readouterr().err


def test_what_was_approved_is_published_by_a_run_where_the_first_died(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_shard(tmp_path, "0.tar")
    run_id = waiting(tmp_path)
    objects = open_label_store(tmp_path / "store").objects
    [candidate] = read_candidates(objects)
    approvals.decide(objects, candidate, "approved", "ann", "fine", None)
    outcome = run(recipe(tmp_path))
    assert outcome.published
    assert outcome.release is not None
    assert outcome.release.gate["approval"]["decisions"]["owners"]["run_id"] == run_id
