"""Transformers engine: a model of transformers in this process, on a CPU or a GPU. What a recipe says of it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ...digests import Json
from ...errors import UsageError
from .protocol import Engine, EngineConfig

FILLED_BATCHES = 2
"""So many batches' worth of requests must be open, so that the next one is ready when one ends."""


class TransformersConfig(EngineConfig):
    """`engine: {kind: transformers, model: FOLDER | hf:org/name@commit | FILE.gguf}`.

    As many requests are computed together as `resources.compute_batch` says, always exactly so many rows (padded), so
    that neighbours change no answer; it decides the last bits, and is part of the numerics, not of the fingerprint.
    """

    kind: Literal["transformers"] = "transformers"
    model: str
    """A folder that transformers saved, `hf:org/name[@revision]`, or a .gguf file."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Of weights and activations."""
    pad_to: int = Field(default=8, ge=1)
    """Prompts are filled up to a multiple of so many tokens (long ones of more), and computed with others of that
    length; 1: none is filled up. Prompts of captioners (BLIP, VisionEncoderDecoder) never are."""
    at_once: int = Field(default=64, ge=1)
    """Requests that are open at a time, per actor: at least twice `resources.compute_batch`; the more, the fuller are
    the batches where prompts differ in length."""
    exact: bool = True
    """Refuse, when it is loaded, a model whose answers depend on what else is asked meanwhile (mixtures of experts);
    false: take it, and the contract says so."""

    @property
    def concurrency(self) -> int:
        return self.at_once

    @property
    def logprobs(self) -> bool:
        return True

    @property
    def reproducible(self) -> bool:
        return self.exact

    @property
    def scores(self) -> bool:
        return True

    def weight_files(self) -> Sequence[Path]:
        from .transformers_files import local_files

        found = local_files(self.model)
        return (*found.weights, *found.configuration) if found else ()

    def inspect(self) -> dict[str, Json]:
        from .transformers_files import find_files
        from .transformers_model import describe

        return describe(find_files(self.model))

    def identity(self) -> dict[str, Json]:
        return self.model_dump(mode="json", exclude={"model", "at_once", "exact"})

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        if self.at_once < FILLED_BATCHES * compute_batch:
            raise UsageError(
                f"engine.at_once must be at least {FILLED_BATCHES} x resources.compute_batch ({compute_batch}) to keep "
                f"the model busy, got {self.at_once}. Set it to {FILLED_BATCHES * compute_batch} or more."
            )
        if threads > 1:
            # Before its first product: else which thread computes a row changes the row's last bits.
            os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
        from .in_process import open_engine

        return open_engine(self, facts, device, compute_batch, threads)
