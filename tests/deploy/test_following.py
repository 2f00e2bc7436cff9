"""Following without a head: what is shown once, what ends a job, who is waited for, and what Ctrl-C means."""

import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from pipelines.following import Cancellation, Head, Left, Log, Lost, ended, follow
from pipelines.jobs import Jobs, NoSuchJob, SubmittedBefore, Unreachable, within
from relabel.errors import RelabelError, UsageError


class ScriptedJobs(Jobs):
    """Answers what it is told to, in order."""

    def __init__(self, *answers: Any) -> None:
        self.address = "http://head:8265"
        self.answers: Iterator[Any] = iter(answers)
        self.stopped: list[str] = []

    def info(self, job: str) -> JobDetails:
        found = next(self.answers)
        if isinstance(found, Exception):
            raise found
        return details(found)

    def stop(self, job: str) -> bool:
        self.stopped.append(job)
        return True

    def log(self, job: str) -> str:
        return "one\ntwo\nthree\n"

    async def tail(self, job: str) -> AsyncIterator[str]:
        for text in ("one\n", "two\n"):
            yield text
        raise aiohttp.ClientConnectionError


def details(status: JobStatus, code: int | None = None, message: str = "") -> JobDetails:
    fields = {"type": JobType.SUBMISSION, "status": status, "entrypoint": "x", "message": message}
    return JobDetails.model_validate({**fields, "driver_exit_code": code})


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        *((JobStatus.FAILED, code, code) for code in (1, 2, 3, 4, 5, 6)),
        (JobStatus.FAILED, 137, 1),
        (JobStatus.FAILED, -9, 1),
        (JobStatus.FAILED, None, 1),
        (JobStatus.FAILED, 0, 1),
        (JobStatus.STOPPED, None, 1),
    ],
)
def test_a_jobs_end_is_our_exit_code(status: JobStatus, code: int | None, expected: int) -> None:
    said = f"Job entrypoint command failed with exit code {code}, last available logs (...):\nlong"
    found = ended(details(status, code, said))
    assert (found.exit_code, found.status) == (expected, status.value)
    assert "long" not in found.message


def test_every_line_is_shown_once_however_often_the_connection_breaks() -> None:
    out = io.StringIO()
    log = Log(ScriptedJobs(), "j", out.write)
    for text, position in (("one\n", 0), ("one\ntw", 0), ("o\nthr", 6), ("one\ntwo\n", 0)):
        log._add(text, position)
    log.finish()
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_a_jobs_end_stands_where_its_log_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    class Mute(ScriptedJobs):
        def log(self, job: str) -> str:
            raise Unreachable("the head does not answer")

    found = follow(Mute(JobStatus.RUNNING, JobStatus.SUCCEEDED), "j", io.StringIO().write, 60.0)
    assert (found.status, found.exit_code) == ("SUCCEEDED", 0)
    assert "the end of the job's log is not here: the head does not answer" in capfd.readouterr().err


def test_a_head_is_waited_for_and_then_not(capfd: pytest.CaptureFixture[str]) -> None:
    away = Unreachable("the head does not answer")
    head = Head(ScriptedJobs(away, away, JobStatus.RUNNING, away), "j", patience=60.0)
    assert [head.info() is None for _ in range(4)] == [True, True, False, True]
    assert capfd.readouterr().err.count("Waiting for up to 60 s") == 2, "once each time that it goes away"
    impatient = Head(ScriptedJobs(away, away), "j", patience=-1.0)
    impatient.info()
    with pytest.raises(Unreachable):
        impatient.info()


def test_a_job_that_the_head_does_not_know_is_lost() -> None:
    with pytest.raises(Lost, match="submit the same recipe again"):
        Head(ScriptedJobs(NoSuchJob("404")), "j", 60.0).info()


@pytest.mark.parametrize("answer", ["n\n", "", "y\n"])
def test_a_person_is_asked_and_a_second_time_leaves(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    jobs = ScriptedJobs()
    cancellation = Cancellation(jobs, "j")
    if answer != "y\n":
        with pytest.raises(Left, match="goes on"):
            cancellation.decide()
        assert jobs.stopped == []
        return
    cancellation.decide()
    assert jobs.stopped == ["j"]
    with pytest.raises(Left, match="was asked to stop"):
        cancellation.decide()


def test_an_order_needs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    jobs = ScriptedJobs()
    Cancellation(jobs, "j").decide()
    assert jobs.stopped == ["j"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("Request failed with status code 404: no"), NoSuchJob),
        (
            RuntimeError("Request failed with status code 500: Job with submission_id x already exists."),
            SubmittedBefore,
        ),
        (RuntimeError("Request failed with status code 503: starting"), Unreachable),
        (RuntimeError("Request failed with status code 400: bad"), RelabelError),
        (ConnectionError("refused"), Unreachable),
    ],
)
def test_the_job_servers_errors_are_told_apart(raised: Exception, expected: type[Exception]) -> None:
    def question() -> None:
        raise raised

    with pytest.raises(expected) as caught:
        ScriptedJobs()._ask(question)
    assert type(caught.value) is expected


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    import threading

    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.1, lambda: never.wait(30))
    never.set()


def test_an_address_that_ray_would_overrule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")
    with pytest.raises(UsageError, match="RAY_ADDRESS is set to http://other:8265"):
        Jobs("http://head:8265")
