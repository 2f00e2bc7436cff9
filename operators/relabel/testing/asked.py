"""Asked: a labeler that sends a sample's text to any engine of a recipe, and keeps what the reply told.

In a recipe: `plugins: [relabel.testing.asked]`, `steps: [{asked: {engine: {kind: endpoint, ...}}}]`; samples are
members `KEY.txt`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..labelers.engine_labeler import EngineLabeler, SampleCells, seed_of
from ..labelers.engines.choice import EngineChoice
from ..labelers.engines.protocol import Decoding, EngineConfig, Message, Request
from ..labelers.labeler import KEY, Fields, Parameters, Prepared
from ..labelers.registry import register
from ..labels.contract import Column, LabelContract


class AskedParameters(Parameters):
    """Which engine, and how it answers."""

    engine: EngineChoice
    decoding: Decoding = Decoding()


@register
class AskedLabeler(EngineLabeler[AskedParameters]):
    """The engine's answer to a text, its tokens, and how often it was sent."""

    name, version = "asked", 1
    needs = ("text", KEY)

    @property
    def engine_config(self) -> EngineConfig:
        return self.parameters.engine

    def writes(self) -> LabelContract:
        dtypes = {"text": "string", "tokens": "<i4", "attempts": "<i4"}
        columns = tuple(Column(name=f"{self.label}_{name}", dtype=dtype) for name, dtype in dtypes.items())
        return LabelContract(name=self.label, kind="caption", columns=columns)

    def prepare(self, sample: Fields) -> Prepared:
        text = sample["text"]
        said = text.decode() if isinstance(text, bytes) else str(text)
        return {"text": np.array(said), "key": np.array(str(sample[KEY]))}

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        prompt = (Message("user", sample["text"]),)
        request = Request(prompt=prompt, decoding=self.parameters.decoding, seed=seed_of(sample["key"]))
        reply = await self.engine.generate(request)
        return {"text": reply.text, "tokens": reply.completion_tokens, "attempts": reply.attempts}
