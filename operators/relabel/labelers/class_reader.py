"""Class readers: what operators share that read the class probabilities of earlier steps, and classes given elsewhere.

A class that is given (by people, by a file, by an earlier release) is a label of kind `classes`, whose best class
counts, or a field of the data set that holds a class's name or number. No class is -1: unknown, not wrong.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64
from pydantic import Field, GetJsonSchemaHandler, model_validator

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labels.contract import Classes, LabelContract
from ..labels.probabilities import Probabilities
from ..reasons import Reason
from ..shards.shard import Value
from .labeler import KEY, Fields, Labeler, Parameters, Prepared

UNKNOWN = -1
MAX_CHARACTERS = 10_000
"""Of a field that holds a class or a key."""


class ClassSource(Parameters):
    """Where one class of a sample is said; in a recipe `{field: topic}`, `{label: topic}`, or a label's name alone."""

    label: str | None = Field(default=None, min_length=1)
    """A label of kind `classes`: an earlier step, or one of the release that is read."""
    field: str | None = Field(default=None, min_length=1)
    """A field of the data set, as `source.fields` names it: a class's name, or its number."""

    @model_validator(mode="before")
    @classmethod
    def may_be_a_name(cls, value: Any) -> Any:
        return {"label": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors: a name will do."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler.resolve_ref_schema(handler(core))]}

    @model_validator(mode="after")
    def is_one_of_both(self) -> "ClassSource":
        if (self.label is None) == (self.field is None):
            raise ValueError("a class comes from one place: give `label` (an earlier step) or `field` (of the data)")
        return self


@dataclasses.dataclass(frozen=True)
class ClassIds:
    """Where the ids lie that a source gives, in a batch."""

    column: str
    """Of one id per row, or of several, the best first."""
    source: ClassSource
    """What that column holds: of a statistic's identity."""

    def to_json(self) -> dict[str, Json]:
        """Where the class is said."""
        return self.source.model_dump(mode="json")

    def of(self, rows: Mapping[str, Any]) -> Int64[np.ndarray, " rows"]:
        """-1 where there is none."""
        ids = np.asarray(rows[self.column])
        return (ids if ids.ndim == 1 else ids[:, 0]).astype(np.int64)


P = TypeVar("P", bound=Parameters)


class ClassReader(Labeler[P]):
    """An operator on classes; a subclass says which labels it reads and where further classes come from."""

    needs: tuple[str, ...] = (KEY,)

    def __init__(self, parameters: P, label: str = "") -> None:
        super().__init__(parameters, label)
        sources = self.sources().values()
        labels = [source.label for source in sources if source.label is not None]
        self.reads = tuple(dict.fromkeys([*self.read_labels(), *labels]))
        self.wants = tuple(dict.fromkeys(source.field for source in sources if source.field is not None))

    @abstractmethod
    def read_labels(self) -> Sequence[str]:
        """The labels that it reads, but for those of `sources`."""

    def sources(self) -> Mapping[str, ClassSource]:
        """Where further classes come from, by what they are for: `given`, `gold`."""
        return {}

    @property
    def class_label(self) -> LabelContract:
        """The contract of the label whose classes all others must have."""
        return self.contract_of(self.read_labels()[0])

    @property
    def classes(self) -> Classes:
        """The classes that are spoken of."""
        found = self.class_label.classes
        if found is None:
            raise UsageError(f"{self.label} reads the label {self.class_label.name!r}, which has no classes.")
        return found

    def class_names(self) -> Sequence[str]:
        return self.input_names.get(self.class_label.name, ()) if self.inputs else ()

    def contract_of(self, label: str) -> LabelContract:
        """Raises UsageError where no earlier step writes that label."""
        if label not in self.inputs:
            raise UsageError(f"{self.label} reads the label {label!r}: put the step that writes it before this one.")
        return self.inputs[label]

    def ids_from(self, role: str) -> ClassIds:
        """Raises UsageError where it is a label of other classes."""
        source = self.sources()[role]
        if source.label is None:
            return ClassIds(role, source)
        contract = self.contract_of(source.label)
        if contract.kind != "classes" or contract.classes != self.classes:
            raise UsageError(
                f"{self.label} compares the labels {contract.name!r} and {self.class_label.name!r}, which must be of "
                f"kind classes and have the same classes in the same order, got {contract.kind} with "
                f"{contract.classes} and {self.classes}."
            )
        return ClassIds(f"{source.label}_ids", source)

    def probabilities_of(self, label: str, partial: bool = False) -> Probabilities:
        """`partial`: labels with the best classes alone will do. Raises UsageError where it is a label of others."""
        found = Probabilities(self.contract_of(label), "even" if partial else "refuse")
        if found.classes != self.classes:
            raise UsageError(
                f"{self.label} reads the labels {label!r} and {self.class_label.name!r}, which must have the same "
                f"classes in the same order, got {found.classes} and {self.classes}."
            )
        return found

    def numerics(self) -> dict[str, Json]:
        return {"numpy": np.__version__}

    def prepare(self, sample: Fields) -> Prepared:
        """The key, and the classes that fields give."""
        found = {"key": np.array(text_of(sample[KEY], "the key"))}
        for role, source in self.sources().items():
            if source.field is not None:
                found[role] = self.read_class(sample.get(source.field), source.field)
        return found

    def read_class(self, value: Value, field: str) -> np.ndarray:
        """What a field gives, as a batch has it: the class's id."""
        return np.array(self.id_of(value, field), np.int64)

    def id_of(self, value: Value, field: str) -> int:
        """The class that a field names; raises BadSample(BAD_METADATA) where there is none of that name."""
        text = text_of(value, field).strip()
        if not text:
            return UNKNOWN
        names = tuple(self.class_names())
        if text in names:
            return names.index(text)
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < self.classes.count:
            return int(text)
        known = ", ".join(names[:10]) or f"0 to {self.classes.count - 1}"
        raise BadSample(Reason.BAD_METADATA, f"{field} must name one of the classes ({known}), got {text[:80]!r}")


def text_of(value: Value, name: str) -> str:
    """A field as text, empty where there is none; raises BadSample(BAD_METADATA)."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    if len(text) > MAX_CHARACTERS:
        raise BadSample(Reason.BAD_METADATA, f"{name} has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    return text.encode("utf-8", "replace").decode()
