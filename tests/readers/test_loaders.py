"""Loaders: the datasets under torch's DataLoader, torchdata's StatefulDataLoader and Accelerate, in real workers."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import relabel
from relabel.readers import ranks

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata asks for it

EVERYTHING = [f"{index:05d}" for index in range(51)]


def mark_of(sample: dict[str, Any]) -> dict[str, Any]:
    """A transform that a spawned worker can import."""
    return {"key": sample["__key__"], "size": sample["image"].size, "mark": sample["mark"]["mark_value"]}


def dataset(release: relabel.Release, source: Any = None, **options: Any) -> Any:
    return release.dataset(source, columns=["mark"], transform=mark_of, **{"shuffle": 8, **options})


def keys(batches: Any) -> list[Sequence[str]]:
    return [batch["key"] for batch in batches]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_every_sample_once(release: relabel.Release, context: str) -> None:
    samples = dataset(release, batch_size=4)
    loader = DataLoader(samples, batch_size=4, num_workers=2, multiprocessing_context=context)
    assert len(loader) == 13
    batches = list(loader)
    assert len(batches) == 13
    assert sorted(key for batch in keys(batches) for key in batch) == EVERYTHING
    assert batches[0]["mark"].dtype == torch.float64
    assert samples.report().delivered == 51, "workers count in shared memory"


def test_set_epoch_reaches_persistent_workers(release: relabel.Release) -> None:
    samples = dataset(release)
    loader = DataLoader(samples, batch_size=4, num_workers=2, persistent_workers=True)
    seen = []
    for epoch in (0, 1, 0):
        samples.set_epoch(epoch)
        seen.append(keys(loader))
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 3, 9, 13])
def test_a_plain_loader_goes_on_exactly(release: relabel.Release, workers: int, stop: int) -> None:
    whole = keys(DataLoader(dataset(release), batch_size=4, num_workers=workers))
    first = dataset(release)
    batches = iter(DataLoader(first, batch_size=4, num_workers=workers))
    before = [next(batches)["key"] for _ in range(min(stop, len(whole)))]
    state = json.loads(json.dumps(first.state_dict(len(before), batch_size=4, num_workers=workers)))
    second = dataset(release)
    second.load_state_dict(state)
    assert before + keys(DataLoader(second, batch_size=4, num_workers=workers)) == whole
    third = dataset(release)
    third.load_state_dict(state)
    rest = keys(DataLoader(third, batch_size=4, num_workers=2 - workers))
    assert sorted(key for batch in before + rest for key in batch) == EVERYTHING


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 6, 12])
def test_a_stateful_loader_goes_on_exactly(release: relabel.Release, workers: int, stop: int) -> None:
    whole = keys(StatefulDataLoader(dataset(release), batch_size=4, num_workers=workers))
    loader = StatefulDataLoader(dataset(release), batch_size=4, num_workers=workers)
    batches = iter(loader)
    before = [next(batches)["key"] for _ in range(stop)]
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    second = StatefulDataLoader(dataset(release), batch_size=4, num_workers=workers)
    second.load_state_dict(state)
    assert before + keys(second) == whole
    third = dataset(release)
    third.load_state_dict(relabel.stream_states(state))
    rest = keys(DataLoader(third, batch_size=4, num_workers=2 - workers))
    assert sorted(key for batch in before + rest for key in batch) == EVERYTHING


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_after_its_epoch(release: relabel.Release, workers: int) -> None:
    loader = StatefulDataLoader(dataset(release), batch_size=4, num_workers=workers)
    whole = keys(loader)
    second = StatefulDataLoader(dataset(release), batch_size=4, num_workers=workers)
    second.load_state_dict(loader.state_dict())
    assert keys(second) in ([], whole)
    assert keys(second) == whole


def test_indexed_under_a_loader(release: relabel.Release) -> None:
    loader = DataLoader(release.indexed(columns=["mark"], transform=mark_of), batch_size=4, num_workers=2)
    assert [key for batch in keys(loader) for key in batch] == EVERYTHING
    shuffled = DataLoader(release.indexed(columns=["mark"], transform=mark_of), batch_size=4, shuffle=True)
    assert sorted(key for batch in keys(shuffled) for key in batch) == EVERYTHING


def test_ranks_come_from_the_environment(release: relabel.Release, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        found += [sample["key"] for sample in dataset(release)]
    assert sorted(found) == EVERYTHING
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(relabel.errors.UsageError, match="rank must lie in 0 to world - 1"):
        iter(dataset(release))


def test_ranks_come_from_torch_distributed(release: relabel.Release, tmp_path: Path) -> None:
    """Also in a spawned worker, which has no process group."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert ranks.place(dataset(release).options) == (0, 1)
        given = torch.distributed.get_rank, torch.distributed.get_world_size
        torch.distributed.get_rank, torch.distributed.get_world_size = lambda: 1, lambda: 2  # type: ignore[assignment]
        try:
            samples = dataset(release)
            here = [sample["key"] for sample in samples]
            loader = DataLoader(samples, batch_size=1, num_workers=1, multiprocessing_context="spawn")
            assert [key for [key] in keys(loader)] == here
            assert len(here) == 25
        finally:
            torch.distributed.get_rank, torch.distributed.get_world_size = given
    finally:
        torch.distributed.destroy_process_group()


def test_accelerate_must_not_share_out_again(release: relabel.Release) -> None:
    """A prepared loader of an iterable dataset takes every world-th sample of it: wrong on top of our own split.

    The loader that is not prepared, on ranks as Accelerate has them, is right.
    """
    from accelerate.data_loader import IterableDatasetShard

    doubly = []
    for rank in range(2):
        mine = dataset(release, rank=rank, world=2)
        shard = IterableDatasetShard(mine, batch_size=1, num_processes=2, process_index=rank)
        doubly += [sample["key"] for sample in shard]
    assert len(set(doubly)) < 50, "what preparing it does"
    once = []
    for rank in range(2):
        # What `accelerator.process_index` and `num_processes` are; the loader stays out of `prepare`.
        once += keys(DataLoader(dataset(release, rank=rank, world=2), batch_size=1))
    assert len({key for [key] in once}) == 50
    alone = []
    for rank in range(2):
        # Or the whole stream on every rank, which Accelerate then shares out.
        whole = dataset(release, rank=0, world=1)
        shard = IterableDatasetShard(whole, batch_size=1, num_processes=2, process_index=rank, drop_last=True)
        alone += [sample["key"] for sample in shard]
    assert len(set(alone)) == 50
