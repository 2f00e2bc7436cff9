"""Running: a recipe from plan to release. A run may stop anywhere; running again goes on where it stopped.

A run publishes once every shard of the source is finished. One process runs one graph: after a failed execution
Ray's actors may keep their devices until the process ends.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from relabel.digests import Json, digest
from relabel.errors import RelabelError
from relabel.labelers.engines.spending import Spent
from relabel.labels.summary import from_json
from relabel.releases.commit import Draft, commit
from relabel.releases.leases import left_unpublished
from relabel.releases.operators import claim_source
from relabel.releases.partitions import WHOLE, Partition
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.taken_back import refuse_taken_back
from relabel.releases.versions import Version
from relabel.shards.source import open_source
from relabel.storage.objects import ObjectStore

from . import graph
from .budget import budget_of, check_budget
from .cluster import Session, actor_pool, require_travels
from .coverage import Coverage
from .fullness import out_of_room
from .job import Job, Part
from .leasing import IfBusy, leased
from .loading import load, lock_path
from .midway import Midway
from .parts import Header
from .plan import Plan, make_job, plan
from .progress import Tally, shown
from .recipe import Recipe
from .stopping import GRACE_SECONDS, Stopped, StopRequest
from .writing import Event, merge_shard

FOLD_EVERY = 1_000
MERGES_IN_FLIGHT = 16
RAY_ADVICE = "\nFailed to apply UDF transform"


@dataclasses.dataclass(frozen=True, repr=False)
class Outcome:
    """How a run ended."""

    plan: Plan
    receipts: Mapping[str, Receipt]
    """By shard token: every finished shard of the source, from this run or an earlier one."""
    release: Version | None
    """What is now the latest release: this run's, or the parent where nothing changed; None while shards are open."""
    seconds: Mapping[str, float]
    """Summed over parts by stage: read, prepare, infer, write."""
    milestones: Sequence[Version] = ()
    """Partial releases that this run published on its way."""
    spent: Mapping[str, Spent] = dataclasses.field(default_factory=dict)
    """Per label what its engine used for the parts that came back: requests, attempts, tokens, cost. Exact for what
    services reported; what a process used for parts that it did not live to deliver is not in it."""

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
        }


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    limit: int | None = None,
    check_content: bool = False,
    address: str | None = None,
    partition: Partition = WHOLE,
    if_busy: IfBusy = IfBusy.TAKE_OVER,
    bring_back: bool = False,
) -> Outcome:
    """Label what is not labelled yet and publish the release.

    `recipe` and `overrides` as in `loading.load`, `limit` and `check_content` as in `plan.plan`; `address` is a running
    Ray cluster (default: a local one for the time of the run). Of a `partition` the shards are labelled and nothing is
    published. `if_busy` says what to do where another run holds the store. `bring_back` publishes labels that a revert
    or a recall took out of use. Raises RelabelError; see `errors` for the tree.
    """
    job = make_job(load(recipe, overrides), lock_path(recipe))
    stop = StopRequest()
    make_plan = functools.partial(plan, job, limit, check_content, partition)
    with contextlib.ExitStack() as held:
        session = held.enter_context(contextlib.closing(session_of(job, address)))
        if surely_goes_on(job.open_store()):
            session.start_ahead(graph.imports)
        todo, lease = held.enter_context(leased(job, make_plan, stop, if_busy))
        if not bring_back:
            refuse_taken_back(todo.taken_back)
        receipts = dict(todo.done)
        midway = Midway(todo, receipts, functools.partial(draft, lease=lease, bring_back=bring_back))
        finish: Finish = (
            functools.partial(publish, lease=lease, bring_back=bring_back) if partition.whole else keep_unpublished
        )
        outcome = carry_out(todo, receipts, stop, finish, session, midway)
    return dataclasses.replace(outcome, milestones=midway.milestones.published)


