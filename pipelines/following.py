"""Following: a job's log as it grows, until the job ends; its exit code becomes ours.

A head that is away for a while is waited for. One that comes back without the job has lost it, and says so.
"""

import asyncio
import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from relabel.errors import RelabelError

from .jobs import Jobs, NoSuchJob, Unreachable

POLL_SECONDS = 1.0
EXIT_CODES = range(1, 10)
"""Of the program; whatever else ends a job (a signal, no room, a node) is a 1."""

Write = Callable[[str], object]


class Lost(RelabelError):
    """The job is gone with its head."""


class Left(RelabelError):
    """Who followed went away."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    exit_code: int
    message: str


class Log:
    """The log of a job, written once from its beginning however often the connection breaks."""

    def __init__(self, jobs: Jobs, job: str, write: Write) -> None:
        self._jobs, self._job, self._write = jobs, job, write
        self._written = 0
        """Characters."""
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=lambda: asyncio.run(self._follow()), name="job log", daemon=True).start()

    def finish(self) -> None:
        """The rest of it, once the job has ended. How that ended is known by now, whatever becomes of its log."""
        self._ended.set()
        try:
            text = self._jobs.log(self._job)
        except RelabelError as error:
            print(f"relabel: the end of the job's log is not here: {error}", file=sys.stderr)
        else:
            self._add(text, 0)

    async def _follow(self) -> None:
        while not self._ended.is_set():
            position = 0
            # Whether the head is away or the job lost is found out, and said, by who waits for the job.
            with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
                async for text in self._jobs.tail(self._job):
                    if self._ended.is_set():
                        return
                    self._add(text, position)
                    position += len(text)
            await asyncio.sleep(POLL_SECONDS)

    def _add(self, text: str, position: int) -> None:
        """`text` lies at `position` of the log; what of it was written before is not written again."""
        with self._lock:
            new = text[max(0, self._written - position) :]
            self._written = max(self._written, position + len(text))
            if new:
                self._write(new)


class Cancellation:
    """What Ctrl-C or SIGTERM means to who follows: a person is asked, a program's order stands; a second one leaves."""

    def __init__(self, jobs: Jobs, job: str) -> None:
        self._jobs, self._job = jobs, job
        self._ordered = False
        """By SIGTERM: a scheduler ends this command and means the work."""
        self._asked = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """SIGTERM interrupts as Ctrl-C does."""
        before = signal.signal(signal.SIGTERM, self._order)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _order(self, number: int, frame: FrameType | None) -> None:
        self._ordered = True
        raise KeyboardInterrupt

    def decide(self) -> None:
        """Stops the job, or raises Left."""
        goes_on = f"The job {self._job} goes on; the same command attaches to it again, with --stop it ends it."
        if self._asked:
            raise Left(f"The job {self._job} was asked to stop, and finishes what is in flight.")
        if not self._ordered and sys.stdin.isatty() and not wants_to_stop():
            raise Left(goes_on)
        self._asked = True
        self._jobs.stop(self._job)
        print(
            f"relabel: asked the job {self._job} to stop; it finishes what is in flight. Ctrl-C again leaves it alone.",
            file=sys.stderr,
        )


def wants_to_stop() -> bool:
    print(
        "\nStop the job on the cluster, too? Otherwise it goes on without this terminal. [y/N] ",
        end="",
        file=sys.stderr,
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def follow(jobs: Jobs, job: str, write: Write, patience: float) -> Ended:
    """Returns when the job has ended. Raises Lost where the head no longer knows it, Unreachable where the head does
    not answer for `patience` seconds, Left where the person who follows has seen enough.
    """
    log, cancellation = Log(jobs, job, write), Cancellation(jobs, job)
    head = Head(jobs, job, patience)
    log.start()
    with cancellation.heard():
        while True:
            try:
                info = head.info()
                if info is not None and info.status.is_terminal():
                    log.finish()
                    return ended(info)
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                cancellation.decide()


class Head:
    """What a head says of a job, however often it is away for a while."""

    def __init__(self, jobs: Jobs, job: str, patience: float) -> None:
        self._jobs, self._job, self._patience = jobs, job, patience
        self._away: float | None = None

    def info(self) -> JobDetails | None:
        """None while the head is away. Raises Lost, and Unreachable where patience has an end."""
        try:
            info = self._jobs.info(self._job)
        except NoSuchJob:
            raise Lost(
                f"the head at {self._jobs.address} no longer knows the job {self._job}: it was started anew, and the "
                "job ended with it. Finished shards are kept; submit the same recipe again, it goes on. A run that was "
                "killed holds the store until its lease expires: add `--if-busy wait` (`nightly` waits by itself)."
            ) from None
        except Unreachable as error:
            now = time.monotonic()
            if self._away is None:
                self._away = now
                print(f"relabel: {error} Waiting for up to {self._patience:g} s.", file=sys.stderr)
            elif now - self._away > self._patience:
                raise
            return None
        self._away = None
        return info


def ended(info: JobDetails) -> Ended:
    """SUCCEEDED is 0; of FAILED the code of the program, if it has one; else 1."""
    message = (info.message or "").partition("last available logs")[0].strip(" ,\n")
    code = info.driver_exit_code
    if info.status == JobStatus.SUCCEEDED:
        return Ended("SUCCEEDED", 0, message)
    return Ended(info.status.value, code if code is not None and code in EXIT_CODES else 1, message)
