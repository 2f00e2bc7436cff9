"""JSON answers: labels out of what a model was asked to write as JSON, down a ladder, with every failure told apart.

Strict JSON first, then the first object in the text. What fails then is asked for again by the labeler. An answer that
does not parse (`parse_error`), one that names no class of the set (`out_of_taxonomy`) and one that says that none fits
(`other`) are three things: the first two are the model's fault, the third is a finding.
"""

import dataclasses
import json
from typing import Any

from ..digests import Json
from .label_sets import LabelSet, normal

ONE, SEVERAL = "label", "labels"
"""The member that holds the answer."""
MAX_ANSWER = 65_536
"""Characters of an answer that are looked at."""
MAX_TRIES = 32
"""Opening braces from which an object is tried to be read."""
DECODER = json.JSONDecoder()


@dataclasses.dataclass(frozen=True)
class Reading:
    """What an answer says."""

    chosen: tuple[int, ...]
    """Classes, each once, in the order in which they were named."""
    flags: tuple[str, ...]
    """Of parse_error, out_of_taxonomy, other; none where all is well."""

    @property
    def final(self) -> bool:
        """Asking again would be asking for another opinion."""
        return not {"parse_error", "out_of_taxonomy"} & {*self.flags}


def read_answer(text: str, labels: LabelSet, other: str, most: int) -> Reading:
    """The classes that a JSON answer names; `other` is the name that says that none fits, empty: there is none.

    `{"label": NAME}` or `{"labels": [NAME, ...]}`; what it holds beside that is not looked at. More than `most` names,
    or names that are no text, are a parse_error.
    """
    names = names_in(object_in(text[:MAX_ANSWER]))
    if names is None or not names or len(names) > most:
        return Reading((), ("parse_error",))
    found = {name: labels.match(name) for name in names}
    strange = {name for name, number in found.items() if number is None}
    others = {name for name in strange if other and normal(name) == normal(other)}
    chosen = tuple(dict.fromkeys(number for number in found.values() if number is not None))
    flags = (*(["out_of_taxonomy"] if strange - others else []), *(["other"] if others else []))
    return Reading(chosen, flags)


def object_in(text: str) -> Json:
    """The object that a text is, or the first that it holds; None where it holds none."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    place = -1
    for _ in range(MAX_TRIES):
        place = text.find("{", place + 1)
        if place < 0:
            break
        try:
            found, _ = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        return found
    return None


def names_in(found: Json) -> list[str] | None:
    """None where the object has not the member, or it does not hold texts."""
    if not isinstance(found, dict) or not {ONE, SEVERAL} & found.keys():
        return None
    held = found.get(SEVERAL, found.get(ONE))
    names: list[Any] = held if isinstance(held, list) else [held]
    return names if all(isinstance(name, str) for name in names) else None


def answer_schema(labels: LabelSet, other: str, most: int) -> dict[str, Json]:
    """The JSON schema of an answer."""
    name = {"type": "string", "enum": [*labels.names, *([other] if other else [])]}
    held = name if most == 1 else {"type": "array", "items": name, "minItems": 1, "maxItems": most}
    member = ONE if most == 1 else SEVERAL
    return {"type": "object", "properties": {member: held}, "required": [member], "additionalProperties": False}
