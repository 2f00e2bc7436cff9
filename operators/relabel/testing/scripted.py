"""Scripted: an engine without a model, which does what its prompts say, and a labeler that sends it a sample's text.

In a recipe: `plugins: [relabel.testing.scripted]`, `steps: [{scripted: {concurrency: 4}}]`; samples are members
`KEY.txt`. A prompt is words, each done in turn: `wait:SECONDS`, `refuse` (this request fails), `die` (the engine is
lost), `away` (the service stays away), `kill` (SIGKILL of this process), `once:FILE:WORD` (until FILE exists). What is
left is the answer, in capitals, followed by `#` and the seed.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..digests import Json
from ..errors import BadSample, DeviceFailed, EngineUnreachable
from ..labelers.engine_labeler import EngineLabeler, SampleCells, seed_of
from ..labelers.engines.protocol import Decoding, Engine, EngineConfig, Reply, Request
from ..labelers.labeler import KEY, Fields, Parameters, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract
from ..reasons import Reason


class ScriptedConfig(EngineConfig):
    """An engine that does what its prompts say."""

    at_once: int = 4

    @property
    def concurrency(self) -> int:
        return self.at_once

    @property
    def logprobs(self) -> bool:
        return False

    @property
    def reproducible(self) -> bool:
        return True

    def inspect(self) -> dict[str, Json]:
        return {"weights": "none"}

    def identity(self) -> dict[str, Json]:
        return {"kind": "scripted"}

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        return Scripted()


class Scripted(Engine):
    """Counts how many requests are open."""

    in_process = True
    reproducible = True

    def __init__(self) -> None:
        self.open = self.peak = 0

    async def generate(self, request: Request) -> Reply:
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            said = [word for word in str(request.prompt).split() if not await self.done(word)]
        finally:
            self.open -= 1
        text = f"{' '.join(said).upper()}#{request.seed}"
        return Reply(text=text, finish_reason="stop", prompt_tokens=len(said), completion_tokens=len(said))

    async def done(self, word: str) -> bool:
        """Whether the word was a command."""
        if word.startswith("once:"):
            _, file, word = word.split(":", 2)
            if Path(file).exists():
                return True
            Path(file).touch()
        if word.startswith("wait:"):
            await asyncio.sleep(float(word.removeprefix("wait:")))
        elif word == "refuse":
            raise BadSample(Reason.ENGINE_ERROR, "told to refuse")
        elif word == "die":
            raise DeviceFailed("told to die")
        elif word == "away":
            raise EngineUnreachable("told to stay away. Run again to go on.")
        elif word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            return False
        return True


class ScriptedParameters(Parameters):
    """How many at once."""

    concurrency: int = 4


@register
class ScriptedLabeler(EngineLabeler[ScriptedParameters]):
    """The engine's answer to a text, and how many requests were open at most until then."""

    name, version = "scripted", 1
    needs = ("text", KEY)

    @property
    def engine_config(self) -> ScriptedConfig:
        return ScriptedConfig(at_once=self.parameters.concurrency)

    def identity(self) -> dict[str, Json]:
        return {"engine": self.engine_config.identity()}

    def writes(self) -> LabelContract:
        columns = (Column(name=f"{self.label}_text", dtype="string"), Column(name=f"{self.label}_peak", dtype="<i4"))
        return LabelContract(name=self.label, kind="caption", columns=columns)

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["text"]
        said = text if isinstance(text, str) else bytes(text).decode() if isinstance(text, bytes) else str(text)
        return {"text": np.array(said), "key": np.array(str(sample[KEY]))}

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        request = Request(prompt=sample["text"], decoding=Decoding(), seed=seed_of(sample["key"]))
        reply = await self.engine.generate(request)
        assert isinstance(self.engine, Scripted)
        return {"text": reply.text, "peak": self.engine.peak}
