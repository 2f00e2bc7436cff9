"""Opening: from a URL to the store that fits it."""

from collections.abc import Mapping

from ..digests import Json
from .filesystems import expand, is_local
from .local import LocalStore
from .objects import ObjectStore
from .remote import RemoteStore


def open_store(url: str, options: Mapping[str, Json] | None = None) -> ObjectStore:
    """The object store at a path or URL; nothing is written or asked of it yet (see `resolve` for `options`)."""
    if is_local(url):
        expand(options or {})
        return LocalStore(url)
    return RemoteStore(url, options)
