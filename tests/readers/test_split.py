"""Splitting: every sample exactly once an epoch over all streams, and after any interruption and change of streams."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from labelled_shards import Publisher, write_tars

import relabel
from relabel.errors import Refused, UsageError
from relabel.readers import dataset as datasets
from relabel.readers.dealing import Deal, Stage, after_batches, left_after, stream_of
from relabel.readers.positions import Positions
from relabel.readers.shuffle import Shuffle

WORLDS, WORKERS = (1, 2, 3, 7), (0, 2, 3)
COMBINATIONS = list(itertools.product(WORLDS, WORKERS))
EVERYTHING = [f"{index:05d}" for index in range(51)]


def in_worker(monkeypatch: pytest.MonkeyPatch, number: int, workers: int) -> None:
    """What a DataLoader tells a dataset in one of its workers."""
    monkeypatch.setattr(datasets, "worker", lambda: (number, max(1, workers)))


class Loader:
    """All workers of all ranks in this process: as a DataLoader with batches of one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, release: relabel.Release, world: int, workers: int,
                 source: Any = None, **options: Any) -> None:  # fmt: skip
        self.monkeypatch, self.world, self.workers = monkeypatch, world, workers
        self.streams = [
            release.dataset(source, columns=["mark"], decode=False, rank=rank, world=world, **options)
            for rank in range(world)
            for _ in range(max(1, workers))
        ]

    def load(self, state: Any) -> None:
        for stream in self.streams:
            stream.load_state_dict(state)

    def read(self, epoch: int | None = None, stop: Sequence[int] | None = None) -> list[list[str]]:
        """The keys of every stream, of its first `stop` samples."""
        found = []
        for number, stream in enumerate(self.streams):
            if epoch is not None:
                stream.set_epoch(epoch)
            in_worker(self.monkeypatch, number % max(1, self.workers), self.workers)
            samples = iter(stream)
            if stop is not None:
                samples = itertools.islice(samples, stop[number])
            found.append([sample["__key__"] for sample in samples])
        return found

    def states(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(json.dumps([stream.state_dict() for stream in self.streams]))
        return found


@pytest.mark.parametrize(("world", "workers"), COMBINATIONS)
def test_every_sample_once_over_all_streams(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release, world: int, workers: int
) -> None:
    loader = Loader(monkeypatch, release, world, workers, shuffle=8)
    ranks = []
    for epoch in (0, 1):
        streams = loader.read(epoch)
        counts = Counter(itertools.chain(*streams))
        assert set(counts.values()) == {1}
        assert len(EVERYTHING) - sum(counts.values()) == 51 % world, "drop leaves out at most world - 1"
        assert all(streams)
        width = max(1, workers)
        ranks = [list(itertools.chain(*streams[rank * width : (rank + 1) * width])) for rank in range(world)]
        assert {len(rank) for rank in ranks} == {51 // world} == {len(stream) for stream in loader.streams}
        sizes = [tuple(map(len, streams[rank * width : (rank + 1) * width])) for rank in range(world)]
        assert len(set(sizes)) == 1, "the same on every rank"
    again = Loader(monkeypatch, release, world, workers, shuffle=8)
    assert list(itertools.chain(*again.read(1))) == list(itertools.chain(*ranks))
    assert again.read(2) != again.read(1)


@pytest.mark.parametrize(("world", "workers"), COMBINATIONS)
def test_killed_at_random_and_gone_on(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release, world: int, workers: int
) -> None:
    """With as many streams: exactly what would have come, in order. Twice over."""
    chance = random.Random(world * 10 + workers)
    whole = Loader(monkeypatch, release, world, workers, shuffle=8).read(3)
    first = Loader(monkeypatch, release, world, workers, shuffle=8)
    stops = [chance.randint(0, len(stream)) for stream in whole]
    before = first.read(3, stops)
    assert before == [stream[:stop] for stream, stop in zip(whole, stops, strict=True)]
    second = Loader(monkeypatch, release, world, workers, shuffle=8)
    for stream, state in zip(second.streams, first.states(), strict=True):
        stream.load_state_dict(state)
    further = [chance.randint(0, len(stream) - stop) for stream, stop in zip(whole, stops, strict=True)]
    between = second.read(None, further)
    third = Loader(monkeypatch, release, world, workers, shuffle=8)
    for stream, state in zip(third.streams, second.states(), strict=True):
        assert state["epoch"] == 3
        stream.load_state_dict(state)
    after = third.read()
    assert [a + b + c for a, b, c in zip(before, between, after, strict=True)] == whole


@pytest.mark.parametrize(("world", "workers"), COMBINATIONS)
def test_gone_on_with_other_streams(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release, world: int, workers: int
) -> None:
    """Through three numbers of ranks and workers; nothing comes twice, at most world - 1 never."""
    chance = random.Random(world * 10 + workers)
    first = Loader(monkeypatch, release, world, workers, shuffle=8)
    found = list(itertools.chain(*first.read(1, [chance.randint(0, 9) for _ in first.streams])))
    states = first.states()
    for next_world, next_workers in (chance.choice(COMBINATIONS), chance.choice(COMBINATIONS), (2, 2)):
        loader = Loader(monkeypatch, release, next_world, next_workers, shuffle=8)
        loader.load(states)
        found += itertools.chain(*loader.read(None, [chance.randint(0, 2) for _ in loader.streams]))
        states = loader.states()
    last = Loader(monkeypatch, release, 1, 0, shuffle=8)
    last.load(states)
    found += last.read()[0]
    assert len(found) == len(set(found))
    assert len(found) >= 51 - 6, "where all streams of a stage end, at most world - 1 samples are dropped"


def test_on_an_object_store(monkeypatch: pytest.MonkeyPatch, s3_root: str, photos: list[tuple[bytes, int]]) -> None:
    """In every combination killed at random and gone on, with as many streams or with others."""
    write_tars(f"{s3_root}/media", photos, (9, 14))
    release = Publisher(f"{s3_root}/store", {"path": f"{s3_root}/media/*.tar"}).publish()
    for number, (world, workers) in enumerate(COMBINATIONS):
        chance = random.Random(number)
        loader = Loader(monkeypatch, release, world, workers, shuffle=4, remainder="exact")
        before = loader.read(2, [chance.randint(0, 23 // len(loader.streams)) for _ in loader.streams])
        streams = (world, workers) if number % 2 else (3, 0)
        other = Loader(monkeypatch, release, *streams, shuffle=4, remainder="exact")
        other.load(loader.states())
        assert sorted(itertools.chain(*before, *other.read())) == EVERYTHING[:23]


def test_pad_gives_every_rank_as_many_and_nothing_less(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release
) -> None:
    streams = Loader(monkeypatch, release, 7, 2, remainder="pad").read()
    ranks = [streams[at] + streams[at + 1] for at in range(0, 14, 2)]
    assert {len(rank) for rank in ranks} == {8}
    counts = Counter(itertools.chain(*ranks))
    assert sorted(counts) == EVERYTHING
    assert sum(counts.values()) == 56


def test_exact_gives_each_once(monkeypatch: pytest.MonkeyPatch, release: relabel.Release) -> None:
    loader = Loader(monkeypatch, release, 7, 3, remainder="exact", shuffle=0)
    assert list(itertools.chain(*loader.read())) == EVERYTHING
    assert sum(len(stream) for stream in loader.streams[::3]) == 51


def test_workers_get_whole_batches(monkeypatch: pytest.MonkeyPatch, release: relabel.Release) -> None:
    streams = Loader(monkeypatch, release, 2, 3, batch_size=4).read()
    assert [len(stream) for stream in streams] == [12, 8, 5, 12, 8, 5]


def test_a_state_is_bound_to_what_it_is_of(
    release: relabel.Release, labelled_tars: Path, tars: Path, tmp_path: Path
) -> None:
    state = release.dataset(columns=["mark"]).state_dict()
    other = Publisher(
        str(tmp_path / "store"), {"path": str(tars / "*.tar")}, teacher="other", labels=["mark"]
    ).publish()
    for made, said in (
        (other.dataset(), "content_digest"),
        (release.dataset(seed=1), "of seed 0, the dataset of 1"),
        (release.dataset(shuffle=3), "of shuffle 1000"),
    ):
        with pytest.raises(Refused, match=said):
            made.load_state_dict(state)
    for broken in ({}, {**state, "format": 9}, {"a": 1}):
        with pytest.raises(UsageError, match="not a state of format 1"):
            release.dataset().load_state_dict(broken)
    with pytest.raises(UsageError, match="not a state of a dataset"):
        release.dataset().load_state_dict({**state, "stages": [{"deal": {}}]})


def test_withdrawing_makes_states_of_before_refused(tars: Path, tmp_path: Path) -> None:
    release = Publisher(str(tmp_path / "store"), {"path": str(tars / "*.tar")}, labels=["mark"]).publish()
    state = release.dataset().state_dict()
    relabel.open(tmp_path / "store").withdraw({"train-00.tar": ["00003"]}, "asked for")
    with pytest.raises(Refused, match="Begin a new epoch with set_epoch"):
        relabel.open(tmp_path / "store").release().dataset().load_state_dict(state)


def test_a_state_of_one_stream_does_not_do_for_others(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release
) -> None:
    loader = Loader(monkeypatch, release, 1, 3)
    loader.read(0, [2, 2, 2])
    other = Loader(monkeypatch, release, 1, 2)
    other.load(loader.states()[0])
    with pytest.raises(UsageError, match="give load_state_dict a list of the states of all streams"):
        other.read()
    with pytest.raises(UsageError, match=r"streams \[1\] are missing"):
        other.load([loader.states()[0], loader.states()[2]])


def test_states_of_one_rank_do_for_all_where_training_is_in_step(
    monkeypatch: pytest.MonkeyPatch, release: relabel.Release
) -> None:
    loader = Loader(monkeypatch, release, 3, 2)
    found = list(itertools.chain(*loader.read(0, [5, 4] * 3)))
    last = Loader(monkeypatch, release, 1, 0)
    last.load(loader.states()[:2])
    assert sorted(found + last.read()[0]) == EVERYTHING


def test_a_finished_epoch_has_nothing_left(monkeypatch: pytest.MonkeyPatch, release: relabel.Release) -> None:
    loader = Loader(monkeypatch, release, 2, 0)
    loader.read(4)
    last = Loader(monkeypatch, release, 1, 0)
    last.load(loader.states())
    assert last.read() == [[]]
    assert len(last.read()[0]) == 51, "a state is used up by one iteration"


def test_set_epoch_forgets_a_state_of_another(monkeypatch: pytest.MonkeyPatch, release: relabel.Release) -> None:
    loader = Loader(monkeypatch, release, 1, 0)
    loader.read(4, [20])
    other = Loader(monkeypatch, release, 1, 0)
    other.load(loader.states())
    assert len(other.streams[0]) == 31
    assert len(other.read(4)[0]) == 31
    other.load(loader.states())
    assert len(other.read(5)[0]) == 51
    with pytest.raises(UsageError, match="at least 0"):
        other.streams[0].set_epoch(-1)


def test_the_plain_loaders_arithmetic(monkeypatch: pytest.MonkeyPatch, release: relabel.Release) -> None:
    """`state_dict(batches=...)` says what a DataLoader's workers gave, wherever it stops; and again after that."""
    for workers, drop_last in itertools.product((1, 2, 3), (False, True)):
        whole = batched(Loader(monkeypatch, release, 1, workers).read(0), 4, drop_last)
        for stop, then in ((0, 3), (1, 1), (5, 4), (7, 6), (11, 0), (12, 2)):
            done = Loader(monkeypatch, release, 1, workers)
            state = done.streams[0].state_dict(stop, batch_size=4, num_workers=workers, drop_last=drop_last)
            second = Loader(monkeypatch, release, 1, workers)
            second.load(state)
            state = second.streams[0].state_dict(then, batch_size=4, num_workers=workers, drop_last=drop_last)
            third = Loader(monkeypatch, release, 1, workers)
            third.load(state)
            expected = whole[stop + then :]
            assert batched(third.read(), 4, drop_last) == expected, (workers, drop_last, stop, then)


def batched(streams: Sequence[Sequence[str]], size: int, drop_last: bool) -> list[tuple[str, ...]]:
    """Batches in the order of a DataLoader."""
    cut = [[tuple(stream[at : at + size]) for at in range(0, len(stream), size)] for stream in streams]
    whole = [[batch for batch in batches if len(batch) == size or not drop_last] for batches in cut]
    turns = itertools.zip_longest(*whole)
    return [batch for turn in turns for batch in turn if batch is not None]


class TestArithmetic:
    """What needs no release."""

    def test_a_shuffle_is_a_function_of_its_key(self) -> None:
        orders = [list(Shuffle(500, 50, key)) for key in ((0, 1), (0, 1), (0, 2))]
        assert orders[0] == orders[1] != orders[2]
        assert sorted(orders[0]) == list(range(500))
        assert list(Shuffle(5, 1, ())) == [0, 1, 2, 3, 4]
        assert list(Shuffle(0, 9, ())) == []

    def test_a_shuffle_of_numpy_of_any_version_is_this_one(self) -> None:
        assert list(Shuffle(12, 4, (0, "x"))) == KNOWN

    @pytest.mark.parametrize("skipped", [0, 1, 37, 450, 499, 500])
    def test_a_shuffle_goes_on_by_counting(self, skipped: int) -> None:
        whole = list(Shuffle(500, 50, (7,)))
        rest = Shuffle(500, 50, (7,)).skip(skipped)
        pending = [item for low, high in rest.pending() for item in range(low, high)]
        assert sorted(whole[skipped:]) == pending
        assert list(rest) == whole[skipped:]

    def test_a_shuffle_mixes(self) -> None:
        order = list(Shuffle(10000, 1000, (3,)))
        assert sum(abs(item - place) > 100 for place, item in enumerate(order)) > 8000

    def test_positions(self) -> None:
        found = Positions.union([(5, 9), (0, 2), (2, 3), (8, 12), (20, 20)])
        assert list(found.intervals()) == [(0, 3), (5, 12)]
        assert len(found) == 10
        numbers = [0, 1, 2, *range(5, 12)]
        assert [n for low, high in found.cut(2, 7) for n in range(low, high)] == numbers[2:7]
        assert list(found.cut(4, 4)) == []
        assert len(Positions.union([])) == 0

    @pytest.mark.parametrize("remainder", ["drop", "pad", "exact"])
    @pytest.mark.parametrize("count", [0, 1, 5, 13, 14, 100])
    def test_slices_tile(self, remainder: Any, count: int) -> None:
        for world, workers, batch in itertools.product((1, 2, 7), (1, 2, 3), (1, 4)):
            deal = Deal(world, workers, remainder, batch)
            spans = [deal.span(count, stream) for stream in range(deal.streams)]
            assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
            end = {"drop": count // world * world, "pad": -(-count // world) * world, "exact": count}[remainder]
            assert (spans[0][0], spans[-1][1]) == (0, end)
            if batch == 1 and count >= deal.streams:
                assert all(stop > start for start, stop in spans), "no empty rank"

    def test_a_loader_takes_batches_in_turn(self) -> None:
        for sizes in ([10, 9, 9], [4, 4], [0, 0], [5], [8, 4]):
            for batch, drop in itertools.product((1, 4, 9), (False, True)):
                streams = [[f"{worker}-{each}" for each in range(size)] for worker, size in enumerate(sizes)]
                taken = batched(streams, batch, drop)
                for batches in range(len(taken) + 2):
                    given = Counter(each[0] for one in taken[:batches] for each in one)
                    found, turn = after_batches(sizes, batches, batch, drop)
                    assert found == [given[str(worker)] for worker in range(len(sizes))]
                    assert 0 <= turn < len(sizes)

    def test_what_is_left_of_a_billion_is_known_at_once(self) -> None:
        deal = Deal(8, 4, "drop")
        stage = Stage(deal, (1000,) * 32)
        left = left_after(10**9, [stage], 100, (0, 0))
        assert len(left) == 10**9 - 32000
        stream = stream_of(left, Stage(deal, (0,) * 32), 5, 100, (0, 0), 1)
        assert next(iter(stream.shuffle)) < 100


KNOWN = [3, 2, 0, 6, 7, 1, 8, 4, 10, 11, 5, 9]
