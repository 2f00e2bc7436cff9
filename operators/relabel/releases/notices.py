"""Notices: small sealed objects, each created once, that say something of releases whose own files never change.

Recalls, withdrawals, redactions and plans to collect are notices. Each carries the store's format number.
"""

from collections.abc import Mapping

from ..digests import Json, seal, unseal
from ..storage.objects import ObjectStore, settle
from .stored import in_threads
from .versions import PLAIN_FORMAT, check_format


def post(store: ObjectStore, path: str, fields: Mapping[str, Json]) -> dict[str, Json]:
    """Create a notice; returns the fields that stand, which are another's where that was first."""
    return parse(settle(store, path, seal({"format": PLAIN_FORMAT, **fields})), store.full_url(path))


def read(store: ObjectStore, path: str) -> dict[str, Json]:
    """Raises ObjectMissing, StoreCorrupt where it is damaged, Refused where it is of a newer format."""
    return parse(store.get(path), store.full_url(path))


def read_all(store: ObjectStore, folder: str) -> dict[str, dict[str, Json]]:
    """Path -> fields of every notice in a folder, by path."""
    paths = [info.path for info in store.list(folder) if info.path.endswith(".json")]
    return dict(zip(paths, in_threads(lambda path: read(store, path), paths), strict=True))


def parse(data: bytes, url: str) -> dict[str, Json]:
    fields = unseal(data, url)
    check_format(fields.pop("format", None), url)
    return fields
