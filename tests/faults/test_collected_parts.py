"""A run that starts while `collect --apply` deletes takes none of the parts named, and loses none that it writes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from store_run import StoreJob, label, labelled_parts, make_run, write_source

from pipelines.account import Account
from pipelines.outcome import draft, publish
from pipelines.plan import Plan, plan
from pipelines.writing import write_part
from relabel.releases.collect import DEFAULT_GRACE_SECONDS, apply_plan, drop_plan, plan_collect
from relabel.releases.stored import one_request_at_a_time
from relabel.releases.verify import verify
from relabel.storage.objects import ObjectStore
from relabel.testing.faults import OperatedStore, Operation
from relabel.testing.memory import MemoryStore

Work = Callable[[], None]


class Disturbed(OperatedStore):
    """Before its first deletion somebody does something else with the store."""

    def __init__(self, inner: ObjectStore, work: Work) -> None:
        super().__init__(inner)
        self._work: Work | None = work

    def operate(self, operation: Operation) -> object:
        work = self._work
        if operation.kind == "delete" and operation.path.startswith("parts/") and work is not None:
            self._work = None
            work()
        return super().operate(operation)


@pytest.fixture(autouse=True)
def in_order(request: pytest.FixtureRequest) -> None:
    ordered = one_request_at_a_time()
    ordered.__enter__()
    request.addfinalizer(lambda: ordered.__exit__(None, None, None))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def leave_parts(job: StoreJob) -> list[str]:
    """What a run that was killed before it merged its only shard leaves; their paths."""
    events = [write_part(job, job.open_store(), part) for part in labelled_parts(job, plan(job).todo[0].task)]
    return [event.part.path for event in events if event.part is not None]


def planned_away(store: MemoryStore) -> str:
    """The plan that names all old parts, old enough to be applied."""
    store.now += DEFAULT_GRACE_SECONDS
    found = plan_collect(store)
    store.now += DEFAULT_GRACE_SECONDS
    return found.id


def check_finishes(job: StoreJob, todo: Plan) -> None:
    receipts = {receipt.token: receipt for receipt in label(job, todo)}
    release = publish(todo, receipts, Account(), draft).release
    assert release is not None
    assert release.counts.samples == 3
    assert verify(job.open_store(), release.version, "full").problems == []


def test_a_plan_that_is_being_applied_gives_no_parts(source: Path) -> None:
    store = MemoryStore()
    job = make_run(source, store, "ours", "b.tar")
    assert len(leave_parts(job)) == 2
    made: list[Plan] = []
    apply_plan(Disturbed(store, lambda: made.append(plan(job))), planned_away(store))
    [todo] = made
    assert not todo.todo[0].task.finished_parts
    check_finishes(job, todo)


def test_parts_that_were_written_again_are_not_deleted(source: Path) -> None:
    """Equal parts have equal names, so a run may write anew what the plan names."""
    store = MemoryStore()
    job = make_run(source, store, "ours", "b.tar")
    parts = leave_parts(job)
    name = planned_away(store)

    def write_again() -> None:
        for path in parts:
            store.put(path, store.get(path))

    done = apply_plan(Disturbed(store, write_again), name)
    assert ([info.path for info in done.deleted], done.young) == (parts[:1], tuple(parts[1:]))
    assert plan(job).todo[0].task.finished_parts.keys() == {2}


def test_a_plan_that_was_given_up_gives_them_back(source: Path) -> None:
    store = MemoryStore()
    job = make_run(source, store, "ours", "b.tar")
    leave_parts(job)
    name = planned_away(store)
    assert not plan(job).todo[0].task.finished_parts
    drop_plan(store, name)
    todo = plan(job)
    assert todo.todo[0].task.finished_parts.keys() == {0, 2}
    check_finishes(job, todo)
