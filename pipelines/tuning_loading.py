"""Tuning loading: a tuning recipe from YAML, a mapping or a file, with overrides; mistakes named with their place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relabel.errors import UsageError

from .loading import SHIPPED, assigned, explain, find, parse, read
from .tuning_recipe import TuningRecipe

SHIPPED_TUNING = SHIPPED / "tuning"


def load_tuning(recipe: str | Path | Mapping[str, Any] | TuningRecipe, overrides: Sequence[str] = ()) -> TuningRecipe:
    """A checked tuning recipe, as `loading.load`; raises UsageError that names the field and the nearest known one."""
    if isinstance(recipe, TuningRecipe):
        fields, where = recipe.model_dump(mode="json"), "recipe"
    elif isinstance(recipe, Mapping):
        fields, where = dict(recipe), "recipe"
    else:
        path = find(recipe, SHIPPED_TUNING)
        fields, where = parse(read(path), str(path)), str(path)
    for override in overrides:
        fields = assigned(fields, override, TuningRecipe)
    try:
        return TuningRecipe.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, TuningRecipe)}") from None
