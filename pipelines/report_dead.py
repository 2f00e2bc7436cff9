"""Report dead letters: some of every reason, with what can still be seen of them."""

import dataclasses
from collections.abc import Mapping, Sequence

from relabel.digests import Json
from relabel.errors import StoreCorrupt
from relabel.reasons import DEAD_REASONS
from relabel.releases.profile import chosen
from relabel.releases.release import Release
from relabel.releases.segments import Entry

from .report_media import THUMB, Finder, Media, cut, picture

MOST_REASONS, MOST_LETTERS, MOST_FILES = 8, 4, 3
"""Reasons that are shown; letters of each; files that are read for each."""
DETAIL_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Letter:
    """One dead letter as the page shows it."""

    shard: str
    key: str
    """"" where it is of a whole shard."""
    detail: str
    attempts: int | None
    picture: str | None = None
    """A data URI."""
    text: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Letters:
    """The dead letters of one reason."""

    reason: str
    count: int
    examples: Sequence[Letter]


def letters(release: Release, finder: Finder) -> list[Letters]:
    """The most frequent reasons, some letters of each."""
    counts = release.counts.reasons
    dead = sorted((reason for reason in counts if reason in DEAD_REASONS), key=lambda each: (-counts[each], each))
    found = {reason: some_letters(release, reason, finder.notes) for reason in dead[:MOST_REASONS]}
    wanted: dict[str, set[str]] = {}
    for letter in (each for examples in found.values() for each in examples if "key" in each):
        wanted.setdefault(letter["shard"], set()).add(letter["key"])
    media = finder.find(wanted)
    return [
        Letters(reason, counts[reason], [shown(each, media) for each in examples]) for reason, examples in found.items()
    ]


def some_letters(release: Release, reason: str, notes: list[str]) -> list[dict[str, Json]]:
    holding = chosen((name for name, entry in release.entries.items() if holds(entry, reason)), MOST_FILES)
    found = []
    try:
        for letter in release.dead_letters(reason, shards=holding):
            found.append(letter)
            if len(found) == MOST_LETTERS:
                break
    except StoreCorrupt as error:
        notes.append(f"Dead letters ({reason}) could not all be read: {error}")
    return found


def holds(entry: Entry, reason: str) -> bool:
    return entry.reason == reason if entry.data is None else bool(entry.reasons.get(reason))


def shown(letter: dict[str, Json], found: Mapping[tuple[str, str], Media]) -> Letter:
    shard, key = letter["shard"], letter.get("key", "")
    media = found.get((shard, key))
    return Letter(
        shard, key, cut(str(letter["detail"]), DETAIL_CHARACTERS), letter["attempts"],
        None if media is None or media.photo is None else picture(media.photo, THUMB),
        (media.text or "") if media else "", media.note if media and media.photo is not None else "",
    )  # fmt: skip
