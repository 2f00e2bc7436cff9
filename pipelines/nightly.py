"""Nightly: one date of a recipe: discover, label until the deadline, gate, publish or leave alone, tell, clean up.

A date is done once; what failed is tried again, and one night does whatever was missed. Whatever happens, its end is
recorded in the store, but for a kill.
"""

import contextlib
import dataclasses
import datetime as dt
import os
import shlex
import socket
import threading
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json
from relabel.errors import RelabelError
from relabel.redaction import redacted
from relabel.releases.candidates import candidate_path, read_candidate
from relabel.releases.leases import StoreBusy
from relabel.releases.nights import DONE, Attempt, begin, end, missed, since_done
from relabel.releases.receipts import Receipt
from relabel.releases.release import CANDIDATE
from relabel.releases.versions import read_version, version_numbers
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store

from .awaiting import Late, newest, wait_for, wait_until_silent
from .loading import load
from .nightly_dates import date_of, deadline_at, require_deadline, seconds_between
from .nightly_policy import Nightly
from .nightly_result import Night, State
from .notifying import notify
from .outcome import Outcome
from .plan import Plan
from .recipe import Recipe
from .retaining import retain
from .running import run
from .stopping import Stopped, StopRequest

DEADLINE_NAME = "the deadline"
STATES: Mapping[int, State] = {2: "wrong", 3: "refused", 4: "budget", 5: "busy", 6: "approval"}
"""Of errors, by exit code."""


class DoneMeanwhile(RelabelError):
    """Another scheduler's attempt did the date."""


@dataclasses.dataclass(frozen=True)
class Call:
    """What is settled before anything is begun."""

    given: str | Path | Mapping[str, Any] | Recipe
    overrides: Sequence[str]
    recipe: Recipe
    date: dt.date
    began: dt.datetime
    """In the recipe's time zone."""
    deadline: str | None
    store: ObjectStore

    @property
    def policy(self) -> Nightly:
        return self.recipe.nightly or Nightly()

    def command(self, name: str) -> str:
        """`relabel NAME RECIPE`, with what overrides it."""
        recipe = self.given if isinstance(self.given, str | Path) else "RECIPE"
        return shlex.join(["relabel", name, str(recipe), *(f"--set={each}" for each in self.overrides)])

    @property
    def again(self) -> str:
        return f"{self.command('nightly')} --date {self.date}"


def nightly(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    date: str | None = None,
    deadline: str | None = None,
    address: str | None = None,
) -> Night:
    """Do the night of a date (default: today in the recipe's time zone), unless it is done.

    `recipe`, `overrides` and `address` as `running.run` has them; `deadline` as in `nightly_policy.Nightly`, which it
    overrides. Raises UsageError where recipe or arguments are wrong; whatever else is, the night says.
    """
    checked = load(recipe, overrides)
    policy = checked.nightly or Nightly()
    now = dt.datetime.now(zoneinfo.ZoneInfo(policy.time_zone))
    until = policy.deadline if deadline is None else require_deadline(deadline)
    store = open_store(checked.store.url, checked.store.storage_options)
    call = Call(recipe, overrides, checked, date_of(date, now), now, until, store)
    none = Night(recipe=checked.name, store=store.url, date=call.date, state="failed", exit_code=1, why="")
    try:
        last, later = since_done(store, now.date())
        if last is not None and call.date <= last.date:
            why = f"{call.date} is done, nothing was begun: {told(last)}"
            return dataclasses.replace(none, state="done", exit_code=0, why=why, release=newest(store) or None)
        tonight = Tonight(call, last, later)
    except RelabelError as error:
        failed = dataclasses.replace(none, state=state_of(error), exit_code=error.exit_code, why=str(error))
        return tell(policy, dataclasses.replace(failed, next_command=call.again))
    return tonight.night(address)


def tell(policy: Nightly, night: Night) -> Night:
    """Tell the webhook, where there is one."""
    hook = policy.notify
    if hook is None or (hook.on == "problems" and not night.problem):
        return night
    problem = notify(hook.variable, {"text": night.markdown(), "night": night.to_json()})
    return dataclasses.replace(night, warnings=(*night.warnings, problem)) if problem else night


def state_of(error: RelabelError) -> State:
    if isinstance(error, Stopped):
        return "stopped"
    return "late" if isinstance(error, Late) else STATES.get(error.exit_code, "failed")


def told(attempt: Attempt) -> str:
    return f"attempt {attempt.number} at {attempt.date}: {attempt.state}, {attempt.why}"


