"""Costing: what the runs of many stores used, summed by team, owner, cost center, store or recipe.

A run counts with what its record said last, so a run that was killed counts up to a few seconds before.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.storage.opening import open_store

from .finding import stores_below
from .prices import MILLION, dollars, hours
from .recording import RunRecord, read_records

BY = ("team", "owner", "cost_center", "store", "recipe", "run")
NOBODY = "(none)"


@dataclasses.dataclass
class Sum:
    """Of some runs."""

    runs: int = 0
    failed: int = 0
    """Runs that ended otherwise than well, or never ended."""
    labels: int = 0
    device_hours: float = 0.0
    cpu_hours: float = 0.0
    usd: float = 0.0

    def add(self, record: RunRecord) -> None:
        cost: dict[str, Any] = (record.usage or {}).get("cost") or {}
        self.runs += 1
        self.failed += record.exit_code != 0
        self.labels += cost.get("labels", 0)
        self.device_hours += cost.get("device_hours", 0.0)
        self.cpu_hours += cost.get("cpu_hours", 0.0)
        self.usd += cost.get("usd", 0.0)

    def to_json(self) -> dict[str, Json]:
        million = MILLION / self.labels if self.labels else None
        return {
            **{name: round(value, 6) for name, value in dataclasses.asdict(self).items()},
            "device_hours_per_million": None if million is None else round(self.device_hours * million, 6),
            "usd_per_million": None if million is None else round(self.usd * million, 6),
        }


@dataclasses.dataclass(frozen=True)
class Bill:
    """Sums by what was asked for."""

    by: str
    stores: int
    sums: Mapping[str, Sum]
    damaged: Sequence[str]

    @property
    def total(self) -> Sum:
        total = Sum()
        for each in self.sums.values():
            for field in dataclasses.fields(Sum):
                setattr(total, field.name, getattr(total, field.name) + getattr(each, field.name))
        return total

    def to_json(self) -> dict[str, Json]:
        return {
            "by": self.by,
            "stores": self.stores,
            "sums": {name: each.to_json() for name, each in self.sums.items()},
            "total": self.total.to_json(),
            "damaged_records": list(self.damaged),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """As a table, the dearest first."""
        head = (self.by, "runs", "not well", "labels", "device-hours", "CPU-hours", "USD", "USD per million")
        ordered = sorted(self.sums.items(), key=lambda each: (-each[1].usd, -each[1].device_hours, each[0]))
        return [head, *(row(name, each) for name, each in ordered), row("all", self.total)]


def row(name: str, one: Sum) -> tuple[str, ...]:
    million = one.to_json()["usd_per_million"]
    return (
        name, str(one.runs), str(one.failed), f"{one.labels:,}", hours(one.device_hours), hours(one.cpu_hours),
        dollars(one.usd), "" if million is None else dollars(million),
    )  # fmt: skip


def bill(prefix: str, options: Mapping[str, Json], by: str = "team", since: str | None = None) -> Bill:
    """Of every run of every store below `prefix` that began on this date (UTC) or later."""
    begin = "" if since is None else date(since)
    sums: dict[str, Sum] = {}
    damaged: list[str] = []
    stores = list(stores_below(prefix, options))
    if not stores:
        raise UsageError(
            f"no label store lies below {prefix}. Give a prefix above the `store` of a recipe that was run."
        )
    for url in stores:
        records, unread = read_records(open_store(url, options))
        damaged += unread
        for record in since_then(records, begin):
            sums.setdefault(payer(record, by, url), Sum()).add(record)
    return Bill(by, len(stores), dict(sorted(sums.items())), damaged)


def since_then(records: Iterable[RunRecord], begin: str) -> list[RunRecord]:
    return [record for record in records if record.started >= begin]


def payer(record: RunRecord, by: str, url: str) -> str:
    """Whose line a run is on."""
    named = {"store": url, "recipe": record.name, "run": record.run_id, **record.meta}
    return named.get(by) or NOBODY


def date(text: str) -> str:
    """Raises UsageError."""
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"--since expects a date such as 2026-01-31, got {text!r}.") from None
