"""Protocol: what a labeler asks of a language or vision-language model, and what every engine promises.

An engine takes many requests at once and answers each when it is done, so that a slow answer holds nobody back. A
request may fail alone (BadSample); an engine that is lost takes its process with it (DeviceFailed); a service that
stays away stops the run (EngineUnreachable) and costs no sample.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from ...digests import Json
from ...errors import UsageError
from ..labeler import Parameters
from .spending import Spent

Image = UInt8[np.ndarray, "_height _width 3"]
Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "other"]
"""stop: the model ended, or a stop string came; length: the budget of tokens was used up; other: anything else, such as
a content filter."""

SEPARATOR = ";"
"""Between choices where an answer may be several; a space follows."""


class Decoding(Parameters):
    """How the next token is chosen. All of it is part of a label's meaning."""

    max_tokens: int = 64
    """The most new tokens."""
    temperature: float = 0.0
    """0: the most probable token, always; else logits are divided by it before one is drawn."""
    top_p: float = 1.0
    """Tokens are drawn from the fewest that together have this probability."""
    top_k: int = 0
    """Tokens are drawn from so many most probable ones; 0: from all."""
    repetition_penalty: float = 1.0
    """Logits of tokens that occurred are divided by it where positive, else multiplied; 1: none."""
    stop: tuple[str, ...] = ()
    """Text that ends an answer and is no part of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat; its images come before its text."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question. Equal requests get equal answers where the engine is reproducible, whatever runs beside them."""

    prompt: str | tuple[Message, ...]
    """Plain text that the model goes on with, or a chat that goes through its template."""
    decoding: Decoding
    seed: int = 0
    """Of what is drawn; in [0, 2^63)."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the answer must fit."""
    choices: tuple[str, ...] | None = None
    """The answer is one of these texts."""
    most: int = 1
    """Of `choices` up to so many may be given, none twice, with SEPARATOR between them."""
    images: tuple[Image, ...] = ()
    """Of a plain prompt; a chat has them in its messages."""

    @property
    def all_images(self) -> tuple[Image, ...]:
        if isinstance(self.prompt, str):
            return self.images
        return tuple(image for message in self.prompt for image in message.images)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    text: str
    """Without special tokens and stop texts, otherwise as the model gave it."""
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    """As the engine counts: the token that ends the answer may be one of them."""
    token_ids: tuple[int, ...] | None = None
    """Of the answer, where the engine tells; without the end token."""
    logprobs: tuple[float, ...] | None = None
    """Natural logarithms of the probability (before temperature and truncation) of each of the answer's tokens, the end
    token included where it was given; None where the engine does not tell."""
    seconds: float = 0.0
    """From the moment the engine took the request up."""
    attempts: int = 1
    """Sent to the engine so often."""
    cost: float = 0.0
    """In the currency of the price that was configured, failed attempts included."""
    chosen: tuple[str, ...] | None = None
    """The choices that were given, in order; at least one unless tokens ran out. None where the request names none."""

    @property
    def mean_logprob(self) -> float | None:
        return None if not self.logprobs else sum(self.logprobs) / len(self.logprobs)


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """How probable a text is after a prompt."""

    logprob: float
    """Natural logarithm, summed over its tokens."""
    num_tokens: int
    prompt_tokens: int = 0
    """Of the prompt before it."""


class Engine(ABC):
    """A model that is ready to answer. Its coroutines run in one event loop, many at a time."""

    in_process: bool
    """A request that hangs or kills does so to this process; else it is a service's affair."""
    reproducible: bool
    """Equal requests get bit-equal answers on equal hardware, whatever else is asked meanwhile."""

    @abstractmethod
    async def generate(self, request: Request) -> Reply:
        """Raises BadSample where this request cannot be answered, DeviceFailed where the engine is lost, and
        EngineUnreachable where a service stays away.
        """

    async def score(self, request: Request, texts: Sequence[str]) -> list[Scored]:
        """How probable each of `texts` is as the answer's beginning; the prompt is computed once.

        Raises UsageError where the engine cannot tell.
        """
        raise UsageError(
            f"{type(self).__name__} gives no probabilities of given texts. Use `kind: transformers`, or an endpoint "
            "with prompt log-probabilities."
        )

    def numerics(self) -> dict[str, Json]:
        """Versions and hardware that decide the last bits of an answer."""
        return {}

    def spent(self) -> Spent:
        """What was used since the engine was opened: requests, attempts, tokens, cost. Only ever grows."""
        return {}

    async def close(self) -> None:
        """Let go of connections and devices."""
        return


class EngineConfig(Parameters, ABC):
    """What a recipe says of an engine: `engine: {kind: transformers, model: ...}`. Light: imports no engine."""

    @property
    @abstractmethod
    def concurrency(self) -> int:
        """Requests that keep the engine busy at a time."""

    @property
    def lead(self) -> float:
        """Samples that an actor holds, as a multiple of `concurrency`: those that are asked, those that lie ready, and
        those that are done and wait for slow ones of their part. More where slow ones are common and very slow.
        """
        return 1.5

    @property
    @abstractmethod
    def logprobs(self) -> bool:
        """Whether replies carry log-probabilities."""

    @property
    @abstractmethod
    def reproducible(self) -> bool:
        """As `Engine.reproducible`."""

    @property
    def scores(self) -> bool:
        """Whether the engine can tell how probable given texts are (`Engine.score`)."""
        return False

    @property
    def holds(self) -> bool:
        """Whether answers can be held to a JSON schema."""
        return False

    def weight_files(self) -> Sequence[Path]:
        """As `Labeler.weight_files`."""
        return ()

    @abstractmethod
    def inspect(self) -> dict[str, Json]:
        """Facts that need the weights at hand (digest, commit, template digest), for the lock file."""

    @abstractmethod
    def identity(self) -> dict[str, Json]:
        """What was chosen and can change an answer; without names of places, concurrency, prices, retries."""

    @abstractmethod
    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        """The engine on `device` ("cpu", "cuda"), its weights checked against the `facts` that `inspect` found.

        Raises Refused or UsageError where it cannot be.
        """
