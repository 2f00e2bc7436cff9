"""Gathering: one pass over all rows for a statistic, before anything is labelled with its result.

Every shard leaves its state in the store, so that a pass that was interrupted goes on; the driver merges the states,
in any order, for a statistic does not depend on it. Steps before the one that asks are run again for it.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy

from relabel.digests import digest
from relabel.errors import ObjectMissing, StorageError, UsageError
from relabel.labelers.engine_labeler import EngineLabeler
from relabel.labelers.failures import calling
from relabel.labelers.labeler import Labeler
from relabel.reasons import Status
from relabel.releases.stored import in_threads
from relabel.releases.withdrawals import read_withdrawals
from relabel.shards.shard import Member, Shard
from relabel.statistics.statistic import State, Statistic, from_bytes, to_bytes
from relabel.storage.objects import ObjectStore

from .account import Account
from .asking import open_stage
from .cluster import Pool, actor_pool
from .graph import MAX_READ_TASKS, RemoteLedger, configure, events, group, loads_nothing
from .job import Job, Pass, ShardTask
from .labelling import batch_of, device_stages
from .ledger import Keeper
from .opening import open_source
from .parts import Header, contents, from_ipc
from .progress import Tally, shown
from .reading import read_parts
from .results import Results
from .stages import Report, Stages
from .stopping import Stopped, StopRequest
from .watchdog import Watchdog, leave

FOLDER = "states"
MERGED_AT_ONCE, MERGED_BYTES = 256, 256 << 20
"""States in memory at a time."""
ATTEMPTS = 5


def gather(job: Job, results: Results, stop: StopRequest, ray_errors: "Errors", account: Account) -> None:
    """Gather what `job.pending` wants over all shards of the source and freeze its result. Needs a connected Ray.
    `account` is told where the time went.

    Where the passes before it saw other shards, they are to be made again first: nothing is gathered then.

    Raises UsageError where a step before it asks a model that is too dear to be asked twice, Stopped where asked to.
    """
    wanted = job.pending
    assert wanted is not None, "nothing is pending"
    store = job.open_store()
    job = dataclasses.replace(job, labelers=needed(job, wanted.index), withdrawn=read_withdrawals(store))
    shards = [shard for shard in open_source(job.source).shards() if shard.name not in job.withdrawn.shards]
    manifest = digest([shard.token for shard in shards])
    if results.begin_again(wanted, manifest):
        return
    for _ in range(ATTEMPTS):
        states = fold(job, wanted, shards, stop, ray_errors, account)
        try:
            state = merged(store, wanted.statistic, states)
        except ObjectMissing:  # another run, or partition, that gathers the same was first, and cleared up
            if results.look_again(wanted):
                break
            continue
        with calling(type(job.labelers[-1]), "statistic"):
            result = wanted.statistic.finish(state)
        results.put(wanted, result, manifest)
        break
    else:
        raise StorageError(
            f"states of the statistic {wanted.statistic.name} vanished {ATTEMPTS} times from {store.full_url(FOLDER)} "
            "before they were merged. End what deletes them, then run again."
        )
    in_threads(store.delete, states)


def fold(
    job: Job, wanted: Pass, shards: Sequence[Shard], stop: StopRequest, ray_errors: "Errors", account: Account
) -> list[str]:
    """The paths of the states of all shards, once every one of them was written."""
    store = job.open_store()
    states = {shard.token: state_path(wanted, shard) for shard in shards}
    lying = {info.path for info in store.list(f"{FOLDER}/{wanted.fingerprint[:32]}")}
    todo = [s for s in shards if states[s.token] not in lying or job.withdrawn.keys_of(s.name)]
    if todo:
        tally = Tally(len(todo), "gathering")
        tally.stage = f"statistic {wanted.statistic.name} of {job.labelers[-1].label}"
        dataset, pool = build(job, wanted, todo)
        account.gpus, account.cpus_per_device = pool.gpus, job.recipe.resources.threads
        with (
            shown(tally),
            stop.heard(),
            ray_errors(),
            account.graph(1, pool.least, pool.most, pool.readers, labels=False),
            account.driver.in_("wait"),
            contextlib.closing(events(dataset)) as told,
        ):
            for text in stop.until_stopped(told):
                account.add(Report(*each) for each in json.loads(text))
                tally.shard(dead=False)
        if stop.made:
            raise Stopped(
                f"stopped by {stop.by} with {tally.shards_done} of {len(todo)} shards gathered for the statistic "
                f"{wanted.statistic.name}. Nothing is lost: run the same command again to go on."
            )
    return list(states.values())


Errors = Callable[[], contextlib.AbstractContextManager[None]]


def needed(job: Job, index: int) -> tuple[Labeler[Any], ...]:
    """The labeler at `index` and, before it, those whose labels it reads, however far back."""
    by_label = {labeler.label: labeler for labeler in job.labelers[:index]}
    names, reach = set[str](), [*job.labelers[index].reads]
    while reach:
        name = reach.pop()
        if name in by_label and name not in names:
            names.add(name)
            reach.extend(by_label[name].reads)
    for name in sorted(names):
        if isinstance(by_label[name], EngineLabeler):
            raise UsageError(
                f"the step {job.labelers[index].label!r} needs a statistic over {name!r}, which a model writes in the "
                "same recipe: all of it would be asked twice. Give that step a recipe of its own, and read its release "
                "as a source: `source: {path: STORE, kind: release}`."
            )
    return (*(each for each in job.labelers[:index] if each.label in names), job.labelers[index])


def state_path(wanted: Pass, shard: Shard) -> str:
    return f"{FOLDER}/{wanted.fingerprint[:32]}/{shard.token[:32]}.npz"


def merged(store: ObjectStore, statistic: Statistic, paths: Sequence[str]) -> State:
    """All of them as one; of large states few are in memory at a time."""
    state, start, at_once = statistic.empty(), 0, 8
    while start < len(paths):
        some = paths[start : start + at_once]
        # Read in threads, parsed here: Python 3.11's `ast`, which reads numpy's headers, is not safe in several.
        data = zip(some, in_threads(store.get, some), strict=True)
        held = [from_bytes(each, store.full_url(path)) for path, each in data]
        # Among themselves first: of very many shards, each would else be merged into the large one.
        state = statistic.merge(state, functools.reduce(statistic.merge, held))
        largest = max(sum(array.nbytes for array in each.values()) for each in held)
        start, at_once = start + len(some), max(1, min(MERGED_AT_ONCE, MERGED_BYTES // max(1, largest)))
    return state


def build(job: Job, wanted: Pass, shards: Sequence[Shard]) -> tuple[ray.data.Dataset, Pool]:
    """The lazy graph: one event per shard whose state was written, the reports of its slot; and how many slots it has.

    By tasks, which take the processes that are there; by actors where a step before it has a model to load. Raises
    UsageError where the cluster has no room for one of them.
    """
    resources = job.recipe.resources
    tables = [pa.table({"shard": [as_text(each) for each in some]}) for some in group(shards, MAX_READ_TASKS)]
    pool = actor_pool(resources, 1, len(tables))
    configure()
    dataset: ray.data.Dataset = ray.data.from_arrow(tables)
    ledger = RemoteLedger()
    one_each: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = max(1, int(total.get("CPU", 1) // resources.threads))
    if all(map(loads_nothing, job.labelers[:-1])):
        fold = functools.partial(fold_shards, ray.put((job, wanted)), ledger)
        return dataset.map_batches(fold, num_cpus=resources.threads, **one_each), Pool(0, 0, 0.0, cpus)
    gpus = pool.gpus
    most = max(1, min(int(total["GPU"] // gpus) if gpus else cpus, len(tables)))
    dataset = dataset.map_batches(
        Folder,
        fn_constructor_args=(job, wanted, ledger, device_stages),
        compute=ActorPoolStrategy(min_size=1, max_size=most),
        num_gpus=gpus or None,
        num_cpus=0 if gpus else resources.threads,
        **one_each,
    )
    return dataset, Pool(1, most, gpus)


def fold_shards(told: "ray.ObjectRef[tuple[Job, Pass]]", ledger: Keeper, shards: pa.Table) -> pa.Table:
    """As a task."""
    folder = Folder(*ray.get(told), ledger, lambda label: Stages("reader", "load"))
    with contextlib.closing(folder):
        try:
            return folder(shards)
        except KeyboardInterrupt:
            leave("its task was cancelled")  # see `graph.ReadShards`


class Folder:
    """Reads shards, labels them as far as the statistic needs it, and leaves the state of each in the store."""

    def __init__(self, job: Job, wanted: Pass, ledger: Keeper, slot: Callable[[str], Stages]) -> None:
        """`slot`: the stages of the task or actor that this is, which says so by the label."""
        self._job, self._wanted, self._ledger, self._slot = job, wanted, ledger, slot(wanted.label)
        self._watchdog = Watchdog(job.recipe.resources.call_seconds, ledger)
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        before = range(len(job.labelers) - 1)
        self._stages = [open_stage(job, index, device, ledger, self._watchdog, self._slot) for index in before]
        self._slot.enter("idle")

    def __call__(self, shards: pa.Table) -> pa.Table:
        store, told = self._job.open_store(), []
        for shard in map(shard_of, shards["shard"].to_pylist()):
            usage: list[Report] = []
            state = self._state(shard, usage)
            with self._slot.in_("write"):
                store.put(state_path(self._wanted, shard), to_bytes(state))
            self._slot.enter("idle")
            told.append(json.dumps([*usage, self._slot.take()]))
        return pa.table({"event": told})

    def close(self) -> None:
        self._watchdog.close()

    def _state(self, shard: Shard, usage: list[Report]) -> State:
        """Of all rows that have a label so far; of a shard that cannot be read to its end, of none. `usage` grows by
        what its parts took.
        """
        labeler, statistic = self._job.labelers[-1], self._wanted.statistic
        state = statistic.empty()
        for part in read_parts(self._job, ShardTask(shard), self._ledger, self._watchdog, self._slot):
            header = Header.from_json(part["header"][0].as_py())
            if header.problem is not None:
                usage += header.usage
                return statistic.empty()
            for stage in self._stages:
                part = stage(part)
            usage += Header.from_json(part["header"][0].as_py()).usage
            rows = from_ipc(contents(part["rows"]))
            prepared = rows.filter(rows["prepared"])
            alive = np.flatnonzero(pc.equal(prepared["status"], str(Status.OK)).to_numpy())
            if len(alive):
                with self._slot.in_("infer"), calling(type(labeler), "statistic"):
                    state = statistic.update(state, batch_of(labeler, part, alive, len(prepared)))
        return state


def as_text(shard: Shard) -> str:
    return json.dumps([shard.name, shard.url, shard.size, shard.etag, [dataclasses.astuple(m) for m in shard.members]])


def shard_of(text: str) -> Shard:
    name, url, size, etag, members = json.loads(text)
    return Shard(name, url, size, etag, tuple(Member(*member) for member in members))
