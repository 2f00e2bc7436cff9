"""What a night is made of: dates, deadlines, other lines, dead owners, webhooks, the summary."""

import datetime as dt
import json
import time
import zoneinfo
from pathlib import Path

import pytest
from webhook import listening

from pipelines import awaiting, nightly_dates, notifying
from pipelines.awaiting import Late, wait_for, wait_until_silent
from pipelines.nightly_policy import After, Nightly
from pipelines.nightly_result import Night
from pipelines.notifying import notify
from relabel.errors import UsageError
from relabel.releases.commit import commit
from relabel.releases.leases import StoreBusy, acquire, beat
from relabel.releases.nights import begin, end
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.memory import MemoryStore
from relabel.testing.toy import draft, finish_shards

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
TODAY = dt.datetime.now(dt.UTC).date()


def day(ago: int) -> str:
    return str(TODAY - dt.timedelta(ago))


def test_a_night_has_the_date_of_its_time_zone_and_never_one_to_come() -> None:
    now = dt.datetime(2026, 11, 30, 23, 30, tzinfo=dt.UTC).astimezone(BERLIN)
    assert nightly_dates.date_of(None, now) == dt.date(2026, 12, 1)
    assert nightly_dates.date_of("2026-11-30", now) == dt.date(2026, 11, 30)
    with pytest.raises(UsageError, match="is to come: today is 2026-12-01 in CET"):
        nightly_dates.date_of("2026-12-02", now)
    with pytest.raises(UsageError, match="expects a date"):
        nightly_dates.date_of("yesterday", now)


def test_deadlines() -> None:
    first = dt.datetime(2026, 11, 30, 2, 0, tzinfo=BERLIN)
    retry = first.replace(hour=6, minute=5)
    six = first.replace(hour=6)
    assert nightly_dates.deadline_at("06:00", first, first) == six
    assert nightly_dates.deadline_at("06:00", retry, first) == six  # has passed: no work by day
    assert nightly_dates.deadline_at("01:00", first, first) == first.replace(hour=1) + dt.timedelta(1)
    assert nightly_dates.deadline_at("90m", retry, first) == retry + dt.timedelta(minutes=90)
    with pytest.raises(UsageError, match=r"4h or 06:00, got '6 am'"):
        nightly_dates.require_deadline("6 am")


@pytest.mark.parametrize(
    ("evening", "until_six", "eight_hours_later"), [((2026, 3, 28), 7, "07:00 CEST"), ((2026, 10, 24), 9, "05:00 CET")]
)
def test_deadlines_in_the_nights_when_the_clocks_change(
    evening: tuple[int, int, int], until_six: int, eight_hours_later: str
) -> None:
    first = dt.datetime(*evening, 22, 0, tzinfo=BERLIN)
    six = nightly_dates.deadline_at("06:00", first, first)
    assert f"{six:%H:%M}" == "06:00"
    assert nightly_dates.seconds_between(first, six) == until_six * 3600
    late = nightly_dates.deadline_at("8h", first, first)
    assert f"{late:%H:%M %Z}" == eight_hours_later
    assert nightly_dates.seconds_between(first, late) == 8 * 3600


def test_the_section_is_checked() -> None:
    policy = Nightly.model_validate({"after": "s3://bucket/other", "notify": "${HOOK}", "retention": 30})
    assert (policy.after and policy.after.wait, policy.retention and policy.retention.grace) == ("2h", "7d")
    assert policy.notify is not None
    assert policy.notify.variable == "HOOK"
    for wrong, what in (
        ({"notify": "https://hooks.example.com/secret"}, "give the variable"),
        ({"time_zone": "Berlin"}, "expected a time zone"),
        ({"retention": {"keep": 3, "grace": "2h"}}, "at least 1d"),
        ({"retention": 0}, "greater than or equal to 1"),
        ({"deadline": "25:00"}, "match pattern"),
        ({"after": "s3:///labels"}, "names no bucket"),
        ({"after": {"store": "there", "storage_options": {"secret": "a-literal-one"}}}, "secret"),
    ):
        with pytest.raises(ValueError, match=what):
            Nightly.model_validate(wrong)


