"""Judge: an engine without a model that finds the classes whose names a text mentions, or answers badly as it is told.

In a recipe: `plugins: [relabel.testing.judge]`, `steps: [{scripted_pseudo_label: {labels: [...]}}]`. A class is the
likelier the more often the prompt mentions it. Words of the text that make it misbehave where it writes an answer:
`plant KIND` (see PLANTS), for as long as the temperature is below `until T` (default: always); `fail` (this request).
"""

import json
import re
from collections.abc import Mapping, Sequence

from ..digests import Json
from ..errors import BadSample
from ..labelers.engines.protocol import SEPARATOR, Engine, FinishReason, Reply, Request, Scored
from ..labelers.pseudo_label import PseudoLabels
from ..labelers.pseudo_parameters import PseudoLabelSettings
from ..labelers.registry import register
from ..reasons import Reason
from .captioner import words_of
from .scripted import ScriptedConfig

PLANTS = {
    "malformed": '{"label": "sports"',
    "empty": "",
    "prose": "This text is about sports.",
    "strange": '{"label": "gardening"}',
    "substring": '{"label": "no sports at all"}',
    "fenced": 'Sure! Here it is:\n```json\n{"label": " SPORTS\\n"}\n```',
    "second": '{sports} and then {"label": "sports"}',
    "other": '{"label": "Other"}',
    "number": '{"label": 3}',
    "member": '{"topic": "sports"}',
    "long": '{"label": "' + "sports " * 3000,
    "half": '{"label": "sports", "why": "\\ud83d"} \ud83d',
    "twice": '{"labels": ["sports", "Sports", "business"]}',
    "many": '{"labels": ["sports", "business", "politics"]}',
    "mixed": '{"labels": ["sports", "gardening"]}',
}
"""What `plant KIND` answers."""
PLANTED = re.compile(r"\bplant (\w+)(?: until (\d+(?:\.\d+)?))?")
ENDING = 0.1
"""Taken from the logarithm for every character of a text."""


class JudgeConfig(ScriptedConfig):
    """An engine that counts names."""

    tells: bool = True
    """Whether it gives probabilities of texts."""
    keeps: bool = False
    """Whether it says that it holds answers to a schema (it does not)."""

    @property
    def scores(self) -> bool:
        return self.tells

    @property
    def holds(self) -> bool:
        return self.keeps

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> "Judge":
        return Judge()


class Judge(Engine):
    """Keeps the requests that it answered."""

    in_process = True
    reproducible = True

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def score(self, request: Request, texts: Sequence[str]) -> list[Scored]:
        self.asked.append(request)
        prompt = words_of(request)
        refuse(prompt)
        words = len(prompt.split())
        return [
            Scored(min(0.0, mentions(prompt, text) - 20 - ENDING * len(text)), len(text.split()), words)
            for text in texts
        ]

    async def generate(self, request: Request) -> Reply:
        self.asked.append(request)
        prompt = words_of(request)
        refuse(prompt)
        plants = [kind for kind, until in PLANTED.findall(prompt)
                  if kind in PLANTS and (not until or request.decoding.temperature < float(until))]  # fmt: skip
        if request.choices is not None:
            named = sorted(request.choices, key=lambda name: (-mentions(prompt, name), name))
            chosen = tuple(name for name in named[: request.most] if mentions(prompt, name) > 1) or (named[0],)
            text = f"{SEPARATOR} ".join(chosen)
        else:
            chosen, text = None, PLANTS[plants[0]] if plants else answer(prompt)
        reason: FinishReason = "length" if plants[:1] == ["long"] else "stop"
        return Reply(
            text=text, finish_reason=reason, prompt_tokens=len(prompt.split()), completion_tokens=len(text.split()),
            chosen=chosen,
        )  # fmt: skip


def refuse(prompt: str) -> None:
    if re.search(r"\bfail\b", prompt):
        raise BadSample(Reason.ENGINE_ERROR, "told to fail")


def mentions(prompt: str, name: str) -> int:
    return len(re.findall(rf"\b{re.escape(name.strip())}\b", prompt, re.IGNORECASE))


def answer(prompt: str) -> str:
    """The class of the list `- NAME` that is mentioned most."""
    names = re.findall(r"^- ([^:\n]+)", prompt, re.MULTILINE)
    return json.dumps({"label": max(names, key=lambda name: mentions(prompt, name))})


class ScriptedPseudoLabelParameters(PseudoLabelSettings):
    """As `pseudo_label`, with the engine without a model."""

    engine: JudgeConfig = JudgeConfig()
    """How it behaves."""


@register
class ScriptedPseudoLabels(PseudoLabels[ScriptedPseudoLabelParameters]):
    """The class that a text mentions most."""

    name, version = "scripted_pseudo_label", 1

    @property
    def engine_config(self) -> JudgeConfig:
        return self.parameters.engine
