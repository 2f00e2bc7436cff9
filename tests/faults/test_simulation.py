"""Simulation: several programs on one failing store; a seed repeats, and a broken program is caught."""

import re

import pytest

from relabel.digests import sha256
from relabel.errors import ObjectExists
from relabel.releases import commit, segments
from relabel.releases.records import encode_records
from relabel.releases.segments import Entry, SegmentRef
from relabel.storage.objects import ObjectStore
from relabel.testing import fuzz
from relabel.testing.faults import BY_NAME
from relabel.testing.simulation import simulate
from relabel.testing.watch import Violation


def test_many_seeds() -> None:
    turns, versions, failures = fuzz.play(range(80))
    assert failures == []
    assert turns > 4_000
    assert versions > 120


def test_a_seed_that_failed_once() -> None:
    """A fence older than the draft's parent, whose bytes did not come whole, was passed over."""
    assert simulate(3290).watch.versions


def test_a_seed_is_a_history() -> None:
    first, second = ([re.sub("[0-9a-f]{12,}", "", turn) for turn in simulate(3).trace] for _ in range(2))
    assert first == second
    assert any("!" in turn for seed in range(5) for turn in simulate(seed).trace)


def put_segment(store: ObjectStore, ordered: list[Entry]) -> SegmentRef:
    """As it once was: an equal segment is written over one that a release stands on."""
    data = encode_records(Entry, ordered)
    path = f"segments/{sha256(data)}.parquet"
    store.put(path, data)
    return SegmentRef(path=path, sha256=sha256(data), size_bytes=len(data), entries=len(ordered))


def trust_the_answer(store: ObjectStore, path: str, data: bytes) -> bytes:
    """A commit that takes every conflict for its own success."""
    try:
        store.create(path, data)
    except ObjectExists:
        return data
    return data


def overwrite(store: ObjectStore, path: str, data: bytes) -> bytes:
    store.put(path, data)
    return data


@pytest.mark.parametrize(
    ("module", "name", "wrong", "first"),
    [
        (commit, "settle", trust_the_answer, 9),
        (commit, "settle", overwrite, 9),
        (commit, "refuse_conflict", lambda change, held, run_id: None, 42),
        (commit, "refuse_fenced", lambda draft, entry: None, 333),
    ],
    ids=["conflict trusted", "version overwritten", "conflicts ignored", "fences ignored"],
)
def test_a_broken_program_is_caught(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, wrong: object, first: int
) -> None:
    monkeypatch.setattr(module, name, wrong)
    failures = fuzz.play(range(first, first + 1))[2]
    assert failures
    assert "versions" in failures[0][1] or "version" in failures[0][1] or "release" in failures[0][1]


def test_a_segment_that_is_written_over_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a torn write shows it, which is rare among all faults."""
    faults = (BY_NAME["crash before"], BY_NAME["torn write"])
    simulate(174, faults)
    monkeypatch.setattr(segments, "write_segment", put_segment)
    with pytest.raises(Violation, match="segments/.* was changed, and a visible release reaches it"):
        simulate(174, faults)


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commit, "settle", overwrite)
    assert fuzz.main(["--first", "9", "--seeds", "2", "--processes", "1"]) == 1
    assert "repeat it: make fuzz FIRST=9 SEEDS=1" in capsys.readouterr().out
