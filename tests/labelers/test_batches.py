"""Batches: full where they can be, soon where they cannot, and nothing is left without an answer."""

import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from relabel.errors import DeviceFailed
from relabel.labelers.engines.batches import PATIENCE, Batches, Job


class Recorder:
    """Answers jobs with their number, as soon as the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.gate.wait()
        self.batches.append([job.work for job in jobs])
        for job in jobs:
            job.future.set_result(job.work)


def submitted(batches: Batches, keys: str, first: int = 0) -> list[Job]:
    jobs = [Job(key, first + number) for number, key in enumerate(keys)]
    for job in jobs:
        batches.submit(job)
    return jobs


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_a_batch_holds_jobs_of_one_key() -> None:
    run = Recorder()
    run.gate.clear()
    batches = Batches(run, 3)
    jobs = submitted(batches, "abababa")
    run.gate.set()
    assert [job.future.result(5) for job in jobs] == list(range(7))
    assert sorted(map(sorted, run.batches)) == [[0, 2, 4], [1, 3, 5], [6]]
    batches.close()


def test_a_batch_that_is_not_full_waits_for_what_is_on_its_way() -> None:
    run = Recorder()
    batches = Batches(run, 3)
    batches.expect(1)
    (first,) = submitted(batches, "a")
    time.sleep(0.15)
    assert not run.batches
    (second,) = submitted(batches, "a", first=1)
    batches.expect(-1)
    assert (first.future.result(5), second.future.result(5)) == (0, 1)
    assert run.batches == [[0, 1]]
    batches.close()


def test_an_odd_job_is_not_passed_over_for_ever() -> None:
    run = Recorder()
    run.gate.clear()
    batches = Batches(run, 2)
    submitted(batches, "ob" + "a" * 200)
    run.gate.set()
    batches.close()
    place = next(number for number, batch in enumerate(run.batches) if 0 in batch)
    assert place <= PATIENCE + 2
    assert sum(map(len, run.batches)) == 202


@pytest.mark.parametrize(("lengths", "filled"), [(1, 0.99), (6, 0.99), (12, 0.98)])
def test_batches_of_a_long_run_are_full(lengths: int, filled: float) -> None:
    """With 64 requests open, 8 rows to a batch, and so many lengths of prompts, of which none is rare."""
    drawn, coming, sizes = random.Random(0), iter(range(3000)), []

    def run(jobs: Sequence[Job]) -> None:
        sizes.append(len(jobs))
        for job in jobs:
            job.future.set_result(None)
            if next(coming, None) is not None:
                batches.submit(Job(drawn.randrange(lengths), None))

    batches = Batches(run, 8)
    batches.expect(1)
    for _ in range(64):
        next(coming)
        batches.submit(Job(drawn.randrange(lengths), None))
    batches.expect(-1)
    batches.close()
    steady = sizes[: -64 // 8 - lengths]
    assert sum(sizes) == 3000
    assert sum(steady) / (8 * len(steady)) >= filled


def test_who_gave_up_is_left_out() -> None:
    run = Recorder()
    run.gate.clear()
    batches = Batches(run, 4)
    (blocking,) = submitted(batches, "z")
    jobs = submitted(batches, "aaa", first=1)
    assert jobs[1].future.cancel()
    run.gate.set()
    assert [blocking.future.result(5), jobs[0].future.result(5), jobs[2].future.result(5)] == [0, 1, 3]
    assert all(2 not in batch for batch in run.batches)
    batches.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_thread_ends_everybody_is_told() -> None:
    def die(jobs: Sequence[Job]) -> None:
        raise NotImplementedError

    batches = Batches(die, 2)
    batches.expect(1)
    jobs = submitted(batches, "abcde")
    batches.expect(-1)
    done, _ = concurrent.futures.wait([job.future for job in jobs if not job.future.cancelled()], timeout=5)
    assert len(done) == 5
    assert all(isinstance(job.future.exception(), DeviceFailed) for job in jobs)
    with pytest.raises(DeviceFailed):
        submitted(batches, "a")
    batches.close()
