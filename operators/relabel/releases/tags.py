"""Tags: names for releases, each given once and never moved."""

import re
from collections.abc import Sequence

from ..digests import Json, seal, sha256, unseal
from ..errors import StoreConflict, StoreCorrupt, UnknownName, UsageError
from ..storage.objects import ObjectStore, settle
from .stored import in_threads
from .versions import version_digest, version_path

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
RESERVED = ("latest",)


def tag_path(name: str) -> str:
    return f"tags/{name}.json"


def write_tag(store: ObjectStore, name: str, number: int) -> None:
    """Name a version; naming it again the same is no error. Raises StoreConflict where the name is another's."""
    if not NAME.fullmatch(name) or name in RESERVED or re.fullmatch(r"v\d+", name):
        raise UsageError(
            f"a tag is a letter, then letters, digits, `.`, `_`, `-`, and not {RESERVED[0]!r}; got {name!r}."
        )
    fields: dict[str, Json] = {"version": number, "version_sha256": version_digest(store, number)}
    won = unseal(settle(store, tag_path(name), seal(fields)), store.full_url(tag_path(name)))
    if won != fields:
        raise StoreConflict(f"the tag {name!r} names version {won['version']} already and never moves. Choose another.")


def read_tag(store: ObjectStore, name: str, channels: Sequence[str] = ()) -> int:
    """The version that a tag names; raises UnknownName, StoreCorrupt where that is not the version named then."""
    names = tag_names(store)
    if name not in names:
        known = ["latest", *names, *channels]
        raise UnknownName("release", name, known, "A release is `latest`, a number, a tag or a channel.")
    fields = unseal(store.get(tag_path(name)), store.full_url(tag_path(name)))
    number = int(fields["version"])
    if sha256(store.get(version_path(number))) != fields["version_sha256"]:
        raise StoreCorrupt(f"{store.full_url(version_path(number))} is not the file that the tag {name!r} names.")
    return number


def tag_names(store: ObjectStore) -> list[str]:
    return [info.path.removeprefix("tags/").removesuffix(".json") for info in store.list("tags")]


def read_tags(store: ObjectStore) -> dict[str, int]:
    """Name -> the version that it names, without a look at that version."""
    names = tag_names(store)
    read = in_threads(lambda name: unseal(store.get(tag_path(name)), store.full_url(tag_path(name))), names)
    return {name: int(fields["version"]) for name, fields in zip(names, read, strict=True)}
