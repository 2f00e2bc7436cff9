"""Retirements: old releases whose labels are not kept for ever; what they held stays known, the files may go.

`retired/v%010d.json` is created once. A retired release keeps its number, its segments and its cards; label shards that
no other release holds are garbage (see `collect`). One that a tag or channel names is not retired, whatever lies there.
"""

import re

from ..errors import Refused, UsageError
from ..storage.objects import ObjectStore
from . import notices
from .channels import read_channels
from .recalls import read_recalls
from .stored import in_threads
from .tags import read_tags
from .versions import read_version, version_numbers

FOLDER = "retired"
NAME = re.compile(rf"{FOLDER}/v(\d{{10}})\.json")


def retired_path(number: int) -> str:
    return f"{FOLDER}/v{number:010d}.json"


def retire(store: ObjectStore, keep: int) -> list[int]:
    """Retire what is older than the last `keep` complete releases that are not recalled; returns those retired now."""
    if keep < 1:
        raise UsageError(f"keep must be at least 1, got {keep}.")
    numbers, recalls = version_numbers(store), read_recalls(store)
    kept = 0
    for place in reversed(range(len(numbers))):
        if numbers[place] not in recalls and not read_version(store, numbers[place]).partial:
            kept += 1
        if kept == keep:
            known = {*marked(store), *protected(store)}
            old = [number for number in numbers[:place] if number not in known]
            in_threads(lambda number: notices.post(store, retired_path(number), {"version": number, "keep": keep}), old)
            return old
    return []


def read_retired(store: ObjectStore) -> frozenset[int]:
    """Costs one listing where nothing was ever retired."""
    found = marked(store)
    return found - protected(store) if found else found


def marked(store: ObjectStore) -> frozenset[int]:
    return frozenset(int(found[1]) for name in store.names(FOLDER) if (found := NAME.fullmatch(name)))


def protected(store: ObjectStore) -> frozenset[int]:
    """Releases that a tag or a channel names now."""
    return frozenset({*read_tags(store).values(), *read_channels(store).values()})


def find_retirement(store: ObjectStore, number: int) -> str | None:
    """What to say of a release that is retired; None where it is not."""
    if not store.exists(retired_path(number)) or number not in read_retired(store):
        return None
    keep = notices.read(store, retired_path(number))["keep"]
    return (
        f"release {number} of {store.url} was retired: the last {keep} are kept, and its label files may be "
        "deleted. Open a newer one (`relabel log`). What is to stay is given a tag (`relabel tag`) before."
    )


def refuse_retired(store: ObjectStore, number: int) -> None:
    """Raises Refused where a release is retired."""
    if (why := find_retirement(store, number)) is not None:
        raise Refused(why)
