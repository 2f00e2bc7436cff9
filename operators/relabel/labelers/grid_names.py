"""Grid names: how the grid captioner is known, without importing it."""

from collections.abc import Mapping

from ..digests import Json

MODEL_TYPE = "relabel_grid_encoder"


def is_grid_captioner(config: Mapping[str, Json]) -> bool:
    """Whether a config.json is a grid captioner's: then `grid_captioner` must be imported before it is loaded."""
    encoder = config.get("encoder")
    return isinstance(encoder, dict) and encoder.get("model_type") == MODEL_TYPE
