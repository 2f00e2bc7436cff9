"""Store faults: every operation of a run fails in every way; what is visible stays right, and a repeat finishes."""

import dataclasses
from pathlib import Path

import pytest
from store_run import StoreJob, make_run, run, survived, until_done, write_source

from relabel.releases.stored import one_request_at_a_time
from relabel.releases.verify import verify
from relabel.releases.versions import read_history
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store
from relabel.testing.faults import (
    FAULTS,
    UNAVAILABLE,
    Fault,
    FaultyStore,
    OperatedStore,
    Operation,
)
from relabel.testing.memory import MemoryStore
from relabel.testing.watch import Watch

ALL = (*FAULTS, UNAVAILABLE)
SAMPLED_EVERY = {"local": 23, "s3": 43}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("faults") / "source")


@pytest.fixture(autouse=True)
def in_order(request: pytest.FixtureRequest) -> None:
    """Requests have numbers only where they follow each other."""
    ordered = one_request_at_a_time()
    ordered.__enter__()
    request.addfinalizer(lambda: ordered.__exit__(None, None, None))


class Recorder(OperatedStore):
    """Remembers what was asked."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.kinds: list[str] = []

    def operate(self, operation: Operation) -> object:
        self.kinds.append(operation.kind)
        return super().operate(operation)


@dataclasses.dataclass
class Start:
    """A store with one release of one shard, and what an undisturbed run makes of it."""

    store: MemoryStore
    kinds: list[str]
    content_digest: str


@pytest.fixture(scope="module")
def start(source: Path) -> Start:
    with one_request_at_a_time():
        store = MemoryStore()
        run(make_run(source, store, "before", "a.tar"))
        recorder = Recorder(store.copy())
        release = run(make_run(source, recorder, "ours")).release
        assert release is not None
    return Start(store, recorder.kinds, release.content_digest)


class Watched(OperatedStore):
    """Checks the whole store after every operation that went through it."""

    def __init__(self, inner: ObjectStore, watch: Watch) -> None:
        super().__init__(inner)
        self.watch = watch

    def operate(self, operation: Operation) -> object:
        try:
            return super().operate(operation)
        finally:
            self.watch.check()


def strikes(start: Start, fault: Fault) -> list[int]:
    return [number for number, kind in enumerate(start.kinds) if kind in fault.strikes]


def check_end(job: StoreJob, store: ObjectStore, content_digest: str) -> None:
    """After a repeat without faults: one release per run id, each verifies, and the content is an undisturbed run's."""
    outcome, _ = until_done(dataclasses.replace(job, objects=store))
    assert outcome.release is not None
    assert outcome.release.content_digest == content_digest
    assert [version.run_id for version in read_history(store)] == ["before", "ours"]


@pytest.mark.parametrize("fault", ALL, ids=str)
def test_every_operation(source: Path, start: Start, fault: Fault) -> None:
    numbers = strikes(start, fault)
    assert numbers
    for at in numbers:
        memory = start.store.copy()
        watch = Watch(memory)
        faulty = FaultyStore(Watched(memory, watch), at, fault, delay=at % 7)
        survived(make_run(source, faulty, "ours"))
        assert faulty.struck is not None
        # What is still on its way lands while the run is repeated.
        faulty.at = -1
        job = make_run(source, faulty, "ours")
        until_done(job)
        faulty.land_all()
        watch.check()
        check_end(job, memory, start.content_digest)
        watch.check()


def test_the_readme_says_how_many_cases(start: Start, root: Path) -> None:
    cases = sum(len(strikes(start, fault)) for fault in ALL)
    said = f"`test_store_faults.py`: {len(start.kinds)} requests of a run x {len(ALL)} faults, {cases} cases,"
    assert said in (root / "README.md").read_text(encoding="utf-8"), said


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_on_a_real_store(source: Path, start: Start, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    root = str(tmp_path / "stores") if kind == "local" else request.getfixturevalue("s3_root")
    cases = [(fault, at) for fault in ALL for at in strikes(start, fault)][:: SAMPLED_EVERY[kind]]
    for case, (fault, at) in enumerate(cases):
        real = open_store(f"{root}/{case}")
        run(make_run(source, real, "before", "a.tar"))
        faulty = FaultyStore(real, at, fault, delay=at % 7)
        survived(make_run(source, faulty, "ours"))
        assert verify(real, "latest", "full").problems == []
        faulty.land_all()
        check_end(make_run(source, real, "ours"), real, start.content_digest)
        assert verify(real, "latest", "full").problems == []
