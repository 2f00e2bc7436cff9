"""Results of statistics: whoever is first counts, whatever the store does meanwhile; damage is named."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.job import Pass
from pipelines.recipe import StoreConfig
from pipelines.results import Results
from relabel.errors import RelabelError, StorageError, StoreCorrupt
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import BY_NAME, FAULTS, Crash, Fault, FaultyStore
from relabel.testing.memory import MemoryStore
from relabel.testing.telling import Deviate, Mean, ReadParameters

SELECTION = {"where": []}


def labeler() -> Deviate:
    return Deviate(ReadParameters())


def asked(results: Results) -> Pass:
    wanted = results.tell(labeler(), 0, SELECTION)
    assert wanted is not None
    return wanted


def told(results: Results) -> tuple[Any, ...]:
    made = labeler()
    results.tell(made, 0, SELECTION)
    return made.finished


def test_the_first_result_stands_until_refit(tmp_path: Path) -> None:
    config = StoreConfig(url=str(tmp_path))
    one, other = Results(config), Results(config)
    wanted = asked(one)
    one.put(wanted, {"mean": 1.0}, "rows")
    other.put(wanted, {"mean": 2.0}, "rows")
    assert told(one) == told(other) == told(Results(config)) == ({"mean": 1.0},)
    again = Results(config, refit=True)
    assert told(again) == ()
    again.put(asked(again), {"mean": 3.0}, "rows")
    assert told(again) == told(Results(config)) == ({"mean": 3.0},)
    assert len(list(tmp_path.rglob("g*.json"))) == 2, "a refit forgets nothing"


def test_other_questions_have_other_results(tmp_path: Path) -> None:
    config = StoreConfig(url=str(tmp_path))
    results = Results(config)
    results.put(asked(results), {"mean": 1.0}, "rows")
    other = Deviate(ReadParameters(label="other"))
    assert results.tell(other, 0, SELECTION) is not None
    assert other.finished == ()
    made = labeler()
    assert results.tell(made, 0, {"where": ["something"]}) is not None
    assert made.finished == ()
    second = results.tell(made := labeler(), 0, SELECTION)
    assert isinstance(second, Pass)
    assert isinstance(second.statistic, Mean)
    assert second.statistic.centre == 1.0, "the second pass knows the first one's result"


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("at", range(4))
def test_no_fault_of_the_store_makes_two_results(fault: Fault, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run dies or fails at any request; others come before and after it."""
    config, inner = StoreConfig(url="memory"), MemoryStore()
    with monkeypatch.context() as empty:
        empty.setattr(Results, "store", property(lambda self: inner))
        wanted = asked(Results(config))  # all of them asked before any had put it

    def with_store(store: ObjectStore, mean: float) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(Results, "store", property(lambda self: store))
            results = Results(config)
            try:
                told(results)
                results.put(wanted, {"mean": mean}, "rows")
            except (Crash, StorageError, StoreCorrupt):
                return False
            return True

    faulty = FaultyStore(inner, at, fault)
    ended = with_store(faulty, 1.0)
    monkeypatch.setattr(Results, "store", property(lambda self: inner))
    first = told(Results(config))
    if not first:
        assert not ended, "who was told that it stands can find it"
        with_store(inner, 2.0)
    before = told(Results(config))
    faulty.land_all()
    with_store(inner, 3.0)
    assert told(Results(config)) == before == (first or ({"mean": 2.0},))


def test_a_refit_is_not_taken_in_by_a_listing_that_lags_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    config, inner = StoreConfig(url="memory"), MemoryStore()
    stale = FaultyStore(inner, 0, BY_NAME["stale listing"])  # as of now: nothing is there
    monkeypatch.setattr(Results, "store", property(lambda self: inner))
    results = Results(config)
    results.put(asked(results), {"mean": 1.0}, "rows")
    refit = Results(config, refit=True)
    wanted = asked(refit)
    monkeypatch.setattr(Results, "store", property(lambda self: stale))
    refit.put(wanted, {"mean": 2.0}, "rows")
    monkeypatch.setattr(Results, "store", property(lambda self: inner))
    assert told(Results(config)) == ({"mean": 2.0},)


def test_damage_is_named(tmp_path: Path) -> None:
    config = StoreConfig(url=str(tmp_path))
    results = Results(config)
    results.put(asked(results), {"mean": 1.0}, "rows")
    [file] = tmp_path.rglob("g0000.json")
    file.write_bytes(file.read_bytes().replace(b"1.0", b"2.0"))
    with pytest.raises(StoreCorrupt, match=r"g0000\.json does not match the digest"):
        told(Results(config))


def test_a_labeler_that_never_has_enough_is_ended(tmp_path: Path) -> None:
    class Endless(Deviate):
        def statistic(self) -> Any:
            return Mean("column", float(len(self.finished)))

    results = Results(StoreConfig(url=str(tmp_path)))
    for _ in range(16):
        wanted = results.tell(Endless(ReadParameters()), 0, SELECTION)
        assert wanted is not None
        results.put(wanted, {"mean": 1.0}, "rows")
    with pytest.raises(RelabelError, match="asked for 16 statistics and wants more"):
        results.tell(Endless(ReadParameters()), 0, SELECTION)

    class Wrong(Deviate):
        def statistic(self) -> Any:
            return "mean"

    with pytest.raises(RelabelError, match="must give a relabel Statistic or None, got str"):
        results.tell(Wrong(ReadParameters()), 0, SELECTION)


def test_what_another_run_put_is_found_and_a_refit_takes_none_from_before(tmp_path: Path) -> None:
    config = StoreConfig(url=str(tmp_path))
    late, first = Results(config), Results(config)
    wanted = asked(late)
    assert not late.look_again(wanted)
    first.put(asked(first), {"mean": 1.0}, "rows")
    assert late.look_again(wanted)
    assert told(late) == ({"mean": 1.0},)
    one, other = Results(config, refit=True), Results(config, refit=True)
    wanted = asked(one)
    assert not one.look_again(wanted), "what was there is to be made anew"
    other.put(asked(other), {"mean": 2.0}, "rows")
    assert one.look_again(wanted)
    assert told(one) == ({"mean": 2.0},)
