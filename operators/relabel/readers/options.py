"""Options: how a dataset reads; every field is an argument of `release.dataset` and `release.indexed`."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from ..digests import Json
from ..errors import UnknownName, UsageError
from .dealing import Remainder
from .identity import Check
from .plan import OnMissing

OnExtra = Literal["skip", "error"]
CACHE_BYTES = 100 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to read."""

    seed: int = 0
    """Of the order of shards and samples, and of every sample's `__seed__`."""
    shuffle: int = 1000
    """Samples in the buffer that they are drawn from (encoded, so about 100 MB of photographs per worker); 1: shards
    are shuffled, samples within them are not; 0: nothing is."""
    rank: int | None = None
    """Which of `world` ranks this is. Default: torch.distributed's where it is initialised, else RANK, else 0."""
    world: int | None = None
    remainder: Remainder = "drop"
    """Of an epoch that ranks cannot share evenly: `drop` at most world - 1 samples, `pad` by as many that come again,
    or give each once (`exact`: for evaluation, where ranks need not take equally many steps)."""
    batch_size: int = 1
    """The DataLoader's: workers then get whole batches, and len(loader) is exact with any number of them."""
    on_missing: OnMissing = "skip"
    """Of a sample without a label, or a label without its sample: leave it out, raise, or (`none`) give the sample
    with None in the label's place. Withdrawn samples are always left out."""
    on_extra: OnExtra = "skip"
    """Of a sample or shard of the source that the release does not know: leave it out or raise."""
    on_mismatch: OnExtra = "error"
    """Of a sample that is not what was labelled."""
    check: Check = "auto"
    """What proves that a sample is what was labelled: its shard's size and version, else its own digest (`auto`); only
    the shard's (`shard`: refuses copies); always its digest (`digest`, about 0.06 ms per 110 kB); its key (`none`)."""
    decode: bool = True
    """Whether `image` is an opened PIL image; else it is the encoded bytes."""
    fields: Sequence[str] | None = None
    """Which of the source's fields a sample keeps. Default: all but the encoded image that `image` was opened from
    (transforms see it, too)."""
    cache: str | os.PathLike[str] | None = None
    """A folder on local disk that keeps shards of a remote source."""
    cache_bytes: int = CACHE_BYTES
    """What it may hold."""
    storage_options: Mapping[str, Json] | None = None
    """fsspec's, of the media. Default: the recipe's at the recipe's own place."""


def options_of(given: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Options:
    """Raises UnknownName for an option that does not exist, UsageError for a value that it cannot have."""
    fields = {field.name: field.default for field in dataclasses.fields(Options)}
    for name in given:
        if name not in (allowed or fields):
            raise UnknownName("option", name, allowed or fields)
    values = {**fields, **given}
    for name, kind in CHOICES.items():
        if values[name] not in get_args(kind):
            raise UsageError(f"{name} must be one of {', '.join(get_args(kind))}, got {values[name]!r}.")
    for name, least in LEAST.items():
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
            at_least = "" if least is None else f" of at least {least}"
            raise UsageError(f"{name} must be a whole number{at_least}, got {value!r}.")
    if isinstance(values["fields"], str):
        raise UsageError(f"fields must be a list of names, got the text {values['fields']!r}.")
    rank, world = values["rank"], values["world"]
    if (rank is None) != (world is None):
        raise UsageError(f"give rank and world together, got rank={rank!r} and world={world!r}.")
    if rank is not None:
        check_place(rank, world)
    return Options(**given)


CHOICES: Mapping[str, Any] = {
    "remainder": Remainder, "on_missing": OnMissing, "on_extra": OnExtra, "on_mismatch": OnExtra, "check": Check,
}  # fmt: skip
LEAST: Mapping[str, int | None] = {"seed": None, "shuffle": 0, "batch_size": 1, "cache_bytes": 0}


def check_place(rank: Any, world: Any) -> None:
    """Raises UsageError where there is no such rank."""
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in (rank, world)) or not 0 <= rank < world:
        raise UsageError(f"rank must lie in 0 to world - 1, got rank {rank!r} of {world!r}.")
