"""Where: conditions on a sample's metadata that decide which samples are labelled at all."""

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from ..digests import Json
from ..errors import BadSample
from ..reasons import Reason
from .shard import Sample, Value

Scalar = bool | int | float | str

MISSING = object()


class Condition(BaseModel):
    """One field and what must hold of it; several operators must all hold. In YAML: `{field: json.width, ge: 256}`.

    Text is compared as a number where the operand is one. A sample without the field is admitted by `ne`, `not_in` and
    `exists: false` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    field: str = Field(min_length=1)
    """A field of the sample, or a member of its JSON: `cls`, `json.width`, `json.exif.make`."""
    eq: Scalar | None = None
    """Equal."""
    ne: Scalar | None = None
    """Not equal."""
    lt: Scalar | None = None
    """Less than; text by code points."""
    le: Scalar | None = None
    """Less than or equal."""
    gt: Scalar | None = None
    """Greater than."""
    ge: Scalar | None = None
    """Greater than or equal."""
    in_: tuple[Scalar, ...] | None = Field(default=None, alias="in")
    """Equal to one of these."""
    not_in: tuple[Scalar, ...] | None = None
    """Equal to none of these."""
    exists: bool | None = None
    """Whether the field is there and not null."""
    matches: str | None = None
    """A regular expression found anywhere in the text; anchor it with ^ and $."""

    @model_validator(mode="after")
    def is_complete(self) -> "Condition":
        if len(self.as_written()) < 2:
            raise ValueError("a condition needs an operator: eq, ne, lt, le, gt, ge, in, not_in, exists or matches")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"matches: {self.matches!r} is not a regular expression ({error})") from error
        return self

    @model_serializer
    def as_written(self) -> dict[str, Json]:
        """The operators that were given, under the names of the recipe."""
        given = {name.rstrip("_"): value for name, value in self if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def holds(self, value: Any) -> bool:
        """Whether `value`, or MISSING, is admitted."""
        if value is None:
            value = MISSING
        if self.exists is not None and self.exists != (value is not MISSING):
            return False
        demands = [name for name in OPERATORS if getattr(self, name) is not None]
        if value is MISSING:
            return set(demands) <= {"ne", "not_in"}
        if not demands:
            return True
        read = text(self.field, value)
        return all(OPERATORS[name](read, getattr(self, name)) for name in demands)


class Where:
    """All conditions together."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self.conditions = tuple(conditions)

    def admits(self, sample: Sample) -> bool:
        """Whether every condition holds; raises BadSample(BAD_METADATA) where a field is not UTF-8 or not JSON."""
        parsed: dict[str, Any] = {}
        return all(each.holds(look_up(sample.fields, each.field, parsed)) for each in self.conditions)


def look_up(fields: Mapping[str, Value], path: str, parsed: dict[str, Any]) -> Any:
    """The value at `path`, or MISSING: a field of that very name, else the longest that leads into its JSON.

    `parsed` holds what was parsed before of the same sample.
    """
    if path in fields:
        return fields[path]
    name = path
    while "." in name:
        name = name.rpartition(".")[0]
        if name in fields:
            if name not in parsed:
                parsed[name] = parse(name, fields[name])
            return descend(parsed[name], path[len(name) + 1 :])
    return MISSING


def descend(value: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def text(name: str, value: Value) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadSample(Reason.BAD_METADATA, f"field {name!r}, which `where` reads, is not UTF-8 text") from error


def parse(name: str, value: Value) -> Any:
    try:
        return json.loads(value) if isinstance(value, bytes | str) else MISSING
    except (ValueError, RecursionError) as error:
        raise BadSample(Reason.BAD_METADATA, f"field {name!r}, which `where` reads, is not JSON ({error})") from error


def equal(value: Any, operand: Scalar) -> bool:
    comparable = like(value, operand)
    return comparable is not MISSING and bool(comparable == operand)


def among(value: Any, operands: Sequence[Scalar]) -> bool:
    return any(equal(value, operand) for operand in operands)


def found_in(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.search(pattern, value) is not None


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """`compare`, false where the two are of different kinds."""

    def holds(value: Any, operand: Scalar) -> bool:
        comparable = like(value, operand)
        return comparable is not MISSING and compare(comparable, operand)

    return holds


def like(value: Any, operand: Scalar) -> Any:
    """`value` as something that compares with `operand`; MISSING where it is of another kind."""
    if isinstance(operand, bool) or isinstance(value, bool):
        return value if isinstance(operand, bool) and isinstance(value, bool) else MISSING
    if isinstance(operand, str):
        return value if isinstance(value, str) else MISSING
    if isinstance(value, int | float):
        return value
    return to_number(value) if isinstance(value, str) else MISSING


def to_number(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return MISSING


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": equal,
    "ne": lambda value, operand: not equal(value, operand),
    "lt": ordered(operator.lt),
    "le": ordered(operator.le),
    "gt": ordered(operator.gt),
    "ge": ordered(operator.ge),
    "in_": among,
    "not_in": lambda value, operands: not among(value, operands),
    "matches": found_in,
}
"""By the field of Condition that holds the operand."""
