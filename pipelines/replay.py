"""Replay: dead samples and shards of a release labelled again, and published as a release in which they are repaired.

Every other row keeps its label's bytes. A replay may stop anywhere: again, it goes on where it stopped, and where all
is repaired it finds nothing to do.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from relabel.digests import Json
from relabel.errors import Refused
from relabel.labels.shard_file import decode_label_shard
from relabel.reasons import Reason, Status
from relabel.releases.commit import commit
from relabel.releases.letters import Record, check_reason, dead_reasons, read_letters
from relabel.releases.lookup import find_version
from relabel.releases.recalls import find_recall
from relabel.releases.receipts import Receipt, Receipts
from relabel.releases.redactions import Redactions, read_redactions
from relabel.releases.segments import EntryColumns, entry_of, read_segments
from relabel.releases.stored import get_checked, in_threads
from relabel.releases.taken_back import TakenBack, taken_back
from relabel.releases.unpublished import unpublished
from relabel.releases.versions import MARKER, Version, read_marker, read_version, version_numbers
from relabel.releases.withdrawals import Withdrawn, read_withdrawals
from relabel.shards.shard import Shard
from relabel.storage.objects import ObjectStore

from .account import Account
from .job import Job, Part, Replay, ShardTask
from .leasing import IfBusy, leased
from .loading import load, lock_path
from .opening import open_source
from .outcome import Outcome, draft
from .plan import Plan, Todo, explain, find_parts, make_job, require_sources, with_parts
from .running import carry_out, session_of
from .stopping import StopRequest
from .writing import read_part


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What became of what was dead."""

    outcome: Outcome
    samples: int
    """Dead samples that were labelled again."""
    repaired_samples: int
    dead: Mapping[str, int]
    """By reason: samples and shards of those that are still dead."""
    shards: int
    """Dead shards that were read again."""
    repaired_shards: int
    other_numerics: int
    """Shards of which the rows labelled now and those kept were computed differently."""

    def to_json(self) -> Json:
        release = self.outcome.release
        return {
            "run_id": self.outcome.plan.run_id,
            "samples": self.samples,
            "repaired_samples": self.repaired_samples,
            "shards": self.shards,
            "repaired_shards": self.repaired_shards,
            "still_dead": dict(self.dead),
            "skipped": list(self.outcome.plan.warnings),
            "other_numerics": self.other_numerics,
            "release": release.version if release else None,
            "published": self.outcome.published,
        }


def replay(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    release: int | str | None = None,
    reason: str | None = None,
    address: str | None = None,
    if_busy: IfBusy = IfBusy.TAKE_OVER,
) -> Replayed:
    """Label dead samples and shards again, or those with one reason, and publish the release.

    Of a release by its number or tag; None: of what is finished and in no release, which the next run publishes.
    `if_busy` as in `running.run`.
    Raises Refused where the recipe makes other labels than the release holds.
    """
    job = make_job(load(recipe, overrides), lock_path(recipe))
    job.require_results()
    stop = StopRequest()
    with leased(job, functools.partial(plan_replay, job, release, reason), stop, if_busy) as (todo, lease):
        finish = keep_unpublished if release is None else functools.partial(publish_repaired, lease=lease)
        return summary(carry_out(todo, dict(todo.done), stop, finish, session_of(job, address)))


