"""Plans: what a run would do and why, from listings and receipts alone; writes nothing, loads no weights."""

import contextlib
import dataclasses
import datetime
import gc
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json
from relabel.errors import BadShard, UsageError
from relabel.labelers import registry
from relabel.labelers.failures import calling
from relabel.labelers.labeler import Labeler
from relabel.labelers.lock import Lock
from relabel.labels.contract import LabelContract
from relabel.reasons import Reason, Status
from relabel.releases.collect import planned
from relabel.releases.operators import require_source
from relabel.releases.partitions import WHOLE, Partition
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.segments import EntryColumns
from relabel.releases.taken_back import taken_back
from relabel.releases.versions import MARKER, Version, read_marker, read_version, version_numbers
from relabel.releases.withdrawals import read_withdrawals
from relabel.shards.shard import Shard
from relabel.shards.source import selection
from relabel.storage.objects import ObjectStore

from .job import Job, Part, ShardTask, describe_label
from .opening import KnownLabel, open_source, pinned, source_labels
from .recipe import Recipe, Step
from .results import Results
from .seen import unseen

PART_NAME = re.compile(r"(\d{10})-(\d+)-[0-9a-f]{32}\.arrow$")


@dataclasses.dataclass(frozen=True)
class Todo:
    """One shard that the run would label."""

    task: ShardTask
    why: str
    """new | changed bytes | content differs | changed while read | new meaning | output lost | receipt lost."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would do."""

    job: Job
    shards: Sequence[Shard]
    todo: Sequence[Todo]
    done: Mapping[str, Receipt]
    """By shard token: finished with this meaning, output in place."""
    removed: Sequence[str]
    """Shards of the latest release that the source no longer has."""
    parent: Version | None
    changes: Sequence[str]
    """What makes these labels mean something else than the latest release's."""
    warnings: Sequence[str]
    leftovers: Sequence[str]
    """Parts of finished shards, which a run that was killed could not delete any more."""
    partition: Partition = WHOLE
    """Only its shards are to label."""
    taken_back: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Finished shards whose labels a revert or a recall took out of use, and by what: no run publishes them again."""
    canary: bool = False
    """These are the shards that are labelled first, to be judged before the rest is paid for."""
    rest: bool = False
    """These are the shards after a canary."""
    redone: Sequence[str] = ()
    """Parts of unfinished shards, to be deleted so that the next run labels their rows again."""

    @property
    def run_id(self) -> str:
        return self.job.run_id

    @property
    def wanted(self) -> list[Shard]:
        """The shards of the partition."""
        if self.partition.whole:
            return list(self.shards)
        return [shard for shard in self.shards if self.partition.holds(shard.name)]

    def to_json(self) -> Json:
        todo_bytes = sum(entry.task.shard.size for entry in self.todo)
        return {
            "run_id": self.run_id,
            "store": self.job.recipe.store.url,
            "fingerprint": self.job.fingerprint,
            "shards": len(self.shards),
            "partition": None if self.partition.whole else str(self.partition),
            "bytes": sum(shard.size for shard in self.shards),
            "samples_known": sum(receipt.rows for receipt in self.done.values()),
            "done": len(self.done),
            "todo": len(self.todo),
            "todo_bytes": todo_bytes,
            "why": dict(Counter(entry.why for entry in self.todo)),
            "reused_parts": sum(len(entry.task.finished_parts) for entry in self.todo),
            "pending": self.job.pending.statistic.name if self.job.pending else None,
            "removed": list(self.removed),
            "latest_release": self.parent.version if self.parent else None,
            "changes": list(self.changes),
            "warnings": list(self.warnings),
            "taken_back": dict(list(self.taken_back.items())[:1000]),
            "todo_shards": [{"shard": entry.task.shard.name, "why": entry.why} for entry in self.todo[:1000]],
        }


def new_run_id(name: str) -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{name}-{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def make_job(recipe: Recipe, lock: Path | Lock | None = None, results: Results | None = None) -> Job:
    """The recipe's labelers with the facts of their weights (from the lock file where these are not at hand).

    And with the results of the statistics that they need, as far as the store has them: what is not gathered yet is
    `pending`.
    """
    cache = lock if isinstance(lock, Lock) else Lock(lock)
    recipe = pinned(recipe)
    results = results or Results(recipe.store)
    given = source_labels(recipe.source)
    if doubled := sorted(given.keys() & {step.label for step in recipe.steps}):
        raise UsageError(
            f"the release that is the source has a label {doubled[0]!r} already; name the step's own with `as: NAME`."
        )
    known, labelers, pending = dict(given), list[Labeler[Any]](), None
    for index, step in enumerate(recipe.steps):
        labeler = build(step, cache, known)
        labelers.append(labeler)
        require_named(labeler, recipe)
        if pending is None:
            pending = results.tell(labeler, index, selection(recipe.source))
        known[step.label] = KnownLabel.of(describe_label(labeler, results.found.get(step.label, ())))
    read = {name for labeler in labelers for name in labeler.reads}
    return Job(
        new_run_id(recipe.name),
        recipe,
        tuple(labelers),
        source_labels={name: label.contract for name, label in given.items() if name in read},
        results=results.found,
        pending=pending,
    )


def require_named(labeler: Labeler[Any], recipe: Recipe) -> None:
    """Raises UsageError where a labeler would read a field that the recipe says nothing of, and do without it."""
    known = recipe.source.choices
    for name in labeler.wants:
        if name not in known and name not in labeler.needs:
            raise UsageError(
                f"the step {labeler.label!r} reads {name!r} where a sample has it: say where it lies, e.g. "
                f"`source: {{fields: {{{name}: txt}}}}` (a member of a tar, `json.alt` in one, a Parquet column). Else "
                "no sample would have it, and nobody would notice."
            )


def build(step: Step, cache: Lock, known: Mapping[str, KnownLabel]) -> Labeler[Any]:
    """A step's labeler with its facts and with the contracts of the labels that it reads.

    Raises UsageError where its class leaves out what every labeler has, or nothing writes what it reads.
    """
    cls = registry.labeler(step.operator)
    parameters = cls.Parameters.model_validate(step.parameters)
    with calling(cls, "__init__"):
        labeler = cls(parameters, step.label)
    if not hasattr(labeler, "source"):
        raise UsageError(
            f"{cls.__name__}.__init__ must call super().__init__(parameters, label). Better leave __init__ out: "
            "`load` is the place for what is built once per actor."
        )
    connect(labeler, known)
    with calling(cls, "inspect"):
        labeler.facts = cache.facts(labeler)
    with calling(cls, "writes"):
        check_contract(labeler.writes(), cls, step.label)
        labeler.fingerprint()
    return labeler


def connect(labeler: Labeler[Any], known: Mapping[str, KnownLabel]) -> None:
    """Tells the labeler what the labels are that it reads; their meaning becomes part of its own."""
    for name in labeler.reads:
        if name not in known:
            raise UsageError(
                f"the step {labeler.label!r} reads the label {name!r}, which neither a step before it writes nor the "
                f"source has; there are: {', '.join(known) or 'none'}. Put the step that writes it first, or name "
                "another label."
            )
        labeler.inputs[name] = known[name].contract
        labeler.input_names[name] = tuple(known[name].class_names)
        labeler.read_fingerprints[name] = known[name].fingerprint
        labeler.read_origins[name] = known[name].origin


def check_contract(contract: Any, cls: type[Labeler[Any]], label: str) -> None:
    if not isinstance(contract, LabelContract):
        raise UsageError(
            f"{cls.__name__}.writes must return a LabelContract (scores(...), classes(...) and text(...) make one), "
            f"got {type(contract).__name__}."
        )
    if contract.name != label:
        raise UsageError(
            f"{cls.__name__}.writes must name its contract {label!r}, as the recipe names the label, got "
            f"{contract.name!r}. Use self.label there."
        )


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python's collector rests: a fifth of a large plan's time, in which it finds nothing to free."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def plan(job: Job, limit: int | None = None, check_content: bool = False, partition: Partition = WHOLE) -> Plan:
    """What a run of `job` would do; a store that does not exist yet is an empty one.

    Raises Refused where an operator of the user's own was edited under a version that labelled into this store.

    `limit` keeps at most so many shards to label. `check_content` reads the finished shards again and compares
    their digests, for sources whose bytes may change behind an unchanged size and time.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, got {limit}.")
    store = job.open_store()
    if store.exists(MARKER):
        read_marker(store)
    withdrawn = read_withdrawals(store)
    job = dataclasses.replace(job, withdrawn=withdrawn)
    listed = open_source(job.source).shards()
    shards = [shard for shard in listed if shard.name not in withdrawn.shards]
    numbers = version_numbers(store)
    parent = read_version(store, numbers[-1]) if numbers else None
    require_sources(store, job, parent)
    published = EntryColumns(store, parent.segments).tokens() if parent else {}
    changes = explain(parent, job)
    receipts = Receipts(store, job.fingerprint)
    finished = receipts.load()
    present = receipts.data_present(finished)
    done: dict[str, Receipt] = {}
    todo: list[Todo] = []
    for shard in shards:
        receipt = finished.receipts.get(shard.token)
        if receipt is None:
            why = _why_not_done(shard, published, changes)
        elif receipt.token not in present:
            why = "output lost"
        elif receipt.reason == Reason.CHANGED_SHARD and job.source.kind != "release":  # there it is as dead tomorrow
            why = "changed while read"
        elif check_content and partition.holds(shard.name) and not _content_equal(job, shard, receipt):
            why = "content differs"
        else:
            done[shard.token] = receipt
            continue
        if partition.holds(shard.name):
            todo.append(Todo(ShardTask(shard, finished.next_generation(shard.token)), why))
    names = {shard.name for shard in shards}
    parts = find_parts(job, store)
    finished_folders = (
        {without_cut(job.part_folder(token, receipt.generation)) for token, receipt in done.items()} if parts else set()
    )
    return Plan(
        job=job,
        shards=shards,
        todo=[with_parts(job, entry, parts) for entry in todo[:limit]],
        done=done,
        removed=[name for name in published if name not in names],
        parent=parent,
        changes=changes,
        warnings=[
            *(f"{damage} It counts as not written." for damage in finished.damaged),
            *(f"{labeler.label}: {line}." for labeler in job.labelers for line in labeler.warnings()),
            *(f"{label}: {line}." for label, found in job.results.items() for line in map(unseen, found) if line),
            *([f"{len(listed) - len(shards)} shards are withdrawn and left out"] if len(listed) > len(shards) else []),
        ],
        leftovers=[
            part.path for folder, found in parts.items() if without_cut(folder) in finished_folders for part in found
        ],
        partition=partition,
        taken_back=taken_back(store, parent).among(done.values()),
    )


