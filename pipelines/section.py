"""Section: what every part of a recipe is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
