"""The ledger blames whoever was alone at three deaths, and nobody else, whatever kills processes."""

import random
from collections import Counter

import pytest

from pipelines.ledger import BARREN_DEATHS, DEVICE_FAILURES, Ledger, Unit, Verdict
from relabel.errors import DeviceFailed, RelabelError
from relabel.reasons import Reason

UNIT: Unit = ("label_map", "0" * 64, 0)


class Death(Exception):
    """The process is gone."""


class Worker:
    """What a worker does with a unit of `count` samples, of which some kill it, and any may be killed by chance."""

    def __init__(self, ledger: Ledger, count: int, killers: set[int], chance: float = 0.0, seed: int = 0) -> None:
        self.ledger, self.count, self.killers = ledger, count, killers
        self.chance, self.random = chance, random.Random(seed)
        self.deaths = 0

    def attempt(self, unit: Unit) -> Verdict:
        """One process; raises Death where it does not live to the end."""
        verdict = self.ledger.begin(unit)
        verdict.require()
        for sample in verdict.order(self.count):
            if verdict.careful:
                self.ledger.at(unit, sample)
            if sample in self.killers or self.random.random() < self.chance:
                raise Death
        self.ledger.end(unit)
        return verdict

    def run(self, unit: Unit = UNIT) -> Verdict:
        while True:
            try:
                return self.attempt(unit)
            except Death:
                self.deaths += 1


@pytest.mark.parametrize("killers", [set(), {0}, {7}, {31}, {0, 1}, {3, 17, 31}, {0, 30, 31}])
def test_killers_are_blamed_and_only_they(killers: set[int]) -> None:
    worker = Worker(Ledger(), 32, killers)
    verdict = worker.run()
    assert dict(verdict.blamed) == dict.fromkeys(killers, Reason.PROCESS_DIED)
    assert worker.deaths == (3 * len(killers) + 1 if killers else 0)


def test_a_part_of_one_sample_that_kills() -> None:
    assert set(Worker(Ledger(), 1, {0}).run().blamed) == {0}


@pytest.mark.parametrize("seed", range(40))
def test_innocents_are_not_blamed_under_random_kills(seed: int) -> None:
    """Every fourth pass over a part is ended by chance, and one sample is guilty."""
    worker = Worker(Ledger(), 32, {5}, chance=0.01, seed=seed)
    blamed: Counter[int] = Counter()
    for part in range(20):
        blamed.update(set(worker.run(("label_map", f"{part:064d}", 0)).blamed))
    assert blamed == {5: 20}
    assert worker.deaths > 60


def test_nobody_is_blamed_without_a_guilty_one() -> None:
    worker = Worker(Ledger(), 64, set(), chance=0.01, seed=7)
    assert all(not worker.run(("label_map", f"{part:064d}", 0)).blamed for part in range(200))
    assert worker.deaths > 40


def test_where_no_process_gets_anywhere_the_run_stops() -> None:
    worker = Worker(Ledger(), 32, set(), chance=1.0)
    with pytest.raises(RelabelError, match="none is to blame"):
        worker.run()
    assert worker.deaths == BARREN_DEATHS


def test_what_a_process_says_of_its_end_is_the_reason() -> None:
    ledger = Ledger()
    for reason in (Reason.PROCESS_DIED, Reason.PROCESS_DIED, Reason.PROCESS_DIED, Reason.TIMED_OUT):
        verdict = ledger.begin(UNIT)
        if verdict.careful:
            ledger.at(UNIT, 3)
        ledger.failing(UNIT, reason)
    verdict = ledger.begin(UNIT)
    assert verdict.blamed == {3: Reason.TIMED_OUT}
    [letter] = verdict.letters().values()
    assert letter.reason == "timed_out"
    assert letter.detail.startswith("it took longer than resources.call_seconds 3 times while this sample was alone")


def test_a_broken_accelerator_stops_the_run_and_blames_nobody() -> None:
    ledger = Ledger()
    for number in range(DEVICE_FAILURES):
        verdict = ledger.begin(UNIT)
        assert not verdict.problem
        assert not verdict.blamed
        if verdict.careful:
            ledger.at(UNIT, verdict.order(32)[0])
        ledger.failing(UNIT, Reason.DEVICE_FAILED)
        assert number < DEVICE_FAILURES
    with pytest.raises(DeviceFailed, match="failed 6 times in a row"):
        ledger.begin(("label_map", "1" * 64, 0)).require()


def test_a_unit_that_ended_is_forgotten() -> None:
    ledger = Ledger()
    ledger.begin(UNIT)
    ledger.end(UNIT)
    assert ledger.begin(UNIT) == Verdict()
    ledger.begin(UNIT)
    assert ledger.begin(UNIT).careful, "its process died once, by chance"
    ledger.end(UNIT)
    assert ledger.begin(UNIT) == Verdict()


def test_killers_in_many_parts_of_a_shard_cost_what_each_costs_alone() -> None:
    """A reader that dies reads its shard once more from the beginning, with the killers of the parts before."""
    alone = Worker(Ledger(), 8, {5})
    alone.run()
    worker = Worker(Ledger(), 8, {5})
    units: list[Unit] = [("", "0" * 64, row) for row in range(0, 64, 8)]
    verdicts: list[Verdict] = []
    while len(verdicts) < len(units):
        try:
            verdicts = [worker.attempt(unit) for unit in units]
        except Death:
            worker.deaths += 1
    assert worker.deaths == len(units) * alone.deaths
    assert [verdict.blamed for verdict in verdicts] == [{5: Reason.PROCESS_DIED}] * len(units)