def test_a_webhook_is_told_again_and_its_url_never_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "PAUSES", (0.0, 0.0))
    with listening(503, 429) as hook:
        monkeypatch.setenv("HOOK", hook.url)
        assert notify("HOOK", {"text": "good"}) is None
        assert (hook.asked, hook.told) == (3, [{"text": "good"}])
    with listening(404) as hook:
        monkeypatch.setenv("HOOK", hook.url)
        assert notify("HOOK", {}) == "nobody was told: the webhook in HOOK failed (status 404)"
        assert hook.asked == 1
    problem = notify("HOOK", {})  # nobody listens any more
    assert problem == "nobody was told: the webhook in HOOK failed ([Errno 111] Connection refused)"
    monkeypatch.setenv("HOOK", f"{hook.url} and more")
    assert notify("HOOK", {}) == "nobody was told: the webhook in HOOK failed (InvalidURL)"
    monkeypatch.setenv("HOOK", "file:///etc/passwd")
    assert notify("HOOK", {}) == "nobody was told: HOOK holds no http:// or https:// URL"
    monkeypatch.delenv("HOOK")
    assert notify("HOOK", {}) == "nobody was told: the environment variable HOOK is not set"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_webhook_that_moved_was_not_told(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with listening(status) as hook:
        monkeypatch.setenv("HOOK", hook.url)
        problem = notify("HOOK", {"text": "FAILED"})
    assert problem is not None
    assert f"status {status}, another address" in problem
    assert hook.told == []


def test_an_answer_without_an_end_holds_no_night_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as hook:
        hook.trickles = 30
        monkeypatch.setenv("HOOK", hook.url)
        began = time.monotonic()
        assert notify("HOOK", {"text": "good"}) is None
        assert time.monotonic() - began < 2
        assert hook.told == [{"text": "good"}]


def release(store: ObjectStore, number: int) -> None:
    receipts = finish_shards(store, f"run-{number}", {"a.tar": str(number)}, "small")
    commit(store, draft(f"run-{number}", number - 1, receipts, "small"))


def test_waiting_for_another_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "POLL_SECONDS", 0.01)
    store, date = open_store(str(tmp_path / "other")), TODAY
    after = After(store=store.url, wait="0s")
    with pytest.raises(Late, match="no release yet"):
        wait_for(after, date, 0, lambda: False)
    release(store, 1)
    assert wait_for(after, date, 0, lambda: False) == 1
    fields = {"began": "02:00", "host": "here", "pid": 7, "before": 1}
    end(store, date, begin(store, date, fields), {**fields, "state": "refused", "exit_code": 3, "why": "the gate"})
    with pytest.raises(Late, match=r"release 1, which this line has seen.*: refused, the gate.*its own night"):
        wait_for(after, date, 1, lambda: False)
    assert wait_for(After(store=store.url, wait="1h"), date, 1, lambda: True) is None
    end(store, date, begin(store, date, fields), {**fields, "state": "nothing", "exit_code": 0, "why": "nothing new"})
    assert wait_for(after, date, 1, lambda: False) == 1  # its night was done without one
    release(store, 2)
    assert wait_for(after, date, 1, lambda: False) == 2


def test_a_dead_owner_is_waited_for_and_a_live_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    lease = acquire(store, "first", seconds=60.0).lease
    with pytest.raises(StoreBusy) as busy:
        acquire(store, "second", seconds=60.0)
    acquired = store.now

    def sleep(seconds: float) -> None:
        store.now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    wait_until_silent(store, busy.value)
    assert 60 <= store.now - acquired <= 75
    monkeypatch.setattr(time, "sleep", lambda seconds: beat(store, lease))
    with pytest.raises(StoreBusy, match="held by run first"):
        wait_until_silent(store, busy.value)


def test_markdown_is_one_table_whatever_a_message_holds() -> None:
    night = Night(
        recipe="maps", store="s3://b", date=TODAY, state="refused", exit_code=3, why="two | things\nare wrong",
        changes=("top_k: 5 | 3\n-> 4",), missed=[day(each) for each in range(12, 2, -1)], attempt=2,
    )  # fmt: skip
    text = night.markdown()
    assert text.startswith(f"## maps, night of {TODAY}: REFUSED\n\n> two | things\n> are wrong\n\n| | |\n|---|---|\n")
    assert "| meaning | top_k: 5 \\| 3; -> 4 |" in text
    assert f"| missed | {day(12)} to {day(3)} (10 nights): still open |" in text
    assert json.loads(json.dumps(night.to_json()))["missed"][0] == day(12)
