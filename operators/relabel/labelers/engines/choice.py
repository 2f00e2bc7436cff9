"""Choice: the engines that a recipe may name, by `kind`."""

from typing import Annotated

from pydantic import Field

from .endpoint import EndpointConfig
from .transformers_engine import TransformersConfig
from .vllm_engine import VllmConfig

EngineChoice = Annotated[TransformersConfig | EndpointConfig | VllmConfig, Field(discriminator="kind")]
"""`engine: {kind: transformers, model: ...}`, `{kind: endpoint, url: ..., model: ...}`, `{kind: vllm, model: ...}`."""
