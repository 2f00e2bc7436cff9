"""Running: a recipe from plan to release. A run may stop anywhere; running again goes on where it stopped.

A run publishes once every shard of the source is finished. One process runs one graph: after a failed execution
Ray's actors may keep their devices until the process ends.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray

from relabel.errors import RelabelError
from relabel.releases.commit import moment
from relabel.releases.leases import left_unpublished
from relabel.releases.operators import claim_source
from relabel.releases.partitions import WHOLE, Partition
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.taken_back import refuse_taken_back
from relabel.storage.objects import ObjectStore

from . import graph
from .account import Account
from .again import Twice, tasks_again, tasks_checked
from .canary import canary_first
from .cluster import Session, actor_pool, require_travels
from .coverage import Coverage
from .gatekeeper import refuse_recompute, refuse_undeclared
from .gathering import gather
from .job import Job, Part
from .leasing import IfBusy, leased
from .loading import load, lock_path
from .logs import bound, form, tell
from .meter import Meter
from .metrics import exported
from .midway import Midway
from .opening import pinned
from .outcome import Finish, Outcome, draft, keep_unpublished, publish
from .parts import Header
from .plan import Plan, make_job, plan
from .progress import Tally, shown
from .projection import project_rest, tell_projection
from .ray_errors import ray_errors
from .recipe import Recipe
from .recording import found_before, recorded
from .results import Results
from .stages import Report
from .stopping import GRACE_SECONDS, Stopped, StopRequest
from .writing import Event, merge_and_tell

FOLD_EVERY = 1_000
MERGES_IN_FLIGHT = 16


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
    refit: bool = False,
    accept_recompute: bool = False,
    stop: StopRequest | None = None,
    seen: Callable[[Plan, Mapping[str, Receipt]], None] | None = None,
) -> Outcome:
    """Label what is not labelled yet and publish the release.

    `recipe` and `overrides` as in `loading.load`, `limit` and `check_content` as in `plan.plan`; `address` is a running
    Ray cluster (default: a local one for the time of the run). Of a `partition` the shards are labelled and nothing is
    published. `if_busy` says what to do where another run holds the store. `bring_back` publishes labels that a revert
    or a recall took out of use. `refit` gathers anew the statistics that steps need. `accept_recompute` labels once
    more also where that is more than the recipe's `max_recompute`. `stop` may be made from another thread; `seen` is
    told the plan and the receipts, to which each finished shard's is added. Raises RelabelError; see `errors` for the
    tree.
    """
    checked, lock = pinned(load(recipe, overrides)), lock_path(recipe)  # once: all passes read one release
    if refit:
        checked = declared(checked, f"statistics were gathered anew at {moment()} (--refit)")
    results = Results(checked.store, refit)
    job = make_job(checked, lock, results)
    stop, account = stop or StopRequest(), Account(checked.prices)
    meter = Meter(checked, stop, account)
    with contextlib.ExitStack() as held:
        session = held.enter_context(contextlib.closing(session_of(job, address)))
        if job.pending or surely_goes_on(job.open_store()):
            session.start_ahead(graph.imports)
        if job.pending:
            held.enter_context(session.connected())
            require_travels(job.own_labelers)
        while job.pending:
            with meter.holding():
                gather(job, results, stop, functools.partial(metered_errors, meter), account, partition)
            job = make_job(checked, lock, results)
        make_plan = functools.partial(plan, job, limit, check_content, partition)
        todo, lease = held.enter_context(leased(job, make_plan, stop, if_busy))
        if not bring_back:
            refuse_taken_back(todo.taken_back)
        refuse_undeclared(todo)
        if not accept_recompute:
            refuse_recompute(todo)
        receipts, twice = dict(todo.done), Twice(todo, found_before(todo))
        if seen is not None:
            seen(todo, receipts)
        drafted = functools.partial(draft, account=account, lease=lease, bring_back=bring_back, twice=twice)
        midway = Midway(todo, receipts, drafted)
        finish: Finish = functools.partial(publish, make_draft=drafted) if partition.whole else keep_unpublished
        outcome = carry_out(todo, receipts, stop, finish, session, midway, twice, meter)
    return dataclasses.replace(outcome, milestones=midway.milestones.published)


def declared(recipe: Recipe, why: str) -> Recipe:
    """The recipe whose labels may mean something else than the last release's."""
    said = [recipe.gate.expect_change] if recipe.gate.expect_change else []
    gate = recipe.gate.model_copy(update={"expect_change": "; ".join([*said, why])})
    return recipe.model_copy(update={"gate": gate})