def session_of(job: Job, address: str | None) -> Session:
    """The Ray that a run of `job` needs, not started yet."""
    return Session(job.recipe.resources, len(job.labelers), address, job.plugins)


def surely_goes_on(store: ObjectStore) -> bool:
    """Whether Ray may start beside the plan, which of very many shards takes as long."""
    try:
        return left_unpublished(store)
    except RelabelError:
        return False  # the plan will say what is wrong with this store


def carry_out(
    todo: Plan,
    receipts: dict[str, Receipt],
    stop: StopRequest,
    finish: "Finish",
    session: Session,
    midway: Midway | None = None,
) -> Outcome:
    """Label what a plan says, its receipts added to those given, and `finish`; `midway` may stop it early.

    The lease of the store is the caller's.
    """
    if midway is not None:
        midway.check()
    job = todo.job
    seconds: dict[str, float] = {}
    spent: Mapping[str, Spent] = {}
    if todo.todo:
        require_travels(job.own_labelers)
        for own in job.own_labelers:
            claim_source(job.open_store(), own.name, own.version, own.source)
        tally = Tally(len(todo.todo))
        spent = tally.spent
        with shown(tally), session.connected(), stop.heard():
            for receipt in label(todo, tally, seconds, stop):
                fresh = receipt.token not in receipts
                receipts[receipt.token] = receipt
                if midway is not None and fresh and not midway.goes_on(receipt):
                    stop.made = True
    stop.require_none_forbids()
    if midway is not None:
        midway.check()
    finished = sum(shard.token in receipts for shard in todo.wanted)
    if stop.made and finished < len(todo.wanted):
        raise Stopped(
            f"stopped by {stop.by} with {finished} of {len(todo.wanted)} shards finished. Nothing is lost: they and "
            "the parts of others are kept; run the same command again to go on."
        )
    with stop.heard():
        return dataclasses.replace(finish(todo, receipts, seconds), spent=spent)


Finish = Callable[[Plan, Mapping[str, Receipt], Mapping[str, float]], Outcome]


def keep_unpublished(todo: Plan, receipts: Mapping[str, Receipt], seconds: Mapping[str, float]) -> Outcome:
    """The receipts are durable; `publish`, or the next run, publishes them."""
    return Outcome(todo, receipts, None, seconds)


def label(todo: Plan, tally: Tally, seconds: dict[str, float], stop: StopRequest) -> Iterator[Receipt]:
    """Runs the graph over the plan's shards, or until asked to stop; yields each shard's receipt as it is durable."""
    job = todo.job
    tasks = [entry.task for entry in todo.todo]
    pool = actor_pool(job.recipe.resources, len(job.labelers), len(tasks))
    tally.actors, tally.stage = pool.least, "loading the model"
    receipts = Receipts(job.open_store(), job.fingerprint)
    unfolded: list[Receipt] = []
    dataset = graph.build(job, tasks, pool)
    # Closed here and not by the garbage collector: a graph that is left open at exit can hang the process for ever.
    with ray_errors(), contextlib.closing(graph.events(dataset)) as events:
        for receipt in follow(todo, events, tally, seconds, stop):
            tally.shard(receipt.status == "dead")
            unfolded.append(receipt)
            if len(unfolded) >= FOLD_EVERY:
                receipts.fold(unfolded)
                unfolded = []
            yield receipt
    if len(unfolded) > 1:
        receipts.fold(unfolded)


