"""Retaining: old releases are retired, and what no other release needs is deleted a grace later, by `collect`."""

import dataclasses

from relabel.digests import Json
from relabel.releases.collect import apply_plan, plan_age, plan_collect, plan_names, planner
from relabel.releases.retirements import retire
from relabel.storage.objects import ObjectStore

from .nightly_policy import Retention, seconds_of

PLANNER = "nightly"


@dataclasses.dataclass(frozen=True)
class Retained:
    """What became of old releases in one night."""

    retired: tuple[int, ...]
    """Releases that nobody can open from now on."""
    deleted: int
    """Files, by the plans of earlier nights."""
    deleted_bytes: int
    plan: str
    """Names what may be deleted once the grace is over; "" where there is nothing."""
    planned: int
    """Files that it names."""

    def __str__(self) -> str:
        parts = [f"retired release{'s' * (len(self.retired) > 1)} {', '.join(map(str, self.retired))}"]
        parts = parts if self.retired else []
        parts += [f"deleted {self.deleted} files ({self.deleted_bytes} bytes)"] if self.deleted else []
        parts += [f"{self.planned} files go a grace later (plan {self.plan})"] if self.plan else []
        return "; ".join(parts) or "nothing to retire or to delete"

    def to_json(self) -> Json:
        return dataclasses.asdict(self)


def retain(store: ObjectStore, policy: Retention) -> Retained:
    """Retire, delete what earlier nights planned long enough ago, plan what is garbage by now.

    Plans of a person are left to that person. Raises Refused where something is damaged; nothing is deleted then.
    """
    grace = seconds_of(policy.grace)
    retired = retire(store, policy.keep)
    own = [name for name in plan_names(store) if planner(store, name) == PLANNER]
    gone = [
        info for name in own if plan_age(store, name) >= grace for info in apply_plan(store, name, grace).deleted
    ]  # fmt: skip
    plan = plan_collect(store, grace, by=PLANNER)
    size = sum(info.size for info in gone)
    return Retained(tuple(retired), len(gone), size, plan.id, len(plan.objects))
