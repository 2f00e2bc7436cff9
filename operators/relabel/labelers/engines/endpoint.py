"""Endpoint engine: any server that speaks OpenAI's chat completions (vLLM, llama.cpp, hosted)."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ...digests import Json
from .protocol import Engine, EngineConfig


class EndpointConfig(EngineConfig):
    """`engine: {kind: endpoint, url: http://127.0.0.1:8000/v1, model: NAME}`."""

    kind: Literal["endpoint"] = "endpoint"
    url: str
    """Up to and including `/v1`."""
    model: str
    """As the server calls it."""
    at_once: int = Field(default=64, ge=1)
    """Requests that are open at a time, per actor."""

    @property
    def concurrency(self) -> int:
        return self.at_once

    @property
    def logprobs(self) -> bool:
        return False

    @property
    def reproducible(self) -> bool:
        return False

    def inspect(self) -> dict[str, Json]:
        return {"weights": "unpinned"}

    def identity(self) -> dict[str, Json]:
        return {"kind": self.kind, "model": self.model, "weights": "unpinned"}

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        raise NotImplementedError