class Tonight:
    """One attempt at a date, from its beginning to its end."""

    def __init__(self, call: Call, last: Attempt | None, later: Sequence[Attempt]) -> None:
        """`last`: what did the newest date that is done; `later`: the attempts since."""
        self.call, self.store, self.last, self.later = call, call.store, last, later
        release = max(version_numbers(self.store), default=0)
        self.before = min([release, *(each.fields.get("before", release) for each in later)])
        self.fields: dict[str, Json] = {
            "began": call.began.isoformat(timespec="seconds"), "host": socket.gethostname(), "pid": os.getpid(),
            "before": release,
        }  # fmt: skip
        self.number = begin(self.store, call.date, self.fields)
        self.plan: Plan | None = None
        self.receipts: Mapping[str, Receipt] = {}
        self.outcome: Outcome | None = None
        self.after: Json = None
        self.warnings: list[str] = []

    def night(self, address: str | None) -> Night:
        stop = StopRequest()
        try:
            with self.until_deadline(stop):
                self.await_other_line(stop)
                self.outcome = self.run_once_free(stop, address)
        except DoneMeanwhile as error:
            return self.finish("done", 0, str(error))
        except RelabelError as error:
            if isinstance(error, Stopped) and stop.by.startswith(DEADLINE_NAME):
                return self.finish("deadline", 0, self.at_deadline(stop))
            return self.finish(state_of(error), error.exit_code, str(error))
        except BaseException as error:
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            self.finish("failed", 1, redacted(what))
            raise
        return self.finish(*self.success(self.outcome))

    @contextlib.contextmanager
    def until_deadline(self, stop: StopRequest) -> Iterator[None]:
        """Inside, the run is asked to stop at the deadline; raises Stopped where that has passed."""
        call = self.call
        if call.deadline is None:
            yield
            return
        began = [each.fields.get("began", "") for each in self.later if each.date == call.date]
        first = dt.datetime.fromisoformat(began[0]).astimezone(call.began.tzinfo) if any(began[:1]) else call.began
        moment = deadline_at(call.deadline, call.began, first)
        name = f"{DEADLINE_NAME} ({moment:%Y-%m-%d %H:%M %Z})"
        left = seconds_between(dt.datetime.now(call.began.tzinfo), moment)
        if left <= 0:
            stop.make(name)
            raise Stopped(name)
        timer = threading.Timer(left, stop.make, (name,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def await_other_line(self, stop: StopRequest) -> None:
        after = self.call.policy.after
        if after is None:
            return
        before = (self.last.fields.get("after") if self.last else None) or {}
        seen = before["release"] if before.get("store") == after.store else 0
        with stop.heard():
            release = wait_for(after, self.call.date, seen, lambda: stop.made)
        if release is None:
            raise Stopped(f"stopped by {stop.by} while it waited for {after.store}")
        self.after = {"store": after.store, "release": release}

    def run_once_free(self, stop: StopRequest, address: str | None) -> Outcome:
        """A run. An owner of the store that was killed is waited for until its lease expires, a live one never.

        Raises DoneMeanwhile where that one did the date.
        """
        while True:
            try:
                return run(self.call.given, self.call.overrides, address=address, stop=stop, seen=self.see)
            except StoreBusy as busy:
                wait_until_silent(self.store, busy)
                done, _ = since_done(self.store, dt.datetime.now(self.call.began.tzinfo).date())
                if done is not None and self.call.date <= done.date:
                    raise DoneMeanwhile(f"{self.call.date} was done meanwhile: {told(done)}") from busy

    def see(self, plan: Plan, receipts: Mapping[str, Receipt]) -> None:
        self.plan, self.receipts = plan, receipts

    def success(self, outcome: Outcome) -> tuple[State, int, str]:
        """What the end of the run means."""
        news = ", ".join(f"{count} {why}" for why, count in self.discovered().items()) or "what was finished before"
        release = outcome.release
        assert release is not None, "a run of the whole source publishes, or raises"
        if release.version > self.before:
            by = "" if outcome.published else f" (by run {release.run_id}, since the night began)"
            return "published", 0, f"release {release.version}{by}; shards: {news}"
        return "nothing", 0, f"nothing new: release {release.version} has all {len(outcome.plan.shards)} shards"

    def at_deadline(self, stop: StopRequest) -> str:
        counts = self.counts()
        left = f" with {counts['open']} of {counts['shards']} shards open" if counts else " before there was a plan"
        return (
            f"{stop.by} came{left}. What is finished is kept, the last complete release stands, and the next night "
            "goes on; another call for this date does, too, with a later --deadline."
        )

    def discovered(self) -> dict[str, int]:
        if self.plan is None:
            return {}
        found = dict(Counter(entry.why for entry in self.plan.todo))
        return {**found, **({"removed": len(self.plan.removed)} if self.plan.removed else {})}

    def counts(self) -> dict[str, int] | None:
        if self.plan is None:
            return None
        done, finished, every = len(self.plan.done), list(self.receipts.values()), len(self.plan.shards)
        return {
            "shards": every, "labelled": len(finished) - done, "by_reference": done, "open": every - len(finished),
            **{name: sum(getattr(each, name) for each in finished) for name in ("ok", "dead", "filtered")},
        }  # fmt: skip

    def finish(self, state: State, exit_code: int, why: str) -> Night:
        """Clean up where the date is done, record the end, tell; none of it makes the night fail."""
        retention = self.retain() if state in DONE else None
        night = self.described(state, exit_code, why, retention)
        try:
            end(self.store, self.call.date, self.number, {**self.fields, **night.record()})
        except RelabelError as error:
            self.warnings.append(f"the end of this night could not be recorded, so its date stays open: {error}")
        return tell(self.call.policy, dataclasses.replace(night, warnings=tuple(self.warnings)))

    def retain(self) -> Json:
        policy = self.call.policy.retention
        if policy is None:
            return None
        try:
            retained = retain(self.store, policy)
        except RelabelError as error:
            self.warnings.append(f"old releases were not cleaned up: {error}")
            return None
        return {**retained.to_json(), "text": str(retained)}

    def described(self, state: State, exit_code: int, why: str, retention: Json) -> Night:
        call, now = self.call, dt.datetime.now(self.call.began.tzinfo)
        outcome = self.outcome.to_json() if self.outcome else {}
        last = self.last.date if self.last else None
        plan = self.plan
        night = Night(
            recipe=call.recipe.name, store=self.store.url, date=call.date, state=state, exit_code=exit_code, why=why,
            attempt=self.number, before=self.before, run_id=plan.run_id if plan else None,
            discovered=self.discovered(), counts=self.counts(), changes=tuple(plan.changes) if plan else (),
            cost=outcome.get("usage", {}).get("cost"), spent=outcome.get("spent"),
            missed=tuple(str(each) for each in missed(last, call.date, call.policy.every_days)),
            attempts=tuple({"date": str(each.date), "attempt": each.number, "state": each.state, "why": each.why}
                           for each in self.later),
            after=self.after, retention=retention, warnings=tuple(self.warnings),
            began=self.fields["began"], ended=now.isoformat(timespec="seconds"),
            seconds=round(seconds_between(call.began, now), 3),
        )  # fmt: skip
        try:
            night = self.with_releases(night)
        except RelabelError as error:  # the store may be what failed
            self.warnings.append(f"what lies in the store could not be read: {error}")
        return dataclasses.replace(night, next_command=self.advice(night))

    def with_releases(self, night: Night) -> Night:
        """And what lies in the store."""
        numbers = [number for number in version_numbers(self.store) if number > self.before]
        versions = [read_version(self.store, number) for number in numbers]
        verdict = next((each.gate for each in versions if each.run_id == night.run_id), None)
        if night.run_id is not None and self.store.exists(candidate_path(night.run_id)):
            verdict = read_candidate(self.store, night.run_id).version.gate
        releases = [{"release": each.version, "coverage": each.coverage, "run_id": each.run_id} for each in versions]
        return dataclasses.replace(night, release=newest(self.store) or None, releases=releases, verdict=verdict)

    def advice(self, night: Night) -> str:
        """What to type now; "" where nothing is to be done."""
        call, url = self.call, shlex.quote(self.store.url)
        if night.state == "published":
            return f"relabel diff {url} {self.before} {night.release}" if self.before else f"relabel show {url}"
        if night.state == "refused" and night.verdict is not None:
            return (
                f"relabel diff {url} latest {CANDIDATE}{night.run_id}" if self.before else f"relabel candidates {url}"
            )
        after = call.policy.after
        return {
            "approval": f"relabel candidates {url}",
            "deadline": f"{call.again} --deadline 4h",
            "budget": call.again if "budget is spent" in night.why else f"relabel dead {url} --open",
            "busy": f"relabel runs {url}",
            "late": f"relabel nights {shlex.quote(after.store)}" if after else "",
            "refused": call.command("plan"),
            "wrong": call.command("plan"),
            "stopped": call.again,
            "failed": call.again,
        }.get(night.state, "")
