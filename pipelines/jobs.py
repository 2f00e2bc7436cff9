"""Jobs: the job server of a Ray head, with our errors in place of its own."""

import multiprocessing
import os
from collections.abc import AsyncIterator, Callable, Mapping
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from relabel.errors import RelabelError, UsageError

ANSWER_SECONDS = 60.0
"""A head that has not answered by then is taken for one that is away."""

T = TypeVar("T")


class Unreachable(RelabelError):
    """The head does not answer; the job may be at work all the same."""


class SubmittedBefore(RelabelError):
    """A job of this id is there already: another submission was faster by a moment."""


class NoSuchJob(RelabelError):
    """The head knows no such job: it was started anew, or never had it."""


class Jobs:
    """What is asked of one head. Every method raises Unreachable, UsageError (a token is missing) or RelabelError."""

    def __init__(self, address: str) -> None:
        """`address` as `http://head:8265`; the token is RAY_AUTH_TOKEN, or in the file RAY_AUTH_TOKEN_PATH names."""
        if not address.startswith(("http://", "https://")):
            raise UsageError(
                f"--address: expected the job server of a head, http://HOST:8265, got {address!r}. To run from here on "
                "a cluster that this machine is a part of: `relabel run RECIPE --address auto`."
            )
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            if os.environ.get(name, address).rstrip("/") != address.rstrip("/"):
                raise UsageError(
                    f"{name} is set to {os.environ[name]}, and Ray takes that in place of {address}: unset it."
                )
        self.address = address
        self._client = self._ask(lambda: JobSubmissionClient(address))

    def submit(
        self, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: Mapping[str, str]
    ) -> str:
        return self._ask(
            lambda: self._client.submit_job(
                entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env, metadata=dict(metadata)
            ),
            seconds=600.0,
        )

    def all(self) -> list[JobDetails]:
        return self._ask(self._client.list_jobs)

    def info(self, job: str) -> JobDetails:
        """Raises NoSuchJob."""
        return self._ask(lambda: self._client.get_job_info(job))

    def log(self, job: str) -> str:
        return self._ask(lambda: self._client.get_job_logs(job))

    def stop(self, job: str) -> bool:
        """Whether it was at work; it is asked to end and has STOP_SECONDS for it."""
        return self._ask(lambda: self._client.stop_job(job))

    def tail(self, job: str) -> AsyncIterator[str]:
        """The log from its beginning, as it grows; raises whatever the connection raises."""
        return self._client.tail_job_logs(job)

    def _ask(self, question: Callable[[], T], seconds: float = ANSWER_SECONDS) -> T:
        try:
            return within(seconds, question)
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise Unreachable(
                f"the head at {self.address} does not answer ({type(error).__name__}). Is it running, with its "
                "dashboard (`ray start --head --dashboard-host 0.0.0.0`), and can it be reached from here?"
            ) from error
        except AuthenticationError as error:
            raise UsageError(
                f"the head at {self.address} wants another token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
                f"RAY_AUTH_TOKEN_PATH ({str(error).strip().splitlines()[0]})"
            ) from None
        except RuntimeError as error:
            text = str(error).strip()
            if "status code 404" in text:
                raise NoSuchJob(f"the head at {self.address} knows no such job: {text}") from None
            if "already exists" in text:
                raise SubmittedBefore(f"the head at {self.address} has such a job already") from None
            if any(f"status code {code}" in text for code in (500, 502, 503, 504)):
                raise Unreachable(f"the head at {self.address} is not ready: {text[-500:]}") from error
            raise RelabelError(f"the head at {self.address} refused: {text[-2000:]}") from error


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises; raises TimeoutError where it takes longer, and leaves its thread behind."""
    pool = ThreadPool(1)
    try:
        return pool.apply_async(work).get(seconds)
    except multiprocessing.TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    finally:
        pool.terminate()