def require_sources(store: ObjectStore, job: Job, parent: Version | None) -> None:
    """Raises Refused where an operator of the user's own was edited under a version that labelled into this store."""
    for labeler in job.own_labelers:
        require_source(store, labeler.name, labeler.version, labeler.source, parent)


def _why_not_done(shard: Shard, published: Mapping[str, str], changes: Sequence[str]) -> str:
    """Why a shard without a receipt must be labelled, as far as the latest release (shard -> token) tells."""
    token = published.get(shard.name)
    if token is None:
        return "new"
    if token != shard.token:
        return "changed bytes"
    return "new meaning" if changes else "receipt lost"


def _content_equal(job: Job, shard: Shard, receipt: Receipt) -> bool:
    if receipt.status == Status.DEAD:
        return True
    reading = open_source(job.source).read(shard)
    try:
        for _ in reading:
            pass
    except BadShard:
        return False
    return reading.content_sha256 == receipt.content_sha256


def find_parts(job: Job, store: ObjectStore) -> dict[str, list[Part]]:
    """The parts that former runs left, by folder; some rows may be there more than once.

    What an open plan to collect names counts as gone: it may be deleted at any moment.
    """
    doomed = frozenset[str]().union(*planned(store).values())  # before they are listed: an applied plan is gone itself
    found: dict[str, list[Part]] = {}
    for info in store.list(f"parts/{job.fingerprint[:16]}"):
        if (match := PART_NAME.search(info.path)) and info.path not in doomed:
            folder = info.path.rsplit("/", 1)[0]
            found.setdefault(folder, []).append(Part(int(match[1]), int(match[2]), info.path))
    return found


