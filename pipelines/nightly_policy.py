"""Nightly policy: when a nightly job runs, how long, what it waits for, whom it tells, what it keeps."""

import re
import zoneinfo
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .section import Section
from .store_config import StorageOptions, StoreUrl

DURATION = r"^\d+(\.\d+)?[smhd]$"
DEADLINE = r"^(\d+(\.\d+)?[smhd]|([01]\d|2[0-3]):[0-5]\d)$"
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(duration: str) -> float:
    """`90m` -> 5400."""
    return float(duration[:-1]) * SECONDS[duration[-1]]


class After(Section):
    """Another line of releases that comes first. In YAML a plain string is its store."""

    store: StoreUrl
    """Path or URL. Where the recipe's source is that store (`kind: release`), its new release is what is read."""
    wait: str = Field(default="2h", pattern=DURATION)
    """How long the night waits for a release that this line has not seen, or for that line's own night of the date to
    be done without one. Then it fails (exit code 1), and the date stays open."""
    storage_options: StorageOptions = Field(default_factory=dict)
    """fsspec options of the store."""

    @model_validator(mode="before")
    @classmethod
    def from_store(cls, value: Any) -> Any:
        return {"store": value} if isinstance(value, str) else value


class Notify(Section):
    """A webhook that is told how every night ended: `{"text": Markdown, "night": the result}` by POST. In YAML a plain
    string is `url`.
    """

    url: str
    """`${NAME}`: the environment variable that holds the URL, which is a secret."""
    on: Literal["always", "problems"] = "always"
    """`problems`: only nights that failed or did not get to their end."""

    @model_validator(mode="before")
    @classmethod
    def from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def is_named(cls, url: str) -> str:
        if not re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", url):
            raise ValueError('who knows the URL of a webhook can write there: give the variable, "${NAME}"')
        return url

    @property
    def variable(self) -> str:
        return self.url[2:-1]


class Retention(Section):
    """Which releases stay: the last ones and those with a tag. In YAML a number is `keep`."""

    keep: int = Field(ge=1)
    """So many complete releases that are not recalled. Older ones are retired: their history stays, nobody can open
    them any more, and label files that no kept release holds are deleted once the grace is over."""
    grace: str = Field(default="7d", pattern=DURATION)
    """Of `collect`, at least a day: for who reads a release that is being retired, and for runs at work."""

    @model_validator(mode="before")
    @classmethod
    def from_number(cls, value: Any) -> Any:
        return {"keep": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("grace")
    @classmethod
    def is_a_day(cls, grace: str) -> str:
        if seconds_of(grace) < SECONDS["d"]:
            raise ValueError("expected at least 1d: a run that is at work would lose what it wrote")
        return grace


class Nightly(Section):
    """What `relabel nightly` does beside a run. Nothing here changes a label."""

    time_zone: str = "UTC"
    """Whose date a night has, and whose time a deadline is (`Europe/Berlin`)."""
    deadline: str | None = Field(default=None, pattern=DEADLINE)
    """`4h` after the start, or the first `06:00` after the date's first attempt began. Then the run stops cleanly: the
    last release stands (with `publish`, also the milestones so far), and the next night goes on. Default: none."""
    every_days: int = Field(default=1, ge=1)
    """How often the job is to run; decides nothing but which dates count as missed."""
    after: After | None = None
    """Another line whose new release this one waits for."""
    notify: Notify | None = None
    """A webhook."""
    retention: Retention | None = None
    """Which releases stay. Default: all."""

    @field_validator("time_zone")
    @classmethod
    def is_known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("expected a time zone such as UTC or Europe/Berlin") from None
        return name
