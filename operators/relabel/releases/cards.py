"""Cards: files that describe a release to programs that do not know relabel, written before its commit.

`cards/<sha256>.json` is named by its content, and by the version under its kind, so that `verify` checks it and
`collect` keeps it. `croissant` is Croissant 1.0 metadata, `lineage` an OpenLineage event. The readme is made when it is
asked for.
"""

import json
from collections.abc import Sequence

from ..digests import Json
from ..errors import UnknownName
from ..storage.objects import ObjectStore
from . import croissant, lineage
from .readme import readme
from .segments import Entry
from .stored import create_named, get_checked, in_threads
from .versions import Version

FOLDER = "cards"
README = "readme"


def card_bytes(card: Json) -> bytes:
    """In the order in which it was made, for people read it, too."""
    return json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def with_cards(store: ObjectStore, version: Version, entries: Sequence[Entry]) -> Version:
    """The version with its cards, which are written; one that is not published leaves garbage, not a lie."""
    cards = {"croissant": croissant.describe(version, entries), "lineage": lineage.event(store.url, version)}
    made = in_threads(lambda card: create_named(store, FOLDER, card_bytes(card), ".json"), [*cards.values()])
    return version.model_copy(update={"cards": dict(zip(cards, made, strict=True))})


def announce(store: ObjectStore, version: Version) -> None:
    """Tell who listens that a release was published; never fails (see `lineage.send`)."""
    if lineage.listener():
        lineage.send(card_bytes(lineage.event(store.url, version)))


def read_card(store: ObjectStore, version: Version, kind: str) -> str:
    """The text of a card; raises UnknownName where the release has none of this kind, StoreCorrupt where it is damaged.

    A release from before there were cards has a readme alone.
    """
    if kind == README:
        return readme(version)
    if kind not in version.cards:
        hint = "" if version.cards else f"Release {version.version} was published before releases had cards."
        raise UnknownName("card", kind, [*version.cards, README], hint)
    return get_checked(store, version.cards[kind]).decode()
