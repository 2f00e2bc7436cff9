"""Report cards: the samples of a gallery as a page shows them: media, the label over them, what it says and said."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from relabel.labels.caption import Caption

from .caption_rows import told
from .mask_rows import ink_on
from .report_gallery import Shown, told_change
from .report_media import Finder, Media, overlay, picture
from .report_samples import Part
from .side_by_side import Pair, class_colours_of
from .wording import percent, short_name

DRAWN = ("label_map", "mask")
"""Kinds of labels that lie over a photograph."""


@dataclasses.dataclass(frozen=True)
class Card:
    """One sample as the page shows it."""

    shard: str
    key: str
    why: str
    change: str
    photo: str | None
    overlays: Sequence[tuple[str, str]]
    """Name and data URI."""
    text: str | None
    old_label: str | None
    says: Sequence[tuple[str, str, str, str]]
    """Who, text, what is known of it, its flags."""
    legend: Sequence[tuple[str, str, str, str, str, str]]
    """Colour, number, its ink, class, share before, share now."""
    others: Sequence[tuple[str, str]]
    note: str


def cards(part: Part, label: str, found: Sequence[Shown], finder: Finder) -> Iterator[Card]:
    """A gallery, with media where they can be read."""
    names = part.release.version.labels[label].class_names
    wanted: dict[str, set[str]] = {}
    for shown in found:
        wanted.setdefault(shown.shard, set()).add(shown.key)
    media = finder.find(wanted, names)
    images = [media.get((shown.shard, shown.key), Media()) for shown in found]
    colours = colours_of(found, images)
    for shown, each, palette in zip(found, images, colours, strict=True):
        yield card(part, label, shown, each, palette)


def colours_of(found: Sequence[Shown], media: Sequence[Media]) -> list[Mapping[int, str]]:
    """Per sample its classes' colours, as previews choose them."""
    blank = np.zeros((1, 1, 3), np.uint8)
    rows = []
    for shown, each in zip(found, media, strict=True):
        if (both := shown.classified) is not None:
            image = blank if each.photo is None else each.photo
            rows.append(Pair(image, shown.key, None, both[0], both[1], shown.cells))
    known = iter(class_colours_of(rows) if rows else [])
    return [next(known) if shown.classified is not None else {} for shown in found]


def card(part: Part, label: str, shown: Shown, media: Media, colours: Mapping[int, str]) -> Card:
    contract, both = part.release.labels[label], shown.classified
    overlays = []
    if media.photo is not None and both is not None and contract.kind in DRAWN:
        sides = [("before", both[0])] if shown.before is not None and shown.classes is not None else []
        overlays = [(who, picture(overlay(media.photo, side, colours))) for who, side in [*sides, ("now", both[1])]]
    old = shown.value.old if isinstance(shown.value, Caption) and shown.value.old is not None else media.old_label
    return Card(
        shown.shard, shown.key, shown.why, told_change(shown, contract),
        None if media.photo is None else picture(media.photo), overlays, media.text, old, [*says(shown)],
        [*legend(part, label, shown, colours)], shown.others, media.note,
    )  # fmt: skip


def says(shown: Shown) -> Iterator[tuple[str, str, str, str]]:
    """What the labels say, before and now; of captions style by style."""
    sides = [("before", shown.before, shown.old_value), ("now", shown.now, shown.value)]
    if isinstance(shown.value, Caption):
        for style in shown.value.texts:
            for who, _, caption in sides:
                if isinstance(caption, Caption) and style in caption.texts:
                    text, named = caption[style], f"{who}, {style}" if len(shown.value.texts) > 1 else who
                    yield named, text.text, told(text), ", ".join(text.flags)
        return
    for who, reading, _ in sides:
        if reading is not None:
            yield who, reading.whole or reading.text, "", ""


def legend(
    part: Part, label: str, shown: Shown, colours: Mapping[int, str]
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """The classes that a label map or mask has on either side."""
    both, version, kind = shown.classified, part.release.version, part.release.labels[label].kind
    if both is None or kind not in DRAWN:
        return
    compared = shown.before is not None and shown.classes is not None
    known = version.labels[label].class_names if shown.classes is None else shown.classes.names
    for number, (index, colour) in enumerate(colours.items(), start=1):
        before, now = (float(side.masses[index]) for side in both)
        if before or now:
            name = short_name(known[index]) if known else f"class {index}"
            place = str(number) if kind == "mask" else ""
            yield colour, place, ink_on(colour), name, percent(before) if compared else "", percent(now)
