"""Nights: attempts at dates are recorded once each; which dates are done, which were missed."""

import datetime as dt

import pytest

from relabel.releases.collect import DAY_SECONDS, apply_plan, plan_collect
from relabel.releases.nights import attempts, begin, end, missed, since_done
from relabel.storage.objects import ObjectStore
from relabel.testing.memory import MemoryStore

FIRST = dt.date(2026, 11, 26)
LATER = FIRST + dt.timedelta(100)


def begun(store: ObjectStore, days: int, release: int = 0) -> int:
    fields = {"began": "02:00", "host": "here", "pid": 7, "before": release}
    return begin(store, FIRST + dt.timedelta(days), fields)


def ended(store: ObjectStore, days: int, number: int, state: str) -> None:
    fields = {"began": "02:00", "host": "here", "pid": 7, "before": 0, "state": state, "exit_code": 0, "why": "so"}
    end(store, FIRST + dt.timedelta(days), number, fields)


def test_every_attempt_has_a_number_of_its_own() -> None:
    store = MemoryStore()
    assert [begun(store, 0), begun(store, 0), begun(store, 1)] == [1, 2, 1]
    ended(store, 0, 2, "failed")
    assert [(each.number, each.state) for each in attempts(store)] == [(1, "no end"), (2, "failed"), (1, "no end")]
    assert [*attempts(store)][2].why == "began 02:00 on here (process 7) and left no end"


def test_two_that_begin_at_once_get_two_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    begun(store, 0)
    monkeypatch.setattr("relabel.releases.nights.numbers", lambda *_: [])  # as if neither saw the other
    assert [begun(store, 0), begun(store, 0)] == [2, 3]


def test_what_was_done_last_and_what_came_after() -> None:
    store = MemoryStore()
    assert since_done(store, LATER) == (None, [])
    for days, states in enumerate((["failed", "published"], ["nothing"], ["deadline"], ["refused", None])):
        for state in states:
            number = begun(store, days)
            if state is not None:
                ended(store, days, number, state)
    done, later = since_done(store, LATER)
    assert done is not None
    assert (done.date, done.state) == (FIRST + dt.timedelta(1), "nothing")
    assert [(each.date - FIRST, each.state) for each in later] == [
        (dt.timedelta(2), "deadline"), (dt.timedelta(3), "refused"), (dt.timedelta(3), "no end")
    ]  # fmt: skip


def test_a_damaged_record_holds_no_night_up() -> None:
    store = MemoryStore()
    ended(store, 0, begun(store, 0), "published")
    ended(store, 1, begun(store, 1), "published")
    store.put(f"nights/{FIRST + dt.timedelta(1)}/0001.json", b"{}")
    done, [damaged] = since_done(store, LATER)
    assert (done and done.date, damaged.state) == (FIRST, "damaged")
    assert "0001.json" in damaged.why


def test_a_clock_that_was_ahead_does_not_do_every_night_until_then() -> None:
    store = MemoryStore()
    ended(store, 0, begun(store, 0), "published")
    ended(store, 30, begun(store, 30), "published")
    begun(store, 40)
    done, later = since_done(store, FIRST + dt.timedelta(1))
    assert (done and done.date, later) == (FIRST, [])


def test_what_is_no_date_holds_no_night_up() -> None:
    store = MemoryStore()
    ended(store, 0, begun(store, 0), "published")
    store.put("nights/2026-13-45/0001.json", store.get(f"nights/{FIRST}/0001.json"))
    assert [each.date for each in attempts(store)] == [FIRST]


def test_missed_dates() -> None:
    def days(*days: int) -> list[dt.date]:
        return [FIRST + dt.timedelta(each) for each in days]

    assert missed(None, FIRST, 1) == []
    assert missed(FIRST, FIRST + dt.timedelta(1), 1) == []
    assert missed(FIRST, FIRST + dt.timedelta(4), 1) == days(1, 2, 3)
    assert missed(FIRST, FIRST + dt.timedelta(7), 7) == []
    assert missed(FIRST, FIRST + dt.timedelta(15), 7) == days(7, 14)


def test_collect_takes_beginnings_that_have_an_end() -> None:
    store = MemoryStore()
    ended(store, 0, begun(store, 0), "published")
    begun(store, 1)
    store.now += 8 * DAY_SECONDS
    plan = plan_collect(store)
    assert [info.path for info in plan.objects] == [f"nights/{FIRST}/0001.begun.json"]
    store.now += 8 * DAY_SECONDS
    assert len(apply_plan(store, plan.id).deleted) == 1
    assert [(each.number, each.state) for each in attempts(store)] == [(1, "no end"), (1, "published")]
    assert begun(store, 0) == 2
