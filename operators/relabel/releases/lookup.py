"""Lookup: which version a selector means: a number, a tag, a channel, or `latest`."""

import re
from collections.abc import Sequence

from ..errors import Recalled, UnknownName
from ..storage.objects import ObjectStore
from .channels import channel_names, read_channel
from .recalls import read_recalls
from .retirements import read_retired
from .tags import read_tag, tag_names
from .versions import read_version, sequence_numbers, version_numbers


def find_version(objects: ObjectStore, selector: int | str, accept_partial: bool = False) -> int:
    """The number that a selector means, of a version that exists; see `Store.release` for `latest`."""
    numbers = version_numbers(objects)
    wanted = as_number(selector)
    if selector == "latest" and numbers:
        return newest_usable(objects, numbers, accept_partial)
    if wanted is None and selector != "latest":
        channels = channel_names(objects)
        if selector in channels:
            return read_channel(objects, str(selector))
        return read_tag(objects, str(selector), channels)
    if wanted not in numbers:
        if wanted in sequence_numbers(objects):
            read_version(objects, wanted)  # a fence: raises, and says so
        known = [*map(str, numbers[-10:]), *tag_names(objects), *(["latest"] if numbers else [])]
        hint = "" if numbers else "Nothing has been published here yet."
        raise UnknownName("release", str(selector), known, hint)
    return wanted


def newest_usable(objects: ObjectStore, numbers: Sequence[int], accept_partial: bool) -> int:
    """The newest that is not recalled or retired, and complete where one is and partial ones are not accepted.

    Raises Recalled where there is none.
    """
    recalls = read_recalls(objects)
    usable = [number for number in numbers if number not in recalls]
    if recalls:  # else the newest never is
        retired = read_retired(objects)
        usable = [number for number in usable if number not in retired]
    if not usable:
        raise Recalled(f"every release of {objects.url} is recalled; the newest, {numbers[-1]}: {recalls[numbers[-1]]}")
    return usable[-1] if accept_partial else newest_complete(objects, usable)


def newest_complete(objects: ObjectStore, numbers: Sequence[int]) -> int:
    """Usually the last; a long run puts some milestones behind it. The last where none is complete."""
    complete = (number for number in reversed(numbers) if not read_version(objects, number).partial)
    return next(complete, numbers[-1])


def as_number(selector: int | str) -> int | None:
    found = re.fullmatch(r"v?(-?[0-9]{1,18})", str(selector))
    return int(found[1]) if found else None
