"""Where: conditions on a sample's metadata that decide which samples are labelled at all."""

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from ..digests import Json
from ..errors import BadSample
from ..reasons import Reason
from .limits import MAX_METADATA_BYTES
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
    """A regular expression (RE2's syntax) found anywhere in the text; anchor it with ^ and $."""

    @model_validator(mode="after")
    def is_complete(self) -> "Condition":
        if len(self.as_written()) < 2:
            raise ValueError("a condition needs an operator: eq, ne, lt, le, gt, ge, in, not_in, exists or matches")
        if any(isinstance(value, float) and not math.isfinite(value) for value in self.operands):
            raise ValueError("expected finite numbers: nothing equals NaN, and every number is below infinity")
        if self.matches is not None:
            try:
                found_in("", self.matches)
            except (pa.ArrowInvalid, UnicodeEncodeError) as error:
                raise ValueError(f"matches: {self.matches[:80]!r} is not a regular expression ({error})") from error
        return self

    @property
    def operands(self) -> list[Scalar]:
        """Everything that is compared with."""
        single = [self.eq, self.ne, self.lt, self.le, self.gt, self.ge]
        return [value for value in (*single, *(self.in_ or ()), *(self.not_in or ())) if value is not None]

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


def text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | str):
        return value
    try:
        # JSON can spell half a character, "\\ud800", which nothing can be compared with.
        return value.decode() if isinstance(value, bytes) else value.encode().decode()
    except UnicodeError as error:
        raise BadSample(Reason.BAD_METADATA, f"field {name!r}, which the recipe reads, is not UTF-8 text") from error


def parse(name: str, value: Value) -> Any:
    """JSON, strictly: where two parsers would see different things (a name twice, NaN), nothing is guessed."""
    if not isinstance(value, bytes | str):
        return MISSING
    if len(value) > MAX_METADATA_BYTES:
        raise BadSample(Reason.BAD_METADATA, f"field {name!r} has {len(value)} bytes, above {MAX_METADATA_BYTES}")
    try:
        return json.loads(value, object_pairs_hook=without_repeats, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise BadSample(
            Reason.BAD_METADATA, f"field {name!r}, which the recipe reads, is not JSON ({error})"
        ) from error


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object names a member twice")
    return found


def no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def equal(value: Any, operand: Scalar) -> bool:
    comparable = like(value, operand)
    return comparable is not MISSING and bool(comparable == operand)


def among(value: Any, operands: Sequence[Scalar]) -> bool:
    return any(equal(value, operand) for operand in operands)


def found_in(value: Any, pattern: str) -> bool:
    # RE2, whose time is linear: no pattern and no text can make it hang.
    return isinstance(value, str) and bool(pc.match_substring_regex(pa.scalar(value), pattern).as_py())


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
