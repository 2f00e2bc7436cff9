"""The CronJob's program against an API server: every end that a night can have."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from fake_kubernetes import Cluster, account, served

from pipelines import launching
from pipelines.command_line import main
from pipelines.launching import Api, Late, Launch, Owner, dated, due, tonight
from relabel.errors import AccessDenied, RelabelError, UsageError
from relabel.testing.servers import free_ports

RUNNING: dict[str, Any] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
DONE: dict[str, Any] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {
        "name": "relabel-maps", "uid": "u", "resourceVersion": "7", "labels": {"app.kubernetes.io/name": "relabel"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "vision"},
    },
    "spec": {"suspend": True, "entrypoint": "x", "activeDeadlineSeconds": 3600},
    "status": {"jobDeploymentStatus": "Suspended"},
}  # fmt: skip
OWNER = Owner("relabel-maps-29410200", "b2b1")
DATE = dt.date(2025, 11, 30)


def failed(code: int | None, reason: str = "AppFailed") -> dict[str, Any]:
    said = f"Job entrypoint command failed with exit code {code}, last available logs (truncated ...):\nrelabel: no"
    return {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": reason,
        "message": said if code else "gone",
    }


def night(cluster: Cluster, folder: Path, deadline: float = 30.0, retries: int = 2) -> tuple[int, list[str]]:
    """The exit code, and what was said."""
    cluster.rayjobs.setdefault("relabel-maps", TEMPLATE)
    said: list[str] = []
    with served(cluster) as url:
        launch = Launch(Api(url, "night", account(folder / "account")), said.append, deadline, DATE, poll=0.01)
        return launch.run("relabel-maps", "relabel-maps-202511300200", OWNER, retries), said


def test_success(tmp_path: Path) -> None:
    cluster = Cluster({}, RUNNING, RUNNING, DONE)
    code, said = night(cluster, tmp_path)
    assert code == 0
    assert any("kubectl --namespace night logs --follow job/relabel-maps-202511300200" in line for line in said)
    made = cluster.rayjobs["relabel-maps-202511300200"]
    assert not made["spec"]["suspend"]
    assert made["spec"]["activeDeadlineSeconds"] == 60, "no more than is left, no less than a minute"
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "relabel-maps-29410200", "uid": "b2b1"}
    ]


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6])
def test_a_refusal_is_final_and_its_code_comes_through(tmp_path: Path, code: int) -> None:
    cluster = Cluster(RUNNING, failed(code))
    found, said = night(cluster, tmp_path)
    assert found == code
    assert [verb for verb, _ in cluster.requests].count("POST") == 1
    assert "relabel: no" in said[-1]


def test_an_interruption_is_tried_again_on_a_fresh_cluster(tmp_path: Path) -> None:
    cluster = Cluster(DONE)
    cluster.scripts["relabel-maps-202511300200"] = [RUNNING, failed(1)]
    cluster.scripts["relabel-maps-202511300200-r1"] = [failed(None, "PreRunningDeadlineExceeded")]
    code, _ = night(cluster, tmp_path)
    assert code == 0
    names = [f"relabel-maps-202511300200{suffix}" for suffix in ("", "-r1", "-r2")]
    assert list(cluster.rayjobs)[1:] == names
    assert {cluster.rayjobs[name]["spec"]["entrypoint"] for name in names} == {"x --date 2025-11-30"}, "also after it"


@pytest.mark.parametrize(
    "end", [failed(1), failed(137), failed(None, "DeadlineExceeded"), {"jobDeploymentStatus": "Failed"}]
)
def test_what_is_no_exit_code_of_ours_is_a_1(tmp_path: Path, end: dict[str, Any]) -> None:
    assert night(Cluster(end), tmp_path, retries=0)[0] == 1


def test_a_pod_that_starts_again_goes_on_waiting(tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.rayjobs = {"relabel-maps": TEMPLATE, "relabel-maps-202511300200": {**TEMPLATE, "status": RUNNING}}
    cluster.scripts["relabel-maps-202511300200"] = [RUNNING, DONE]
    code, said = night(cluster, tmp_path)
    assert code == 0
    assert any("is there already" in line for line in said)
    assert len(cluster.rayjobs) == 2


def test_a_rayjob_that_somebody_deletes_ends_the_night(tmp_path: Path) -> None:
    class Deleting(Cluster):
        def answer(self, verb: str, path: str, token: str, body: Any) -> tuple[int, Any]:
            found = super().answer(verb, path, token, body)
            if verb == "POST":
                self.rayjobs.pop("relabel-maps-202511300200")
            return found

    code, said = night(Deleting(RUNNING), tmp_path, retries=0)
    assert (code, "was deleted" in said[-1]) == (1, True)


def test_the_deadline_ends_the_wait(tmp_path: Path) -> None:
    with pytest.raises(Late, match=r"deadline has passed: the RayJob .* is Running RUNNING") as caught:
        night(Cluster(RUNNING), tmp_path, deadline=0.3)
    assert caught.value.exit_code == 1


def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    cluster = Cluster(RUNNING, DONE)
    cluster.broken = [0, 503, 429, 500]
    code, said = night(cluster, tmp_path)
    assert code == 0
    assert sum("Trying again" in line for line in said) == 1


def test_a_server_that_stays_away_ends_at_the_deadline(tmp_path: Path) -> None:
    api = Api(f"http://127.0.0.1:{free_ports(1)[0]}", "night", account(tmp_path / "account"))
    with pytest.raises(Late, match="does not answer"):
        Launch(api, lambda _: None, 0.3, poll=0.05).run("relabel-maps", "tonight", None, 0)


@pytest.mark.parametrize(("verb", "what"), [("POST", "create"), ("GET", "get")])
def test_a_missing_right_is_named_and_not_waited_for(tmp_path: Path, verb: str, what: str) -> None:
    cluster = Cluster(RUNNING)
    cluster.forbidden = {verb}
    with pytest.raises(AccessDenied, match=rf"refuses to {what} rayjobs/relabel-maps.*403.*Role `relabel-launch`"):
        night(cluster, tmp_path)


def test_a_token_that_was_exchanged_is_read_anew(tmp_path: Path) -> None:
    cluster = Cluster(RUNNING)
    cluster.rayjobs["relabel-maps"] = TEMPLATE
    folder = account(tmp_path / "account")
    with served(cluster) as url:
        api = Api(url, "night", folder)
        (folder / "token").write_text("old")
        with pytest.raises(AccessDenied, match="401"):
            api.get("relabel-maps")
        (folder / "token").write_text("the-token-of-the-pod")
        assert api.get("relabel-maps") == TEMPLATE


def test_what_the_server_takes_for_nonsense_is_no_reason_to_wait(tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.broken = [422]
    with pytest.raises(RelabelError, match="422: not now"):
        night(cluster, tmp_path)


def test_without_the_rayjob_to_copy_the_message_says_what_to_apply(tmp_path: Path) -> None:
    with served(Cluster()) as url, pytest.raises(UsageError, match="relabel manifest"):
        Launch(Api(url, "night", account(tmp_path / "account")), lambda _: None, 5.0).run("relabel-maps", "x", None, 0)


def test_a_night_is_of_when_it_was_due() -> None:
    late = dt.datetime(2026, 12, 1, 5, tzinfo=dt.UTC)
    moment = dt.datetime(2026, 11, 30, 1, tzinfo=dt.UTC)
    assert due(Owner(f"relabel-maps-{int(moment.timestamp()) // 60}", "u"), late) == moment
    for by_hand in ("by-hand", "by-hand-20261130"):
        assert due(Owner(by_hand, "u"), late) == late
    assert due(None, late) == late
    assert tonight("relabel-maps", moment, "Europe/Berlin") == "relabel-maps-202611300200"
    assert tonight("relabel-maps", late, "Asia/Tokyo") == "relabel-maps-202612011400"


def test_a_copy_keeps_what_people_wrote() -> None:
    made = dated(TEMPLATE, "x", None, 100_000, None)
    assert made["metadata"] == {
        "name": "x",
        "labels": TEMPLATE["metadata"]["labels"],
        "annotations": {"team": "vision"},
    }
    assert made["spec"] == {**TEMPLATE["spec"], "suspend": False}
    assert TEMPLATE["metadata"]["annotations"].keys() > {"team"}, "the template stays as it is"


def test_the_command_runs_in_a_pod_only(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["launch", "relabel-maps"]) == 2
    assert "runs in a pod" in capfd.readouterr().err


@pytest.mark.parametrize("number", ["-1", "10", "two"])
def test_retries_are_a_digit(number: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["launch", "relabel-maps", f"--retries={number}"])
    assert caught.value.code == 2
    assert f"expected a number from 0 to 9, got '{number}'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "entrypoint"),
    [
        ([], "x"),
        (["--dates-in", "UTC"], "x --date 2025-12-01"),
        (["--dates-in", "Asia/Tokyo"], "x --date 2025-12-02"),
    ],
)
def test_the_command_from_a_pod(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    entrypoint: str,
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.01)
    folder = account(tmp_path / "account")
    whole = Api.of_pod
    monkeypatch.setattr(Api, "of_pod", lambda server: whole(server, folder))
    for name, value in {"JOB_NAME": OWNER.name, "JOB_UID": OWNER.uid}.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(failed(3))
    cluster.rayjobs["relabel-maps"] = TEMPLATE
    with served(cluster) as url:
        assert main(["launch", "relabel-maps", "--server", url, "--deadline", "10s", *arguments]) == 3
    [name] = set(cluster.rayjobs) - {"relabel-maps"}
    assert f"created the RayJob {name}" in capfd.readouterr().out
    assert cluster.rayjobs[name]["spec"]["entrypoint"] == entrypoint
