"""Channels: names such as `prod` that move from release to release; every move is kept, with who made it and why.

Move n of a channel is `channels/<name>/<n as ten digits>.json`, created once; the last one says what the channel means.
"""

import dataclasses
import re
from collections.abc import Mapping

from ..digests import Json, sha256
from ..errors import Refused, StoreConflict, StoreCorrupt, UsageError
from ..storage.objects import ObjectStore
from . import notices
from .recalls import find_recall
from .stored import in_threads
from .tags import NAME, RESERVED, tag_names
from .versions import read_version, version_digest, version_path

FOLDER = "channels"
PATH = re.compile(rf"{FOLDER}/([^/]+)/(\d{{10}})\.json")


@dataclasses.dataclass(frozen=True)
class Move:
    """One move of a channel."""

    channel: str
    number: int
    """From 1."""
    release: int
    release_sha256: str
    """Of the version's file."""
    by: str
    reason: str
    created: str
    """UTC, ISO 8601; for people."""

    def to_json(self) -> dict[str, Json]:
        return dataclasses.asdict(self)


def move_path(channel: str, number: int) -> str:
    return f"{FOLDER}/{channel}/{number:010d}.json"


def promote(store: ObjectStore, release: int, channel: str, by: str, reason: str, created: str) -> Move:
    """Move a channel to a release; the last move where it is there already.

    Raises Refused for a release that is recalled or partial, StoreConflict where somebody else moved it meanwhile.
    """
    require_channel(store, channel)
    if recall := find_recall(store, release):
        raise Refused(f"release {release} of {store.url} is recalled ({recall}); it is not promoted.")
    if read_version(store, release).partial:
        raise Refused(f"release {release} of {store.url} is partial; promote a complete one.")
    last = find_move(store, channel)
    if last is not None and last.release == release:
        return last
    move = Move(
        channel, 1 if last is None else last.number + 1, release, version_digest(store, release), by, reason, created
    )
    path = move_path(channel, move.number)
    won = notices.post(store, path, move.to_json())
    if won != move.to_json():
        raise StoreConflict(
            f"{won['by']} moved {channel!r} to release {won['release']} at the same time. Look at it, and promote "
            "again if it shall move on."
        )
    return move


def require_channel(store: ObjectStore, name: str) -> None:
    """Raises UsageError where a channel may not be called so."""
    if not NAME.fullmatch(name) or name in RESERVED or re.fullmatch(r"v\d+", name):
        raise UsageError(
            f"a channel is a letter, then letters, digits, `.`, `_`, `-`, and not {RESERVED[0]!r}; got {name!r}."
        )
    if name in tag_names(store):
        raise UsageError(f"{name!r} is a tag of {store.url}, which never moves: give the channel another name.")


def find_move(store: ObjectStore, channel: str) -> Move | None:
    """The last move of a channel; None where there is no such channel."""
    numbers = move_numbers(store).get(channel, [])
    return read_move(store, channel, max(numbers)) if numbers else None


def channel_names(store: ObjectStore) -> list[str]:
    return sorted(move_numbers(store))


def read_channel(store: ObjectStore, channel: str) -> int:
    """The release that a channel means; raises StoreCorrupt where that is not the one that was promoted."""
    move = find_move(store, channel)
    assert move is not None, "there is no such channel"
    path = version_path(move.release)
    if sha256(store.get(path)) != move.release_sha256:
        raise StoreCorrupt(f"{store.full_url(path)} is not the file that was promoted to {channel!r}.")
    return move.release


def read_moves(store: ObjectStore) -> dict[str, list[Move]]:
    """Channel -> its moves, oldest first."""
    places = [(name, number) for name, numbers in move_numbers(store).items() for number in sorted(numbers)]
    moves: dict[str, list[Move]] = {}
    for move in in_threads(lambda place: read_move(store, *place), places):
        moves.setdefault(move.channel, []).append(move)
    return moves


def read_channels(store: ObjectStore) -> dict[str, int]:
    """Channel -> the release that it means now."""
    last = [(name, max(numbers)) for name, numbers in move_numbers(store).items()]
    return {move.channel: move.release for move in in_threads(lambda place: read_move(store, *place), last)}


def move_numbers(store: ObjectStore) -> Mapping[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for info in store.list(FOLDER):
        if found := PATH.fullmatch(info.path):
            numbers.setdefault(found[1], []).append(int(found[2]))
    return numbers


def read_move(store: ObjectStore, channel: str, number: int) -> Move:
    return Move(**notices.read(store, move_path(channel, number)))
