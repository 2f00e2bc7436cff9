"""Again: samples that are labelled twice: some of the last release's before anything else, some of the run's own alone.

The first show that an engine or a service labels otherwise than it did; the second that a label depends on what stood
beside it. What they find is judged by the gate; nothing of it is written.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from relabel.digests import Json, sha256
from relabel.errors import BadShard, ObjectMissing, Refused, StoreCorrupt
from relabel.labels.shard_file import decode_label_shard
from relabel.reasons import Status
from relabel.releases.receipts import Receipt
from relabel.releases.records import from_json, to_json
from relabel.releases.stored import get_checked
from relabel.storage.objects import ObjectStore

from .gate_checks import NUM_EXAMPLES, Check
from .gate_policy import Gate, declared_now
from .job import Job, ShardTask
from .opening import open_source
from .parts import Header, judge, part_table, prepare_judged
from .plan import Plan, differences
from .reading import well_formed
from .same import repeats, sameness

SHARDS = 2
SPAN = 64
"""Rows at the beginning of a shard among which its samples are drawn, so that little of it is read."""
FEWEST = 3
"""Samples, below which it is told and not judged."""


class Found(NamedTuple):
    """How far two labels of one sample agree."""

    kind: str
    """replay | singly."""
    label: str
    shard: str
    key: str
    value: float
    """In [0, 1]."""


def tasks_again(todo: Plan) -> list[ShardTask]:
    """Shards of which some samples are labelled again first; none where the labels of the last release mean another
    thing, or there is none.
    """
    gate, job, parent = todo.job.recipe.gate, todo.job, todo.parent
    if gate.off or not gate.replay or parent is None or parent.meaning != job.fingerprint or not todo.todo:
        return []
    held = [shard for shard in todo.shards if (receipt := todo.done.get(shard.token)) and receipt.data and receipt.ok]
    drawn = sorted(held, key=lambda shard: sha256(f"{job.run_id}{shard.name}".encode()))[:SHARDS]
    rows = -(-gate.replay // max(1, len(drawn)))
    return [ShardTask(shard, again=todo.done[shard.token], check=rows) for shard in drawn]


def tasks_checked(tasks: Sequence[ShardTask], gate: Gate) -> dict[str, int]:
    """Token -> how many of its samples are labelled once more, each alone."""
    if gate.off or not gate.singly:
        return {}
    drawn = sorted(task.shard.token for task in tasks if task.replay is None)[:SHARDS]
    return dict.fromkeys(drawn, -(-gate.singly // max(1, len(drawn))))


def read_again(job: Job, task: ShardTask) -> Iterator[pa.Table]:
    """The one part of a shard of the last release: the samples that are drawn, as they lie in the source now."""
    assert task.again is not None
    shard = task.shard
    header = Header(shard.name, shard.size, shard.etag, shard.token, task.generation, last=True)
    header.again = to_json(task.again)
    wanted = drawn_samples(job, task.again, task.check)
    rows = []
    try:
        for sample in well_formed(open_source(job.source).read(shard)) if wanted else ():
            row, picked = judge(job, sample, shard.name)
            if wanted.pop(row.key, None) == row.sample_digest and row.status is Status.OK:
                rows.append(prepare_judged(job, row, picked))
            if not wanted:
                break
    except BadShard:
        rows = []  # a run over the shard finds that out, too, and says so
    header.rows = len(rows)
    yield part_table(job, header, rows)


def drawn_samples(job: Job, receipt: Receipt, count: int) -> dict[str, bytes]:
    """Key -> digest of some labelled samples at the beginning of a label shard: other ones in every run."""
    assert receipt.data is not None
    try:
        table = decode_label_shard(get_checked(job.open_store(), receipt.data), ["key", "sample_digest", "status"])
    except (StoreCorrupt, ObjectMissing):
        return {}  # lost since the plan: `verify` names it, and the next run labels it anew
    rows = [row for row in table.slice(0, SPAN).to_pylist() if row["status"] == Status.OK]
    chosen = random.Random(f"{job.run_id}{receipt.shard}").sample(rows, min(count, len(rows)))  # noqa: S311
    return {row["key"]: row["sample_digest"] for row in chosen}


def compare_again(job: Job, store: ObjectStore, header: Header, labels: pa.Table) -> None:
    """Puts into the header how far each label agrees with the last release's; `labels` are those of the part's rows."""
    receipt = from_json(Receipt, header.again, "header")
    assert receipt.data is not None
    if not len(labels):
        return
    lying = decode_label_shard(get_checked(store, receipt.data)).slice(0, SPAN)
    before = {row["key"]: row for row in lying.filter(pc.is_in(lying["key"], labels["key"].unique())).to_pylist()}
    for labeler in job.labelers:
        contract = labeler.writes()
        header.found[labeler.label] = [
            (row["key"], sameness(contract, before[row["key"]], row) if row["status"] == Status.OK else 0.0)
            for row in labels.to_pylist()
        ]


class Twice:
    """What is found of samples that were labelled twice, by a run and by those before it whose labels it publishes."""

    def __init__(self, todo: Plan, before: Sequence[Json] = ()) -> None:
        """`before`: what earlier runs found, as `to_json` has it."""
        self.job, self.parent = todo.job, todo.parent
        self._found: list[Found] = []
        self._changes: dict[str, list[str]] = {}
        """Label -> what of its numerics is not as it was."""
        self._before = [Found(*each) for told in before for each in told["found"]]
        self._changes_before = {label: each for told in before for label, each in told["changes"].items()}

    def add(self, header: Header) -> None:
        for label, values in header.found.items():
            kind = "singly" if header.again is None else "replay"
            self._found += [Found(kind, label, header.shard, key, value) for key, value in values]
            if header.again is not None:
                before = header.again["numerics"].get(label)
                if before is not None:  # else the shard was computed in several ways
                    self._changes[label] = differences(before, header.numerics.get(label))

    def to_json(self) -> Json:
        """What this run found, so that it is judged also where another one publishes; any thread may ask."""
        parent = self.parent.number if self.parent else 0
        return {"parent": parent, "found": [list(each) for each in self._found], "changes": dict(self._changes)}

    def checks(self) -> list[Check]:
        """By kind and label."""
        wanted = {"replay": self.job.recipe.gate.replay, "singly": self.job.recipe.gate.singly}
        before = [each for each in self._before if wanted[each.kind]]
        return self._checks([*before, *self._found], {**self._changes_before, **self._changes})

    def _checks(self, found: Sequence[Found], changes: Mapping[str, Sequence[str]]) -> list[Check]:
        groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
        for each in found:
            groups[each.kind, each.label].append(each)
        return [self._check(*of, each, changes.get(of[1])) for of, each in sorted(groups.items())]

    def require_replayed(self) -> None:
        """Raises Refused where the last release's samples get other labels now, whatever they got in runs before."""
        checks = self._checks(self._found, self._changes)
        refused = [check for check in checks if check.name == "replay" and check.refuses]
        if refused:
            said = "\n".join(f"  {check.named}: {check.text}" for check in refused)
            raise Refused(
                f"samples of the last release get other labels now, so the rest was not labelled:\n{said}\n"
                "Nothing was published. Bring back the engine, service or libraries that made them, or say that the "
                "change is meant: `gate: {expect_change: ...}`, or --set gate.expect_change=..."
            )

    def _check(self, kind: str, label: str, found: Sequence[Found], changes: Sequence[str] | None) -> Check:
        gate = self.job.recipe.gate
        values = [each.value for each in found]
        mean, limit = sum(values) / len(values), max(0.0, gate.same - 1 / len(values))
        labeler = next(each for each in self.job.labelers if each.label == label)
        told = "" if repeats(labeler) else " Its engine does not promise to repeat itself: only told."
        if kind == "replay":
            assert self.parent is not None
            how = f", computed otherwise ({'; '.join(changes[:3])})" if changes else ", computed as then"
            what = f"samples of release {self.parent.number} get the same label again{'' if changes is None else how}"
        else:
            what = "samples get the same label alone as among others"
        worst = sorted((each for each in found if each.value < 1), key=lambda each: each.value)[:NUM_EXAMPLES]
        examples = [{"shard": each.shard, "key": each.key, "agreement": round(each.value, 4)} for each in worst]
        declared = kind == "replay" and declared_now(gate, self.parent.gate if self.parent else None) is not None
        return Check(
            kind, label, mean >= limit,
            f"{sum(value == 1 for value in values)} of {len(values)} {what}; mean agreement {mean:.3f}, at least "
            f"{limit:.3f} must be.{told}", mean, limit, examples,
            judged=not told and not declared and len(values) >= FEWEST,
        )  # fmt: skip