def plan_replay(job: Job, release: int | str | None, reason: str | None = None) -> Plan:
    """The shards with dead letters as a plan, each with the keys to label again; what is repaired already is done.

    `warnings` say which shards are left to a run, and why.
    """
    check_reason(reason)
    store = job.open_store()
    if store.exists(MARKER):  # there is none before the first release
        read_marker(store)
    version = None if release is None else read_version(store, find_version(store, release, accept_partial=True))
    parent = newest_version(store)  # read after the other, so that it is no older
    require_sources(store, job, parent)
    wanted = [record for record in dead_records(store, job, version, parent) if is_wanted(record, reason)]
    shards = {shard.token: shard for shard in open_source(job.source).shards()}
    receipts = Receipts(store, job.fingerprint)
    finished = receipts.load()
    newest = {each.token: finished.receipts[each.token] for each in wanted if each.token in finished.receipts}
    present = receipts.data_present(dataclasses.replace(finished, receipts=newest))
    held = held_shards(store, parent) if version and parent else None
    job = dataclasses.replace(job, withdrawn=read_withdrawals(store))
    redactions = read_redactions(store)
    names = frozenset(shard.name for shard in shards.values())
    obstacles = Obstacles(store, shards, names, newest, present, job.withdrawn, taken_back(store, parent), held)
    parts = find_parts(job, store)

    def task_of(record: Record) -> ShardTask:
        task, last = ShardTask(shards[record.token], finished.next_generation(record.token)), newest[record.token]
        if last.status == "dead":
            return task
        return dataclasses.replace(task, replay=Replay(dead_keys(store, redactions, record, last, reason), last))

    found = in_threads(obstacles.why_not, wanted)
    skipped = [f"{record.shard} {why}." for record, why in zip(wanted, found, strict=True) if why is not None]
    todo: list[Todo] = []
    done: dict[str, Receipt] = {}
    for task in in_threads(task_of, [record for record, why in zip(wanted, found, strict=True) if why is None]):
        last = newest[task.shard.token]
        if task.replay.keys if task.replay is not None else reason in (None, last.reason):
            todo.append(with_parts(job, Todo(task, "replay"), parts))
        else:
            done[task.shard.token] = last
    replayed = [shards[token] for token in (*done, *(entry.task.shard.token for entry in todo))]
    redone = [] if version else parts_with_dead(store, parts, reason)
    return Plan(job, replayed, todo, done, [], parent, [], skipped, [], redone=redone)


def parts_with_dead(store: ObjectStore, parts: Mapping[str, Sequence[Part]], reason: str | None) -> list[str]:
    """Of shards that are not finished: parts that hold what is dead, which the next run would take as they are."""
    held = [part for folder, found in parts.items() if "-only-" not in folder for part in found]
    dead = in_threads(lambda part: any_dead(read_part(store, part), reason), held)
    return [part.path for part, found in zip(held, dead, strict=True) if found]


def any_dead(rows: pa.Table, reason: str | None) -> bool:
    dead = pc.equal(rows["status"], str(Status.DEAD))
    if reason is not None:
        dead = pc.and_(dead, pc.fill_null(pc.equal(rows["reason"], reason), False))
    return bool(pc.any(dead, min_count=0).as_py())


def newest_version(store: ObjectStore) -> Version | None:
    numbers = version_numbers(store)
    return read_version(store, numbers[-1]) if numbers else None


def dead_records(store: ObjectStore, job: Job, version: Version | None, parent: Version | None) -> Iterable[Record]:
    """The shards of a release; with none, those that are finished and in no release.

    Raises Refused where the labels of the release, or of the newest, on which a replay publishes, mean something else.
    """
    if version is None:
        return unpublished(store, job.fingerprint).get(job.fingerprint[:16], [])
    for each in (version, parent or version):
        if each.meaning != job.fingerprint:
            changes = "; ".join(explain(each, job)) or "the operator's source"
            raise Refused(
                f"release {each.version} of {store.url} holds other labels than this recipe makes ({changes}). Replay "
                "with the recipe that it was made with (`relabel show --json` has it), or `run` this one."
            )
    return read_segments(store, version.segments).values()


def is_wanted(record: Record, reason: str | None) -> bool:
    """Whether a shard has dead letters, of this reason."""
    reasons = {record.reason} if record.status == "dead" else set(dead_reasons(record))
    return bool(reasons) if reason is None else reason in reasons


def held_shards(store: ObjectStore, version: Version) -> frozenset[str]:
    """The shards of the release on which a replay publishes; raises Refused where it is recalled."""
    reason = find_recall(store, version.version)
    if reason is not None:
        raise Refused(
            f"release {version.version} of {store.url} is the newest and is recalled ({reason}); a replay would "
            "publish its labels again. `relabel revert` to a good release first."
        )
    return frozenset(EntryColumns(store, version.segments).tokens())