def session_of(job: Job, address: str | None) -> Session:
    """The Ray that a run of `job` needs, not started yet."""
    return Session(job.recipe.resources, len(graph.pools(job)), address, job.plugins, job.recipe.meta.named)


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
    finish: Finish,
    session: Session,
    midway: Midway | None = None,
    twice: Twice | None = None,
    meter: Meter | None = None,
) -> Outcome:
    """Label what a plan says, its receipts added to those given, and `finish`; `midway` and `meter` may stop it early.

    `twice` is told of samples that are labelled twice; None: none are. The lease of the store is the caller's.
    """
    if midway is not None:
        midway.check()
    meter = meter or Meter(todo.job.recipe, stop, Account(todo.job.recipe.prices))
    tally = Tally(len(todo.todo), account=meter.account)
    if not todo.todo:
        stop.require_none_forbids()
        with stop.heard():
            return finish(todo, receipts, tally.account)
    partition = "" if todo.partition.whole else str(todo.partition)
    with bound(run_id=todo.run_id), recorded(todo.job, partition, tally, twice) as recorder:
        label_all(todo, receipts, stop, session, midway, twice, meter, tally)
        with stop.heard():
            tally.account.driver.enter("commit")
            outcome = finish(todo, receipts, tally.account)
        tally.account.end()
        recorder.ended(outcome.release.version if outcome.published and outcome.release else None)
    return outcome


def label_all(
    todo: Plan,
    receipts: dict[str, Receipt],
    stop: StopRequest,
    session: Session,
    midway: Midway | None,
    twice: Twice | None,
    meter: Meter,
    tally: Tally,
) -> None:
    """Every shard that the plan wants, or as many as `stop`, `midway` and `meter` allow: then it raises."""
    job, account = todo.job, tally.account
    account.driver.enter("start")
    require_travels(job.own_labelers)
    for own in job.own_labelers:
        claim_source(job.open_store(), own.name, own.version, own.source)
    pieces = [todo] if midway is None else canary_first(todo)
    with shown(tally), session.connected(), exported(job, tally), stop.heard(), meter.holding():
        for part in pieces:
            for receipt in label(part, tally, stop, None if part.rest else twice):
                fresh = receipt.token not in receipts
                receipts[receipt.token] = receipt
                tell_shard(receipt)
                if midway is not None and fresh and not midway.goes_on(receipt):
                    stop.made = True
            if stop.made:
                break
            if midway is not None and part.canary:
                midway.judge()
                foresee(part, pieces[-1], tally)
    stop.require_none_forbids()
    if midway is not None:
        midway.check()
    finished = sum(shard.token in receipts for shard in todo.wanted)
    if stop.made and finished < len(todo.wanted):
        meter.require_within(f"{finished} of {len(todo.wanted)} shards finished")
        raise Stopped(
            f"stopped by {stop.by} with {finished} of {len(todo.wanted)} shards finished. Nothing is lost: they and "
            "the parts of others are kept; run the same command again to go on."
        )


def tell_shard(receipt: Receipt) -> None:
    """One line of each shard, in logs that programs read; people have the bar."""
    if form() == "json":
        names = ("shard", "status", "rows", "ok", "dead", "filtered", "reason", "detail")
        seconds = json.loads(receipt.usage) if receipt.usage else {}
        tell("shard", [], {**{name: getattr(receipt, name) for name in names}, "stages": seconds})


def foresee(canary: Plan, rest: Plan, tally: Tally) -> None:
    """Say what the rest will take and cost, from the canary, before it is labelled."""
    job, done, left = canary.job, num_bytes(canary), num_bytes(rest)
    pool = actor_pool(job.recipe.resources, len(graph.pools(job)), len(rest.todo))
    projected = tally.account.projected = project_rest(tally.account, left / max(1, done), pool).to_json()
    tell("projected", tell_projection(projected, "the rest after the canary"), projected)


def num_bytes(todo: Plan) -> int:
    """Of the shards to label."""
    return sum(entry.task.shard.size for entry in todo.todo)


