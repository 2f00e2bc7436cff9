"""Endpoint engine: any server that speaks OpenAI's chat completions (vLLM, llama.cpp, hosted)."""

import math
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, field_validator

from ...digests import Json
from ...errors import UsageError
from ...redaction import carries_secret, remember
from ..labeler import Parameters
from .data_urls import ImageFormat
from .dialects import Dialect
from .protocol import Engine, EngineConfig

WAITING_SHARE = 1.5
"""Requests per open one: while some wait to be sent again, others are open."""
SECRET_FIELD = re.compile(r"api_?key|secret|passw|credential|authoriz", re.IGNORECASE)
LEAD = 12.0
"""Requests that time out or are asked to wait take some twenty times as long as others, and most parts have one."""


class Price(Parameters):
    """What a service takes for a million tokens, in any currency."""

    prompt: Decimal = Field(default=Decimal(0), ge=0)
    completion: Decimal = Field(default=Decimal(0), ge=0)


class EndpointConfig(EngineConfig):
    """`engine: {kind: endpoint, url: http://127.0.0.1:8000/v1, model: NAME}`."""

    kind: Literal["endpoint"] = "endpoint"
    url: str
    """Up to and including `/v1`. No part of what a label means: the same model is served here today, there tomorrow."""
    model: str
    """As the server calls it."""
    revision: str = ""
    """What lies behind the model's name, in any words (a commit, a date). Part of what a label means: change it when
    the server loads other weights under the same name, for nobody else can tell."""
    dialect: Dialect = "openai"
    """Which server it is: `openai` asks for what all have; `vllm` and `llama_cpp` know more (top_k, grammars)."""
    api_key_env: str | None = None
    """The environment variable that holds the key, on every machine that labels; sent as a bearer token."""
    at_once: int = Field(default=64, ge=1)
    """Requests that are open at a time, per actor."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """From sending a request to the last byte of its answer."""
    attempts: int = Field(default=6, ge=1)
    """A request that failed so often, while others were answered, is a dead letter."""
    patience_seconds: float = Field(default=900.0, ge=0)
    """A server that is away for longer, or asks everyone to slow down for longer, ends the run."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Budget, per actor; used evenly."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Budget of prompt and answer tokens, per actor; used evenly."""
    price: Price = Price()
    """Per million tokens; for the figure that the run reports."""
    image_format: ImageFormat = "jpeg"
    """How images travel; as JPEG without chroma subsampling."""
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    ask_logprobs: bool = False
    """Ask for log-probabilities of the answer's tokens; not every server gives them."""
    extra: dict[str, Any] = Field(default={})
    """Further fields of every request, over those that are sent anyway; null takes one away. Part of what a label
    means."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"expected http:// or https://, up to and including /v1; got {url!r}")
        if carries_secret(url):
            raise ValueError("expected a URL without user, password and key; name the key's variable by api_key_env")
        return url.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _no_secrets(cls, extra: dict[str, Any]) -> dict[str, Any]:
        """They are written into every release."""
        if named := sorted(name for name in extra if SECRET_FIELD.search(name)):
            raise ValueError(f"extra is published, and {', '.join(named)} sounds secret; use api_key_env")
        return extra

    @property
    def concurrency(self) -> int:
        return math.ceil(WAITING_SHARE * self.at_once) + 2

    @property
    def lead(self) -> float:
        return LEAD

    @property
    def logprobs(self) -> bool:
        return self.ask_logprobs

    @property
    def reproducible(self) -> bool:
        return False

    @property
    def scores(self) -> bool:
        return True

    @property
    def holds(self) -> bool:
        return True

    def inspect(self) -> dict[str, Json]:
        return {"weights": "unpinned"}

    def identity(self) -> dict[str, Json]:
        """Without the URL: a run that moves to another port must not label everything again. Whose weights lie behind
        a name, no client can tell; `weights: unpinned` says so, and `revision` is where its owner may.
        """
        return {
            "kind": self.kind,
            "model": self.model,
            "dialect": self.dialect,
            "image_format": self.image_format,
            **({"jpeg_quality": self.jpeg_quality} if self.image_format == "jpeg" else {}),
            **({"extra": self.extra} if self.extra else {}),
            **({"revision": self.revision} if self.revision else {}),
            "weights": "unpinned",
        }

    def headers(self) -> dict[str, str]:
        """Of every request; raises UsageError where the key's variable is not set."""
        plain = {"Content-Type": "application/json", "User-Agent": "relabel"}
        if self.api_key_env is None:
            return plain
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UsageError(
                f"engine.api_key_env names the environment variable {self.api_key_env}, which is not set on a machine "
                "that labels. Set it there, or leave api_key_env out."
            )
        remember(key)
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"the environment variable {self.api_key_env} (engine.api_key_env) holds characters that no header may "
                "have, such as a line break. Set it to the key alone."
            )
        return {**plain, "Authorization": f"Bearer {key}"}

    def open(self, facts: Mapping[str, Json], device: str, *, compute_batch: int, threads: int) -> Engine:
        from .endpoint_client import Endpoint

        return Endpoint(self)
