"""Tuning loading: a tuning recipe from YAML, a mapping or a file, with overrides; mistakes named with their place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .loading import SHIPPED, load_as
from .tuning_recipe import TuningRecipe

SHIPPED_TUNING = SHIPPED / "tuning"


def load_tuning(recipe: str | Path | Mapping[str, Any] | TuningRecipe, overrides: Sequence[str] = ()) -> TuningRecipe:
    """A checked tuning recipe, as `loading.load`; raises UsageError that names the field and the nearest known one."""
    return load_as(TuningRecipe, recipe, overrides, SHIPPED_TUNING)
