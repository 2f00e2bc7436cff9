"""Transformers engine: a model of transformers in this process, on a CPU or a GPU."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ...digests import Json
from .protocol import Engine, EngineConfig


class TransformersConfig(EngineConfig):
    """`engine: {kind: transformers, model: FOLDER | hf:org/name@commit}`."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """A folder that transformers saved, `hf:org/name[@revision]`, or a .gguf file."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Of weights and activations."""
    batch: int = Field(default=8, ge=1)
    """Requests that are computed together; always exactly so many rows (padded), so neighbours change no answer."""

    @property
    def concurrency(self) -> int:
        return 2 * self.batch

    @property
    def logprobs(self) -> bool:
        return True

    @property
    def reproducible(self) -> bool:
        return True

    def inspect(self) -> dict[str, Json]:
        raise NotImplementedError

    def identity(self) -> dict[str, Json]:
        return self.model_dump(mode="json", exclude={"model", "batch"})

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        raise NotImplementedError