def label(todo: Plan, tally: Tally, stop: StopRequest, twice: Twice | None = None) -> Iterator[Receipt]:
    """Runs the graph over the plan's shards, or until asked to stop; yields each shard's receipt as it is durable.

    `twice` is told of samples that are labelled twice, those of the last release first; raises Refused where these get
    other labels now.
    """
    job, account = todo.job, tally.account
    tasks = [entry.task for entry in todo.todo]
    pools = len(graph.pools(job))
    pool = actor_pool(job.recipe.resources, pools, len(tasks))
    again = [] if twice is None else tasks_again(todo)
    checked = {} if twice is None else tasks_checked(tasks, job.recipe.gate)
    tasks = [dataclasses.replace(task, check=checked.get(task.shard.token, 0)) for task in tasks]
    account.gpus, account.cpus_per_device = pool.gpus, job.recipe.resources.threads
    tally.actors, tally.stage = pool.least, "loading the model"
    receipts = Receipts(job.open_store(), job.fingerprint)
    unfolded: list[Receipt] = []
    ledger = graph.RemoteLedger(waits=bool(again))
    dataset = graph.build(job, [*again, *tasks], pool, ledger)
    first = First(ledger, len(again), twice) if twice is not None else None
    # Closed here and not by the garbage collector: a graph that is left open at exit can hang the process for ever.
    with (
        ray_errors(),
        account.graph(pools, pool.least, pool.most, pool.readers),
        contextlib.closing(graph.events(dataset)) as events,
    ):
        for receipt in follow(todo, events, tally, stop, first):
            tally.shard(receipt.status == "dead")
            unfolded.append(receipt)
            if len(unfolded) >= FOLD_EVERY:
                receipts.fold(unfolded)
                unfolded = []
            yield receipt
    if len(unfolded) > 1:
        receipts.fold(unfolded)


@dataclasses.dataclass
class First:
    """What is labelled before anything else."""

    ledger: graph.RemoteLedger
    open: int
    """Shards of the last release of which samples are still to come."""
    twice: Twice

    def takes(self, header: Header) -> bool:
        """Whether a part was only to be compared; the rest goes on after the last of them.

        Raises Refused where they get other labels now.
        """
        self.twice.add(header)
        if header.again is None:
            return False
        self.open -= 1
        if self.open == 0:
            self.twice.require_replayed()
            self.ledger.go()
        return True


def follow(
    todo: Plan, events: Iterator[str], tally: Tally, stop: StopRequest, first: First | None = None
) -> Iterator[Receipt]:
    """Receipts of whole shards as their events come; shards in parts are merged on the cluster once they are tiled."""
    account = tally.account
    coverage = Coverage([entry.task for entry in todo.todo])
    merge = ray.remote(num_cpus=0)(merge_and_tell)
    job_ref = ray.put(todo.job)
    merging: list[Merging] = []
    finished: set[str] = set()
    for text in stop.until_stopped(waited(events, account)):
        event = Event.from_json(text)
        if first is not None and first.takes(event.header):
            account.add(event.header.usage)
            continue
        tally.part(event.header, event.dead)
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
            yield from (merged(one, account) for one in done)
    if merging:
        account.driver.enter("wait")
        done, _ = ray.wait(merging, num_returns=len(merging), timeout=GRACE_SECONDS if stop.made else None)
        account.driver.enter("drive")
        yield from (merged(one, account) for one in done)


def waited(events: Iterator[str], account: Account) -> Iterator[str]:
    """The events; the driver works between one and the next."""
    account.driver.enter("wait")
    for event in events:
        account.driver.enter("drive")
        yield event
        account.driver.enter("wait")


Merging: TypeAlias = "ray.ObjectRef[tuple[Receipt, list[Report]]]"


def submit(merge: Any, job: "ray.ObjectRef[Job]", end: Header, parts: list[Part]) -> Merging:
    reference: Merging = merge.remote(job, end, parts)
    return reference


def merged(merging: Merging, account: Account) -> Receipt:
    receipt, reports = ray.get(merging)
    account.add(reports)
    return receipt


@contextlib.contextmanager
def metered_errors(meter: Meter) -> Iterator[None]:
    """As `ray_errors`."""
    with ray_errors():
        yield
    meter.require_within("its statistics not gathered yet")
