"""Grid names: how the grid captioner is known, without importing it."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

from ..digests import Json

MODEL_TYPE = "relabel_grid_encoder"


def is_grid_captioner(config: Mapping[str, Json]) -> bool:
    """Whether a config.json is a grid captioner's."""
    encoder = config.get("encoder")
    return isinstance(encoder, dict) and encoder.get("model_type") == MODEL_TYPE


def make_known(folder: Path) -> None:
    """Let transformers load the folder where it holds a grid captioner; does nothing for any other model."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # whoever loads the folder says what is wrong with it
    if isinstance(config, dict) and is_grid_captioner(config):
        importlib.import_module(".grid_captioner", __package__).register()
