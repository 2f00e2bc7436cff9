"""Nightly dates: which date a night has, and when its deadline is."""

import datetime as dt
import re

from relabel.errors import UsageError

from .nightly_policy import DEADLINE, seconds_of


def date_of(text: str | None, now: dt.datetime) -> dt.date:
    """Today in the time zone of `now`, or the date that is given; raises UsageError where that is none or to come."""
    if text is None:
        return now.date()
    try:
        date = dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--date expects a date such as {now.date()}, got {text!r}.") from None
    if date > now.date():
        raise UsageError(
            f"--date {date} is to come: today is {now.date()} in {now.tzname()} (`nightly.time_zone` of the recipe). "
            "Once it were done, every night before it would count as done."
        )
    return date


def require_deadline(text: str) -> str:
    if not re.fullmatch(DEADLINE, text):
        raise UsageError(f"--deadline expects a time such as 4h or 06:00, got {text!r}.")
    return text


def deadline_at(deadline: str, now: dt.datetime, first: dt.datetime) -> dt.datetime:
    """`4h` from now on; the first `06:00` after `first`, when the date's first attempt began.

    So a night that is started again at 06:05 does not work through the day.
    """
    if ":" not in deadline:
        return (now.astimezone(dt.UTC) + dt.timedelta(seconds=seconds_of(deadline))).astimezone(now.tzinfo)
    hour, minute = map(int, deadline.split(":"))
    moment = first.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return moment if seconds_between(first, moment) > 0 else moment + dt.timedelta(days=1)


def seconds_between(one: dt.datetime, other: dt.datetime) -> float:
    """That pass from one to the other, whatever the clocks on the wall do: the difference of two times of one zone is
    that of what these show, an hour off in the nights when they change.
    """
    return other.timestamp() - one.timestamp()
