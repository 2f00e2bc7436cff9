"""Publishing: the release of what several drivers labelled, from any machine, once no shard is open."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.errors import Refused
from relabel.releases.doctor import require_commits
from relabel.releases.leases import holders

from .account import Account
from .again import Twice
from .loading import load, lock_path
from .outcome import Outcome, draft, publish
from .plan import Plan, make_job, plan
from .recipe import Recipe
from .recording import found_before

SHOWN_SHARDS = 3


def publish_finished(
    recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = (), forced: str | None = None
) -> Outcome:
    """Commit the release that the recipe's finished shards make; labels nothing and needs no lease.

    `forced`: why it is published although the gate refuses it, which the release records. Raises Refused where a shard
    is open, or the gate refuses.
    """
    job = make_job(load(recipe, overrides), lock_path(recipe))
    job.require_results()
    todo = plan(job)
    if todo.todo:
        raise Refused(describe_open(todo))
    require_commits(job.open_store())
    account = Account(job.recipe.prices)
    make_draft = functools.partial(draft, account=account, forced=forced, twice=Twice(todo, found_before(todo)))
    return publish(todo, dict(todo.done), account, make_draft)


def describe_open(todo: Plan) -> str:
    """How many shards are open, which come first, and who is at work."""
    names = [entry.task.shard.name for entry in todo.todo]
    first = ", ".join(names[:SHOWN_SHARDS]) + (", ..." if len(names) > SHOWN_SHARDS else "")
    busy = "; ".join(map(str, holders(todo.job.open_store()))) or "no run"
    return (
        f"{len(names)} of {len(todo.shards)} shards are open ({first}), so nothing was published. At work now: {busy}. "
        "Publish again once they are finished: start the partitions that have ended again, or `relabel run` without "
        "--partition, which labels all that is open and publishes."
    )
