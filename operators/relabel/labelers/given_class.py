"""Labeler `given_class`: the class that the data set itself gives a sample, as a label beside the others.

What people (or an older model) said becomes a column that can be audited, joined and compared without the media.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, field_validator

from ..errors import BadSample
from ..labels.contract import LabelContract
from ..labels.kinds import classes
from ..reasons import Reason
from .labeler import Batch, Fields, Labeler, Labels, Parameters, Prepared
from .registry import register

MAX_SHOWN = 80


class GivenClassParameters(Parameters):
    """Where the class is said, and which there are."""

    field: str = Field(default="cls", min_length=1)
    """The field of the data set that holds the name of a class, or its number, as `source.fields` names it."""
    classes: tuple[str, ...] = Field(min_length=2)
    """The names of all, in order."""

    @field_validator("classes")
    @classmethod
    def are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"every class needs a name of its own, got {doubled!r} twice")
        return names


@register
class GivenClass(Labeler[GivenClassParameters]):
    """One class, with probability 1: `ids` [1] and `scores` [1]."""

    name, version = "given_class", 1

    def __init__(self, parameters: GivenClassParameters, label: str = "") -> None:
        super().__init__(parameters, label)
        self.needs = (parameters.field,)

    def class_names(self) -> Sequence[str]:
        return self.parameters.classes

    def writes(self) -> LabelContract:
        return classes(self.label, self.parameters.classes)

    def prepare(self, sample: Fields) -> Prepared:
        """Raises BadSample(BAD_METADATA) where the field names no class."""
        value, names = sample[self.parameters.field], self.parameters.classes
        text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
        if text in names:
            return {"id": np.array(names.index(text))}
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(names):
            return {"id": np.array(int(text))}
        raise BadSample(
            Reason.BAD_METADATA,
            f"{self.parameters.field} is none of the {len(names)} classes and no number of one: {text[:MAX_SHOWN]!r}",
        )

    def __call__(self, batch: Batch) -> Labels:
        ids = np.asarray(batch["id"], np.int64)[:, None]
        return self.columns(ids=ids, scores=np.ones(ids.shape, np.float32))
