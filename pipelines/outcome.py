"""Outcome: how a run ended, and the release that its finished shards make."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from relabel.digests import Json, digest
from relabel.labelers.engines.spending import Spent
from relabel.labels.summary import from_json
from relabel.releases.commit import Draft, Judge, commit
from relabel.releases.receipts import Receipt
from relabel.releases.versions import Version

from .account import Account
from .again import Twice
from .budget import budget_of, check_budget
from .gatekeeper import Gatekeeper
from .job import Job
from .midway import MakeDraft
from .opening import open_source
from .plan import Plan
from .recipe import Recipe
from .reporting import Reporter


@dataclasses.dataclass(frozen=True, repr=False)
class Outcome:
    """How a run ended."""

    plan: Plan
    receipts: Mapping[str, Receipt]
    """By shard token: every finished shard of the source, from this run or an earlier one."""
    release: Version | None
    """What is now the latest release: this run's, or the parent where nothing changed; None while shards are open."""
    account: Account
    """Where the time of its slots went, and what that cost."""
    milestones: Sequence[Version] = ()
    """Partial releases that this run published on its way."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Stage -> seconds of work, over all slots: read, decode, load, infer, encode, write, commit, retry."""
        return self.account.seconds

    @property
    def spent(self) -> Mapping[str, Spent]:
        """Per label what its engine used for the parts that came back: requests, attempts, tokens, cost. Exact for what
        services reported; what a process used for parts that it did not live to deliver is not in it.
        """
        return self.account.spent

    @property
    def published(self) -> bool:
        """Whether this run wrote the release."""
        return self.release is not None and self.release.run_id == self.plan.run_id

    @property
    def labelled(self) -> int:
        """Shards that this run finished."""
        return len(self.receipts) - len(self.plan.done)

    def __repr__(self) -> str:
        number = self.release.version if self.release else None
        return f"Outcome(labelled={self.labelled}, open_shards={self.open_shards}, release={number})"

    @property
    def open_shards(self) -> int:
        return len(self.plan.shards) - len(self.receipts)

    def to_json(self) -> Json:
        return {
            **self.plan.to_json(),
            "labelled": self.labelled,
            "open": self.open_shards,
            "samples": sum(receipt.rows for receipt in self.receipts.values()),
            "ok": sum(receipt.ok for receipt in self.receipts.values()),
            "dead": sum(receipt.dead for receipt in self.receipts.values()),
            "filtered": sum(receipt.filtered for receipt in self.receipts.values()),
            "release": self.release.version if self.release else None,
            "published": self.published,
            "milestones": [{"release": each.version, "coverage": each.coverage} for each in self.milestones],
            "content_digest": self.release.content_digest if self.release else None,
            "summary": from_json(self.release.summary).to_json() if self.release and self.release.summary else None,
            "stage_seconds": dict(self.seconds),
            "spent": {label: dict(spent) for label, spent in self.spent.items()},
            "usage": self.account.to_json(),
        }


Finish = Callable[[Plan, Mapping[str, Receipt], Account], Outcome]


def keep_unpublished(todo: Plan, receipts: Mapping[str, Receipt], account: Account) -> Outcome:
    """The receipts are durable; `publish`, or the next run, publishes them."""
    return Outcome(todo, receipts, None, account)


def publish(todo: Plan, receipts: Mapping[str, Receipt], account: Account, make_draft: MakeDraft) -> Outcome:
    """Commits what `make_draft` makes where every shard is finished; the parent stands where nothing changed."""
    release = None
    store = todo.job.open_store()
    for path in todo.leftovers:
        store.delete(path)
    if len(receipts) == len(todo.shards):
        sizes = [shard.size for shard in todo.shards]
        budget = budget_of(todo.job.recipe.dead_letters, sizes, receipts.values())
        check_budget(store, budget, list(receipts.values()))
        release = commit(store, make_draft(todo, receipts))
    return Outcome(todo, receipts, release, account)


def draft(
    todo: Plan,
    receipts: Mapping[str, Receipt],
    account: Account | None = None,
    lease: int | None = None,
    bring_back: bool = False,
    forced: str | None = None,
    twice: Twice | None = None,
) -> Draft:
    """The release that these receipts make, if the gate lets it pass or it is `forced`, for that reason."""
    job = todo.job
    return Draft(
        run_id=job.run_id,
        parent=todo.parent.version if todo.parent else 0,
        labels=job.describe_labels(),
        receipts=[receipts[shard.token] for shard in todo.shards if shard.token in receipts],
        num_source_shards=len(todo.shards),
        removed=todo.removed,
        selection=job.selection,
        source={
            "root": open_source(job.source).root,
            "manifest": digest([shard.token for shard in todo.shards]),
            "digested": job.digested,
        },
        recipe=anchored(job.recipe).to_json(),
        lease=lease,
        bring_back=bring_back,
        meta=job.recipe.meta.named or None,
        usage=account.to_json() if account is not None and account.samples else None,
        gate=checks(job, forced, twice),
    )


def checks(job: Job, forced: str | None, twice: Twice | None) -> Judge:
    """What a candidate goes through before it is published: the gate, and the page about it."""
    store = job.open_store()
    gate = Gatekeeper(store, job.recipe.gate, forced, twice)
    return Reporter(store, gate) if job.recipe.report else gate


def anchored(recipe: Recipe) -> Recipe:
    """The same recipe with local paths made absolute, so that a release can find its source from any folder."""
    paths = [recipe.source.path] if isinstance(recipe.source.path, str) else list(recipe.source.path)
    absolute = [absolute_path(path) for path in paths]
    path = absolute[0] if isinstance(recipe.source.path, str) else tuple(absolute)
    source = recipe.source.model_copy(update={"path": path})
    store = recipe.store.model_copy(update={"url": absolute_path(recipe.store.url)})
    return recipe.model_copy(update={"source": source, "store": store})


def absolute_path(path: str) -> str:
    """A local path, pattern or `@listing` from the root; a URL as it is."""
    if "://" in path:
        return path
    return f"@{Path(path[1:]).absolute()}" if path.startswith("@") else str(Path(path).absolute())