@dataclasses.dataclass(frozen=True)
class Obstacles:
    """What keeps a shard from being replayed."""

    store: ObjectStore
    shards: Mapping[str, Shard]
    """Of the source, by token."""
    names: frozenset[str]
    """Of these."""
    newest: Mapping[str, Receipt]
    """By token."""
    present: set[str]
    """Tokens of those whose output is in place."""
    withdrawn: Withdrawn
    taken: TakenBack
    held: frozenset[str] | None
    """Shards of the release on which the replay publishes; None where it publishes nothing."""

    def why_not(self, record: Record) -> str | None:
        """Why a shard is left as it is, or to a run; None: it is not."""
        if record.shard in self.withdrawn.shards:
            return "is withdrawn and stays as it is"
        if record.token not in self.shards:
            changed, gone = "has changed since; a run labels it anew", "is gone from the source; a run takes it out"
            return changed if record.shard in self.names else gone
        if record.token not in self.present:
            return "has lost its output; a run labels it anew"
        newest = self.newest[record.token]
        if self.withdrawn.concerns(entry_of(newest)) and self.holds_withdrawn(newest):
            return f"holds withdrawn samples: `relabel erase {self.store.url}` first, then replay it"
        if found := self.taken.among([record, newest]):
            return f"was taken back ({found[record.shard]}) and stays so"
        if self.held is not None and record.shard not in self.held:
            return "is no part of the newest release and stays as it is"
        return None

    def holds_withdrawn(self, receipt: Receipt) -> bool:
        """Whether rows of its file are withdrawn and not blank."""
        assert receipt.data is not None
        rows = decode_label_shard(get_checked(self.store, receipt.data), ["key", "reason"])
        blank = pc.fill_null(pc.equal(rows["reason"], str(Reason.WITHDRAWN)), False).to_numpy()
        return bool((self.withdrawn.rows(receipt.shard, rows["key"]) & ~blank).any())


def dead_keys(
    store: ObjectStore, redactions: Redactions, record: Record, newest: Receipt, reason: str | None
) -> frozenset[str]:
    """Samples that are dead in a record and still are in the shard's newest receipt, there with this reason."""
    keys = {letter["key"] for letter in read_letters(store, [newest], reason)}
    if record.generation != newest.generation and record.status != "dead":
        lying = record.dead_letters and redactions.current(record.dead_letters)
        keys &= {letter["key"] for letter in read_letters(store, [dataclasses.replace(record, dead_letters=lying)])}
    return frozenset(keys)


def publish_repaired(
    todo: Plan, receipts: Mapping[str, Receipt], account: Account, lease: int | None = None
) -> Outcome:
    """Commits the newest release with the replayed shards in their new state; where none changed, it stands."""
    parent = todo.parent
    assert parent is not None
    release: Version | None = parent
    if receipts:
        repaired = dataclasses.replace(
            draft(todo, receipts, account, lease), coverage=parent.coverage, source=parent.source
        )
        release = commit(todo.job.open_store(), repaired)
    return Outcome(todo, receipts, release, account)


def keep_unpublished(todo: Plan, receipts: Mapping[str, Receipt], account: Account) -> Outcome:
    """The receipts are durable; the next run publishes them, and labels parts with dead samples anew."""
    store = todo.job.open_store()
    for path in todo.redone:
        store.delete(path)
    return Outcome(todo, receipts, None, account)


def summary(outcome: Outcome) -> Replayed:
    """What became of each dead letter, from the receipts before and after."""
    samples = repaired_samples = shards = repaired_shards = other_numerics = 0
    dead: Counter[str] = Counter()
    for entry in outcome.plan.todo:
        task = entry.task
        receipt = outcome.receipts[task.shard.token]
        if task.replay is None:
            shards += 1
            repaired_shards += receipt.status != "dead"
            dead += dead_reasons(receipt) if receipt.status != "dead" else Counter([receipt.reason])
            continue
        tried, previous = len(task.replay.keys), task.replay.previous
        samples += tried
        repaired_samples += previous.dead - receipt.dead
        other_numerics += previous.numerics != receipt.numerics
        dead += dead_reasons(receipt)
    return Replayed(outcome, samples, repaired_samples, dead, shards, repaired_shards, other_numerics)