def follow(
    todo: Plan, events: Iterator[str], tally: Tally, seconds: dict[str, float], stop: StopRequest
) -> Iterator[Receipt]:
    """Receipts of whole shards as their events come; shards in parts are merged on the cluster once they are tiled."""
    coverage = Coverage([entry.task for entry in todo.todo])
    merge = ray.remote(num_cpus=0)(merge_shard)
    job_ref = ray.put(todo.job)
    merging: list[ray.ObjectRef[Receipt]] = []
    finished: set[str] = set()
    for text in stop.until_stopped(events):
        event = Event.from_json(text)
        count(event, tally, seconds)
        if event.receipt is not None:
            if event.header.token not in finished:
                finished.add(event.header.token)
                yield event.receipt
        elif (complete := coverage.add(event)) is not None:
            merging.append(submit(merge, job_ref, *complete))
            done, merging = ray.wait(merging, num_returns=len(merging), timeout=0)
            while len(merging) > MERGES_IN_FLIGHT:
                more, merging = ray.wait(merging, num_returns=1)
                done += more
            yield from (ray.get(one) for one in done)
    if merging:
        done, _ = ray.wait(merging, num_returns=len(merging), timeout=GRACE_SECONDS if stop.made else None)
        yield from (ray.get(one) for one in done)


def submit(merge: Any, job: "ray.ObjectRef[Job]", end: Header, parts: list[Part]) -> "ray.ObjectRef[Receipt]":
    reference: ray.ObjectRef[Receipt] = merge.remote(job, end, parts)
    return reference


def count(event: Event, tally: Tally, seconds: dict[str, float]) -> None:
    tally.part(event.header, event.dead)
    for stage, spent in event.header.seconds.items():
        seconds[stage] = round(seconds.get(stage, 0.0) + spent, 6)


def publish(
    todo: Plan,
    receipts: Mapping[str, Receipt],
    seconds: Mapping[str, float],
    lease: int | None = None,
    bring_back: bool = False,
) -> Outcome:
    """Commits a release where every shard is finished; the parent stands where nothing changed."""
    release = None
    store = todo.job.open_store()
    for path in todo.leftovers:
        store.delete(path)
    if len(receipts) == len(todo.shards):
        sizes = [shard.size for shard in todo.shards]
        budget = budget_of(todo.job.recipe.dead_letters, sizes, receipts.values())
        check_budget(store, budget, list(receipts.values()))
        release = commit(store, draft(todo, receipts, lease, bring_back))
    return Outcome(todo, receipts, release, seconds)


def draft(todo: Plan, receipts: Mapping[str, Receipt], lease: int | None = None, bring_back: bool = False) -> Draft:
    """The release that these receipts make."""
    job = todo.job
    return Draft(
        run_id=job.run_id,
        parent=todo.parent.version if todo.parent else 0,
        labels=job.describe_labels(),
        receipts=[receipts[shard.token] for shard in todo.shards if shard.token in receipts],
        num_source_shards=len(todo.shards),
        removed=todo.removed,
        selection=job.selection,
        source={"root": open_source(job.source).root, "manifest": digest([shard.token for shard in todo.shards])},
        recipe=anchored(job.recipe).to_json(),
        lease=lease,
        bring_back=bring_back,
    )


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


@contextlib.contextmanager
def ray_errors() -> Iterator[None]:
    """Turns Ray's errors into ours: the RelabelError that a worker raised, else what failed and what to do."""
    try:
        yield
    except RayError as error:
        root = root_cause(error)
        if isinstance(root, RelabelError):
            root.args = tuple(without_advice(each) for each in root.args)
            raise root from error
        if (full := out_of_room(root)) is not None:
            raise full from error
        what = (str(root).strip().splitlines() or [""])[0]
        raise RelabelError(
            f"the run stopped: {type(root).__name__}: {what} Finished shards are kept; run again to go on. "
            "(RELABEL_DEBUG=1 shows the traceback.)"
        ) from error


def without_advice(argument: Any) -> Any:
    """A message without what Ray Data appends to it about its own retries."""
    return argument.partition(RAY_ADVICE)[0] if isinstance(argument, str) else argument


def root_cause(error: BaseException) -> BaseException:
    """What a worker raised, below the wrappers that Ray puts around it."""
    while True:
        below = getattr(error, "cause", None) or error.__cause__
        if not isinstance(below, BaseException):
            return error
        error = below
