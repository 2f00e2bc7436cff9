"""Choice: the engines that a recipe may name, by `kind`."""

from typing import Annotated

from pydantic import Field

from .endpoint import EndpointConfig
from .transformers_engine import TransformersConfig

EngineChoice = Annotated[TransformersConfig | EndpointConfig, Field(discriminator="kind")]
"""`engine: {kind: transformers, model: ...}` or `engine: {kind: endpoint, url: ..., model: ...}`."""
