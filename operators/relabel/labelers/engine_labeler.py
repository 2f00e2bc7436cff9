"""Engine labelers: one sample at a time through a language or vision-language model, many samples at once.

Where the engine is reproducible, a sample's label depends on the sample alone: on no neighbour, no order, no run.
"""

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..digests import Json, digest
from .engines.loop import Loop
from .engines.protocol import Engine, EngineConfig
from .labeler import Batch, Labeler, Labels, P

UNIDENTIFIED = ("commit", "revision")
"""Facts of an engine that are kept for people and for fetching; the digests beside them are the identity."""
SampleCells = Mapping[str, Any]
"""One sample as `prepare` made it: arrays by name, text as str; and the columns of the labels that are read."""


class EngineLabeler(Labeler[P]):
    """A labeler that asks an engine: a subclass says which one, and labels one sample by a coroutine."""

    engine: Engine
    """From `load` on."""
    loop: Loop
    """Whose coroutines may use the engine; from `load` on."""

    @property
    @abstractmethod
    def engine_config(self) -> EngineConfig:
        """What the recipe says of the engine."""

    @abstractmethod
    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        """The sample's entry of every column, by the column's suffix; raises as `Engine.generate` does."""

    @property
    def concurrency(self) -> int:
        """Samples that are labelled at a time."""
        return self.engine_config.concurrency

    @property
    def lead(self) -> float:
        """As `EngineConfig.lead`."""
        return self.engine_config.lead

    def weight_files(self) -> Sequence[Path]:
        return self.engine_config.weight_files()

    def inspect(self) -> dict[str, Json]:
        return {"engine": self.engine_config.inspect()}

    def inspected_parameters(self) -> dict[str, Json]:
        return {"engine": self.engine_config.model_dump(mode="json")}

    def identity(self) -> dict[str, Json]:
        """The parameters, with what of the engine can change an answer, and the facts."""
        parameters = self.parameters.model_dump(mode="json")
        engine = {name: fact for name, fact in self.facts["engine"].items() if name not in UNIDENTIFIED}
        return {"parameters": {**parameters, "engine": self.engine_config.identity()}, **self.facts, "engine": engine}

    def load(self, device: str) -> None:
        self.engine = self.engine_config.open(
            self.facts["engine"], device, compute_batch=self.compute_batch, threads=self.threads
        )
        self.loop = Loop()  # last: whoever cannot be opened leaves no thread behind

    def close(self) -> None:
        """Lets go of the engine; it may be loaded again."""
        with contextlib.closing(self.loop):
            self.loop.run(self.engine.close())

    def numerics(self) -> dict[str, Json]:
        return self.engine.numerics()

    async def label_row(self, sample: SampleCells) -> Labels:
        """One sample as a batch of one row, in the dtypes of the contract."""
        cells = await self.label_sample(sample)
        return self.columns(**{suffix: [value] for suffix, value in cells.items()})

    def __call__(self, batch: Batch) -> Labels:
        """All rows at once; the first error is raised when all have ended."""
        rows = [sample_of(batch, row) for row in range(num_rows(batch))]
        found = self.loop.run(self._label_all(rows))
        return {name: joined([labels[name] for labels in found]) for name in found[0]}

    async def _label_all(self, rows: Sequence[SampleCells]) -> list[Labels]:
        room = asyncio.Semaphore(self.concurrency)

        async def one(sample: SampleCells) -> Labels:
            async with room:
                return await self.label_row(sample)

        found = await asyncio.gather(*map(one, rows), return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in found if not isinstance(outcome, BaseException)]


def num_rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def sample_of(batch: Batch, row: int) -> SampleCells:
    """Row `row` of a batch; text as str."""
    return {name: as_cell(values[row]) for name, values in batch.items()}


def as_cell(value: Any) -> Any:
    return str(value) if isinstance(value, np.str_) else value


def joined(columns: Sequence[np.ndarray | Sequence[Any]]) -> np.ndarray | Sequence[Any]:
    """Columns of one row each as one column."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    return np.concatenate(arrays) if len(arrays) == len(columns) else [entry for column in columns for entry in column]


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2^63) that is a function of these words: the sample's key, the style, the attempt."""
    return int(digest(list(parts))[:16], 16) >> 1
