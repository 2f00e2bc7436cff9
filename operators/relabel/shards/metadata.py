"""Metadata: the value at a path of a sample's fields, read strictly: what can be read in two ways costs the sample."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import BadSample
from ..reasons import Reason
from .limits import MAX_METADATA_BYTES
from .shard import Value

MISSING = object()


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