def without_cut(folder: str) -> str:
    """A folder of parts without how they are cut, and for which replay."""
    return folder.rpartition("-by")[0]


def with_parts(job: Job, entry: Todo, parts: Mapping[str, Sequence[Part]]) -> Todo:
    """The same shard with the parts that are there already; none where samples of it were withdrawn, perhaps since."""
    if not parts or job.withdrawn.keys_of(entry.task.shard.name):
        return entry
    replay = entry.task.replay.name if entry.task.replay else ""
    folder = job.part_folder(entry.task.shard.token, entry.task.generation, replay)
    finished = {part.start: part for part in parts.get(folder, ())}
    return Todo(dataclasses.replace(entry.task, finished_parts=finished), entry.why)


def explain(parent: Version | None, job: Job) -> list[str]:
    """What changed in the meaning of the labels since `parent`, one line per difference."""
    if parent is None:
        return []
    lines = []
    now = job.describe_labels()
    for label in sorted(parent.labels.keys() | now.keys()):
        if label not in now or label not in parent.labels:
            lines.append(f"label {label}: {'added' if label in now else 'dropped'}")
        elif parent.labels[label].fingerprint != now[label].fingerprint:
            before, after = (side.model_dump(mode="json") for side in (parent.labels[label], now[label]))
            lines.extend(f"label {label}: {line}" for line in differences(before, after))
    lines.extend(f"source: {line}" for line in differences(parent.selection, job.selection))
    return lines


def differences(before: Json, after: Json, place: str = "") -> list[str]:
    """`parameters.top_k: 5 -> 3`, for every leaf that differs."""
    if before == after or place in ("fingerprint", "contract", "class_names", "identity.source.digest"):
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted(before.keys() | after.keys())
            for line in differences(before.get(key), after.get(key), f"{place}.{key}".lstrip("."))
        ]
    return [f"{place.removeprefix('identity.')}: {_short(before)} -> {_short(after)}"]


def _short(value: Json) -> str:
    text = "none" if value is None else str(value)
    return text[:12] + "…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text[:60]
