"""Where: conditions on a sample's metadata that decide which samples are labelled at all.

Of a caption they tell how long it is, whether it is a file's name instead, and in which language it is.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from .. import languages
from ..digests import Json
from . import wording
from .metadata import MISSING, look_up, text
from .shard import Sample, Value

Scalar = bool | int | float | str


class Length(BaseModel):
    """How long a text is; all that is given must hold. In YAML: `{lt: 4}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    eq: int | None = Field(default=None, ge=0)
    """Exactly."""
    lt: int | None = Field(default=None, ge=0)
    """Less than."""
    le: int | None = Field(default=None, ge=0)
    """At most."""
    gt: int | None = Field(default=None, ge=0)
    """More than."""
    ge: int | None = Field(default=None, ge=0)
    """At least."""

    @model_validator(mode="after")
    def is_complete(self) -> "Length":
        if not self.as_written():
            raise ValueError("a length needs a bound: eq, lt, le, gt or ge, such as `words: {lt: 4}`")
        return self

    @model_serializer
    def as_written(self) -> dict[str, Json]:
        """The bounds that were given."""
        return {name: value for name, value in self if value is not None}

    def holds(self, length: int) -> bool:
        return all(getattr(operator, name)(length, bound) for name, bound in self.as_written().items())


class Condition(BaseModel):
    """One field and what must hold of it; several operators must all hold. In YAML: `{field: json.width, ge: 256}`.

    Or `any` of several conditions. Text is compared as a number where the operand is one. A sample without the field is
    admitted by `ne`, `not_in`, `not_language` and `exists: false` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    field: str = ""
    """A field of the sample, or a member of its JSON: `cls`, `json.width`, `json.exif.make`."""
    any: tuple["Condition", ...] | None = None
    """At least one of these conditions holds; stands alone."""
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
    words: Length | None = None
    """How many words the text has (runs between spaces with a letter or digit in them): `{lt: 4}`."""
    characters: Length | None = None
    """How many characters the text has, without spaces at its ends."""
    looks_like_file_name: bool | None = None
    """Whether the text is the name of a file, a path, a link, a digest or a number (`IMG_1234.jpg`), no caption."""
    language: tuple[str, ...] | None = None
    """ISO 639 code (`en`), or a list: the text may well be in one of these. A detector tells, which mostly guesses
    where there are fewer than four words; needs `relabel-ray[captions]`."""
    not_language: tuple[str, ...] | None = None
    """The text is in none of these languages, as far as the detector can tell, or in none at all."""

    @field_validator("language", "not_language", mode="before")
    @classmethod
    def from_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("language", "not_language")
    @classmethod
    def are_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not codes:
            raise ValueError("expected a language such as `en`, or a list of them; it is empty")
        return tuple(map(languages.check_code, codes))

    @model_validator(mode="after")
    def is_complete(self) -> "Condition":
        if self.any is not None:
            if not self.any or len(self.as_written()) > 1:
                raise ValueError("`any` expects a list of conditions and stands alone: `{any: [{field: ...}, ...]}`")
            return self
        if not self.field:
            raise ValueError("a condition needs a field: `{field: txt, words: {lt: 4}}`, or `any` of several")
        if len(self.as_written()) < 2:
            raise ValueError(f"a condition needs an operator: {', '.join(map(written_name, [*OPERATORS, 'exists']))}")
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
        given = {written_name(name): value for name, value in self if value is not None}
        if not self.field:
            del given["field"]
        return {name: plain(value) for name, value in given.items()}

    def parts(self) -> Iterator["Condition"]:
        """The conditions on fields that it is made of: itself, or those in `any`."""
        if self.any is None:
            yield self
        for each in self.any or ():
            yield from each.parts()

    def admits(self, fields: Mapping[str, Value], parsed: dict[str, Any]) -> bool:
        """Whether it holds of a sample; `parsed` as in `look_up`."""
        if self.any is not None:
            return any(each.admits(fields, parsed) for each in self.any)
        return self.holds(look_up(fields, self.field, parsed))

    def __str__(self) -> str:
        if self.any is not None:
            return f"({' or '.join(map(str, self.any))})"
        rest = [(name, value) for name, value in self.as_written().items() if name != "field"]
        return " and ".join(f"{self.field} {name} {value!r}" for name, value in rest)

    def holds(self, value: Any) -> bool:
        """Whether `value`, or MISSING, is admitted."""
        if value is None:
            value = MISSING
        if self.exists is not None and self.exists != (value is not MISSING):
            return False
        demands = [name for name in OPERATORS if getattr(self, name) is not None]
        if value is MISSING:
            return set(demands) <= {"ne", "not_in", "not_language"}
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
        return all(each.admits(sample.fields, parsed) for each in self.conditions)


def rules_of(conditions: Sequence[Condition]) -> dict[str, Json]:
    """What decides beside the conditions' own words, by operator: the version of a rule, the digest of a model.

    Raises UsageError where a package that they need is not installed.
    """
    parts = [part for each in conditions for part in each.parts()]
    rules: dict[str, Json] = {}
    if any(part.looks_like_file_name is not None for part in parts):
        rules["looks_like_file_name"] = wording.VERSION
    if any(part.language or part.not_language for part in parts):
        rules["language"] = languages.model_digest()
    return rules


def written_name(name: str) -> str:
    """As recipes have it: `in` for `in_`."""
    return name.rstrip("_")


def plain(value: Any) -> Json:
    """An operand as JSON."""
    if isinstance(value, Condition | Length):
        return value.as_written()
    return [plain(each) for each in value] if isinstance(value, tuple) else value


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


def of_text(test: Callable[[str, Any], bool]) -> Callable[[Any, Any], bool]:
    """`test`, false where the value is no text."""
    return lambda value, operand: isinstance(value, str) and test(value, operand)


def in_any_language(value: str, codes: Sequence[str]) -> bool:
    return any(languages.is_in(value, code) for code in codes)


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
    "words": of_text(lambda value, length: length.holds(wording.num_words(value))),
    "characters": of_text(lambda value, length: length.holds(wording.num_characters(value))),
    "looks_like_file_name": of_text(lambda value, wanted: wording.looks_like_file_name(value) is wanted),
    "language": of_text(in_any_language),
    "not_language": of_text(lambda value, codes: not in_any_language(value, codes)),
}
"""By the field of Condition that holds the operand."""
