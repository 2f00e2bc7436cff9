"""Digests: one way to write JSON, one way to hash it, and JSON objects that carry their own digest.

A sealed object is canonical JSON whose `sha256` field is the digest of all its other fields. Reading it back
re-serialises it, so that every flipped, lost or added byte is found.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .errors import StoreCorrupt

Json = Any

SAMPLE_DIGEST_BYTES = 16
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Json) -> bytes:
    """UTF-8, sorted keys, no spaces, no NaN: equal values give equal bytes."""
    return CANONICAL.encode(value).encode()


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(value: Json) -> str:
    """sha256 of the canonical JSON of `value`, as 64 hex digits."""
    return sha256(canonical_json(value))


def sample_digest(data: bytes | memoryview) -> bytes:
    """The first 16 bytes of the sha256 of a sample's encoded media."""
    return hashlib.sha256(data).digest()[:SAMPLE_DIGEST_BYTES]


def seal(fields: Mapping[str, Json]) -> bytes:
    """The bytes of a JSON object that carries the digest of its own fields."""
    return canonical_json({**fields, "sha256": digest(dict(fields))}) + b"\n"


def unseal(data: bytes, path: str) -> dict[str, Json]:
    """The fields of a sealed object.

    Raises StoreCorrupt, naming `path`, where any byte differs from what `seal` wrote.
    """
    try:
        fields: Json = json.loads(data)
        sealed = isinstance(fields, dict) and fields.pop("sha256", None) is not None
        same = sealed and seal(fields) == data
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{path} is not JSON ({error}); it was damaged after it was written.") from error
    if not sealed:
        raise StoreCorrupt(f"{path} is not an object that relabel wrote (it has no sha256 field).")
    if not same:
        raise StoreCorrupt(f"{path} does not match the digest that it carries; it was damaged after it was written.")
    return dict(fields)
