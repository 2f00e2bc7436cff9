"""Captioner: an engine without a model that captions what it is shown, or misbehaves as its prompt says, and labelers.

In a recipe: `plugins: [relabel.testing.captioner]`, `steps: [{scripted_caption: {...}}]`, `scripted_fuse`. The answer
names the colour of the image; where there is none it puts the quoted texts of the prompt together. Words of the prompt
(an old caption, say) that make it misbehave: `plant KIND` gives a text with that flaw, for as long as the temperature
is below `until T` (default: always); `wait SECONDS`, `fail` (this request), `toolong` (while the prompt is longer than
300 characters), `kill` (this process).
"""

import asyncio
import os
import re
import signal
from collections.abc import Mapping

import numpy as np

from ..digests import Json
from ..errors import BadSample
from ..labelers.caption import Captioner, CaptionSettings
from ..labelers.caption_fuse import Fuser, FuseSettings
from ..labelers.engines.protocol import Engine, FinishReason, Image, Reply, Request
from ..labelers.registry import register
from ..reasons import Reason
from .scripted import ScriptedConfig

COLOURS = {
    "red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200), "yellow": (230, 220, 40),
    "black": (10, 10, 10), "white": (250, 250, 250), "grey": (128, 128, 128),
}  # fmt: skip
FLAWED = {
    "empty": "...",
    "cut": "a square that lies on a",
    "over_budget": "A square lies on a table of dark oak between a brass lamp, two candles, a folded map, an inkwell, "
    "seven coins, a pair of scissors, an open diary, a teacup without a saucer, some walnuts, a ruler, a magnifying "
    "glass and a photograph of the harbour, while behind it a curtain of green velvet hides most of a window through "
    "which roofs, chimneys, a church tower, three cranes and the grey line of the sea can be made out in the morning "
    "fog under a pale sky.",
    "repetition": "a square and a square and a square and a square and a square and a square",
    "refusal": "I'm sorry, but I cannot see the image that you are asking about.",
    "prompt_echo": "Sure! Here is a caption: a square",
    "markup": '{"caption": "a square"}',
    "language": "Ein großes Quadrat liegt auf einem weißen Tisch neben einer Lampe.",
}  # fmt: skip
"""What `plant KIND` gives."""
PLANTED = re.compile(r"\bplant (\w+)(?: until (\d+(?:\.\d+)?))?")
WAIT = re.compile(r"\bwait (\d+(?:\.\d+)?)")
SAID = re.compile(r'"([^"]*)"')
ROOM = 300


class CaptionerConfig(ScriptedConfig):
    """An engine that names colours."""

    tells: bool = True
    """Whether it gives log-probabilities."""
    repeats: bool = True
    """Whether equal requests get equal answers; part of what it says of itself."""

    @property
    def logprobs(self) -> bool:
        return self.tells

    @property
    def reproducible(self) -> bool:
        return self.repeats

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> "ColourNamer":
        return ColourNamer(self)


class ColourNamer(Engine):
    """Keeps the requests that it answered."""

    in_process = True

    def __init__(self, config: CaptionerConfig) -> None:
        self.config, self.reproducible = config, config.repeats
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> Reply:
        self.asked.append(request)
        prompt = words_of(request)
        if wait := WAIT.search(prompt):
            await asyncio.sleep(float(wait[1]))
        if re.search(r"\bkill\b", prompt):
            os.kill(os.getpid(), signal.SIGKILL)
        if re.search(r"\bfail\b", prompt):
            raise BadSample(Reason.ENGINE_ERROR, "told to fail")
        if re.search(r"\btoolong\b", prompt) and len(prompt) > ROOM:
            raise BadSample(Reason.PROMPT_TOO_LONG, f"{len(prompt)} characters")
        flaw = planted(prompt, request.decoding.temperature)
        text = FLAWED[flaw] if flaw else self.caption(request, prompt)
        count = min(len(text.split()) + 1, request.decoding.max_tokens)
        reason: FinishReason = "length" if flaw == "cut" else "stop"
        return Reply(
            text=f" {text}\n",
            finish_reason=reason,
            prompt_tokens=len(prompt.split()),
            completion_tokens=count,
            logprobs=(-0.25,) * count if self.config.tells else None,
        )

    def caption(self, request: Request, prompt: str) -> str:
        """Another seed says the same in other words where the temperature allows it."""
        if not request.all_images:
            said = [text for text in SAID.findall(prompt) if text]
            return " with ".join(said) or "nothing was said of it"
        which = ("square", "picture", "tile", "sheet")[request.seed % 4 if request.decoding.temperature else 0]
        height, width = request.all_images[0].shape[:2]
        return f"a {colour_of(request.all_images[0])} {which} of {width} by {height} pixels"


def words_of(request: Request) -> str:
    """All text of a request."""
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n".join(message.text for message in request.prompt)


def planted(prompt: str, temperature: float) -> str:
    """The flaw that the prompt asks for; empty where it asks for none at this temperature."""
    for flaw, until in PLANTED.findall(prompt):
        if flaw in FLAWED and (not until or temperature < float(until)):
            return str(flaw)
    return ""


def colour_of(image: Image) -> str:
    mean = image.reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(mean - np.array(COLOURS[name])).sum()))


class ScriptedCaptionParameters(CaptionSettings):
    """As `caption`, with the engine without a model."""

    engine: CaptionerConfig = CaptionerConfig()
    """How it behaves."""


@register
class ScriptedCaptioner(Captioner[ScriptedCaptionParameters]):
    """Captions that name the colour of the image."""

    name, version = "scripted_caption", 1

    @property
    def engine_config(self) -> CaptionerConfig:
        return self.parameters.engine


class ScriptedFuseParameters(FuseSettings):
    """As `caption_fuse`, with the engine without a model."""

    engine: CaptionerConfig = CaptionerConfig()
    """How it behaves."""


@register
class ScriptedFuser(Fuser[ScriptedFuseParameters]):
    """Old and new caption, one after the other."""

    name, version = "scripted_fuse", 1

    @property
    def engine_config(self) -> CaptionerConfig:
        return self.parameters.engine
