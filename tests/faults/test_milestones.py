"""Milestones: partial releases of a run that goes on, which readers must accept; `latest` stays what is complete."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import store_run
from store_run import PART_ROWS, Length, StoreJob, label, make_run, replay, run, write_source

from pipelines.account import Account
from pipelines.midway import Midway
from pipelines.milestones import MilestonePublisher
from pipelines.outcome import Outcome, draft, publish
from pipelines.plan import plan
from pipelines.recipe import Milestones
from pipelines.replay import plan_replay, publish_repaired
from relabel.errors import Refused
from relabel.releases.commit import commit
from relabel.releases.recalls import write_recall
from relabel.releases.receipts import Receipt
from relabel.releases.release import Store
from relabel.releases.revert import revert
from relabel.releases.verify import verify
from relabel.releases.versions import read_history
from relabel.storage.objects import ObjectStore
from relabel.testing import simulation
from relabel.testing.faults import UNAVAILABLE, FaultyStore, Operation
from relabel.testing.memory import MemoryStore
from relabel.testing.simulation import Seat, simulate
from relabel.testing.toy import draft as toy_draft
from relabel.testing.toy import finish_shards
from relabel.testing.watch import Watch


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("milestones") / "source")


def going(job: StoreJob, stop_after: int = 99) -> tuple[dict[str, Receipt], Midway]:
    """A run up to its n-th shard, as `pipelines.run` does it."""
    todo = plan(job)
    receipts = dict(todo.done)
    midway = Midway(todo, receipts, draft)
    midway.check()
    for number, receipt in enumerate(label(job, todo), 1):
        receipts[receipt.token] = receipt
        if not midway.goes_on(receipt) or number == stop_after:
            break
    return receipts, midway


def finish(job: StoreJob, receipts: Mapping[str, Receipt]) -> Outcome:
    return publish(dataclasses.replace(plan(job), job=job), receipts, Account(), draft)


def test_milestones_are_partial_and_the_last_release_is_not(source: Path) -> None:
    store = MemoryStore()
    watch = Watch(store)
    job = make_run(source, store, "long", publish="30%")
    receipts, midway = going(job)
    assert [version.run_id for version in midway.milestones.published] == ["long.m1", "long.m2"]
    assert [round(version.coverage, 2) for version in read_history(store)] == [0.33, 0.67]
    with pytest.raises(Refused, match=r"release 2 .* partial: it covers 66\.7%.*accept_partial=True"):
        Store(store).release()
    with pytest.raises(Refused, match="partial"):
        Store(store).release(1)
    assert Store(store).release(accept_partial=True).number == 2
    assert verify(store, "latest", "full").release == 2
    outcome = finish(job, receipts)
    assert outcome.release is not None
    assert (outcome.release.version, outcome.release.coverage, outcome.published) == (3, 1.0, True)
    assert Store(store).release().number == 3
    undisturbed = MemoryStore()
    assert run(make_run(source, undisturbed)).release.content_digest == outcome.release.content_digest  # type: ignore[union-attr]
    assert run(make_run(source, store, "nightly")).published is False
    watch.check()


def test_a_killed_run_is_gone_on_with_and_stays_partial_until_all_is_done(source: Path) -> None:
    store = MemoryStore()
    going(make_run(source, store, "killed", publish="30%"), stop_after=2)
    assert [version.run_id for version in read_history(store)] == ["killed.m1", "killed.m2"]
    job = make_run(source, store, "again", publish="30%")
    receipts, midway = going(job)
    assert midway.milestones.published == []
    assert finish(job, receipts).release.coverage == 1.0  # type: ignore[union-attr]


def test_another_meaning_does_not_replace_what_is_complete(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    run(make_run(source, store, "old"))
    monkeypatch.setattr(Length, "version", 2)
    job = make_run(source, store, "new", publish="30%", gate={"expect_change": "another version"})
    receipts, midway = going(job)
    assert len(midway.milestones.published) == 2
    assert Store(store).release().number == 1
    assert Store(store).release(accept_partial=True).number == 3
    assert Store(store).release(3, accept_partial=True).counts.shards == 2
    assert finish(job, receipts).release.version == 4  # type: ignore[union-attr]
    assert Store(store).release().number == 4


def test_where_the_source_shrinks_to_what_is_published_the_release_becomes_complete(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "source")
    store = MemoryStore()
    going(make_run(folder, store, "killed", publish="30%"), stop_after=1)
    (folder / "b.tar").unlink()
    (folder / "broken.tar").unlink()
    release = run(make_run(folder, store, "small")).release
    assert release is not None
    assert (release.version, release.coverage) == (2, 1.0)
    assert release.content_digest == read_history(store)[0].content_digest


@pytest.mark.parametrize(
    ("take_back", "message"),
    [
        (lambda store: write_recall(store, 2, "rubbish"), "release 2 is recalled: rubbish"),
        (lambda store: revert(store, 1), "release 3 went back to 1"),
    ],
)
def test_what_is_taken_back_of_a_run_at_work_it_does_not_publish_again(
    source: Path, take_back: Callable[[ObjectStore], object], message: str
) -> None:
    store = MemoryStore()
    run(make_run(source, store, "first", shards="broken.tar"))
    job = make_run(source, store, "long", publish="30%")
    todo = plan(job)
    receipts = dict(todo.done)
    midway = Midway(todo, receipts, draft)
    first, *rest = label(job, todo)
    receipts[first.token] = first
    assert midway.goes_on(first)
    assert read_history(store)[-1].run_id == "long.m1"
    take_back(store)
    held = len(read_history(store))
    receipts |= {receipt.token: receipt for receipt in rest}
    with pytest.raises(Refused, match=message):
        publish(todo, receipts, Account(), draft)
    with pytest.raises(Refused, match=message):
        midway.milestones.publish(store, 2, lambda: draft(todo, receipts))
    assert len(read_history(store)) == held


def test_what_breaks_the_budget_is_no_milestone(source: Path) -> None:
    store = MemoryStore()
    allowed = {"max_fraction": 0.34}
    _, midway = going(make_run(source, store, "bad", publish="30%", dead_letters={**allowed, "allow": 0}))
    assert midway.milestones.published == []
    assert read_history(store) == []


def test_a_replay_keeps_the_coverage(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    going(make_run(source, store, "killed", publish="30%"), stop_after=2)
    monkeypatch.setattr(Length, "mended", True)
    monkeypatch.setattr(store_run, "_parts", {})
    done = replay(make_run(source, store, "replay"))
    assert (done.repaired_samples, PART_ROWS) == (2, 2)
    assert [round(version.coverage, 2) for version in read_history(store)] == [0.33, 0.67, 0.67]


def test_a_store_that_is_away_for_a_while_costs_no_more_than_a_milestone(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away(FaultyStore):
        """Takes no version while it is away."""

        away = True

        def operate(self, operation: Operation) -> object:
            self.at = operation.number if self.away and operation.path.startswith("versions/") else -1
            return super().operate(operation)

    store = Away(MemoryStore(), -1, UNAVAILABLE)
    job = make_run(source, store, "long", publish="30%")
    store.away = False
    todo = plan(job)
    receipts = dict(todo.done)
    midway = Midway(todo, receipts, draft)
    for number, receipt in enumerate(label(job, todo)):
        store.away = number == 0
        receipts[receipt.token] = receipt
        assert midway.goes_on(receipt)
    assert "relabel: a milestone is not published yet (" in capsys.readouterr().err
    assert [(each.run_id, round(each.coverage, 2)) for each in midway.milestones.published] == [("long.m1", 0.67)]


def test_a_replay_on_what_was_completed_meanwhile_stays_complete(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    job = make_run(source, store, "long", publish="30%")
    receipts, _ = going(job)
    monkeypatch.setattr(Length, "mended", True)
    monkeypatch.setattr(store_run, "_parts", {})
    again = make_run(source, store, "replay")
    todo = plan_replay(again, "latest")
    replayed = dict(todo.done) | {receipt.token: receipt for receipt in label(again, todo)}
    complete = publish(dataclasses.replace(plan(job), job=job), receipts, Account(), draft).release
    release = publish_repaired(todo, replayed, Account()).release
    assert release is not None
    assert complete is not None
    assert (todo.parent.coverage < 1.0, complete.coverage, release.coverage) == (True, 1.0, 1.0)  # type: ignore[union-attr]
    assert release.version == complete.version + 1


def test_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pipelines.milestones.time.monotonic", lambda: now[0])
    publisher = MilestonePublisher(Milestones(every="2h"), 10, 0)
    now[0] = 7199.0
    assert not publisher.due(5)
    now[0] = 7200.0
    assert publisher.due(5)
    assert not publisher.due(0)
    assert not publisher.due(10)
    assert not MilestonePublisher(None, 10, 0).due(5)


def long_run(seat: Seat) -> None:
    """A run that publishes after each shard, of the teacher that others use or of a new one."""
    world, teacher = seat.world, seat.random.choice(simulation.TEACHERS)

    def work(attempt: int) -> None:
        numbers = simulation.version_numbers(seat)
        source = dict(world.source)
        for number in range(1, len(source)):
            some = dict(list(source.items())[:number])
            receipts = finish_shards(seat, seat.name, some, teacher)
            whole = toy_draft(f"{seat.name}-{attempt}.m{number}", numbers[-1] if numbers else 0, receipts, teacher)
            partial = dataclasses.replace(whole, num_source_shards=len(source), coverage=number / len(source))
            world.drafts.setdefault(partial.run_id, []).append(partial)
            commit(seat, partial)

    simulation.tried(seat, work)


def reads_complete(store: ObjectStore) -> int:
    return sum(not version.partial for version in read_history(store))


def test_milestones_among_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated histories in which long runs publish milestones; every write is watched, readers read `latest`."""
    reader = simulation.reader

    def patient_reader(seat: Seat) -> None:
        try:
            reader(seat)
        except Refused as error:
            assert "partial" in str(error)

    monkeypatch.setitem(simulation.ACTORS, "reader", (patient_reader, 1))
    monkeypatch.setitem(simulation.ACTORS, "long_run", (long_run, 16))
    partial = complete = 0
    for seed in range(24):
        world = simulate(seed)
        complete += reads_complete(world.store)
        partial += len(read_history(world.store)) - reads_complete(world.store)
        assert not read_history(world.store)[-1].partial
    assert partial > 8
    assert complete > 12
