"""Sampling: a few samples of a source, spread over its shards, the same ones every time.

No more of a shard is read than it takes to find its share of the samples.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence

from relabel.errors import BadSample, BadShard, TooManyDeadLetters, UsageError
from relabel.shards.shard import Sample, Shard
from relabel.shards.source import SourceConfig
from relabel.shards.where import Condition

from .dead_letters import attempt
from .opening import open_source

SPREAD = 5
"""Shards that are opened where the samples of so many suffice: opening one costs a window of range reads."""
WHOLE_BYTES = 512 << 20
"""Of Parquet, which is read as a whole before its first row, no more shards than make this many bytes, and one."""
MOST_REFUSED = 10_000
"""Samples that `where` refuses, before the search for others is given up."""
TAR_BLOCK = 512

SYMBOLS = {
    ">=": "ge", "<=": "le", "!=": "ne", "==": "eq", "=": "eq", ">": "gt", "<": "lt", "~": "matches",
}  # fmt: skip
CONDITION = re.compile(rf"\s*([^<>=!~\s]+)\s*({'|'.join(SYMBOLS)})\s*(.*?)\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One sample of a source, and where it was found."""

    shard: str
    sample: Sample


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Some samples of a source, by shard and row, and what is known of the whole."""

    found: Sequence[Found]
    source: SourceConfig
    num_shards: int
    """Of the whole source."""
    size_bytes: int
    """Of the whole source."""
    refused: int
    """Samples that were looked at and that `where` does not admit."""
    bad_shards: Sequence[tuple[str, BadShard]]
    """Shards among those opened that could not be read, by name."""

    @property
    def admitted(self) -> float:
        """The fraction of the samples looked at that `where` lets pass."""
        return len(self.found) / (len(self.found) + self.refused)

    @property
    def samples_in_source(self) -> int:
        """Estimated from the mean size of the samples found; other columns of Parquet shards are not counted."""
        tar = self.source.kind == "webdataset"
        mean = sum(stored_bytes(found.sample, tar) for found in self.found) / len(self.found)
        return max(len(self.found), round(self.size_bytes / max(1.0, mean)))


def parse_condition(text: str) -> Condition:
    """`json.width>=256`, `cls=471`, `json.title~^A`: a field, one of >= <= != = > < ~ (matches), and a value.

    A number or true or false is one, unless in double quotes. Raises UsageError.
    """
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--where expects FIELD then one of {' '.join(SYMBOLS)} then VALUE, e.g. 'json.width>=256', got {text!r}."
        )
    field, symbol, value = match.groups()
    operator = SYMBOLS[symbol]
    operand = value if operator == "matches" else scalar(value)
    try:
        return Condition.model_validate({"field": field, operator: operand})
    except ValueError as error:
        raise UsageError(f"--where {text!r}: {error}") from None


def scalar(text: str) -> str | int | float | bool:
    """What JSON makes of a word, else the word."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) else text


def take(config: SourceConfig, limit: int) -> Sampling:
    """The first samples that `where` admits, `limit` in all, spread evenly over up to SPREAD shards.

    Where those hold too few, the rest of the source is looked through. A sample whose metadata cannot be read is
    admitted: it becomes a dead letter. Raises UsageError where no sample is found, TooManyDeadLetters where no shard
    can be read.
    """
    shards = open_source(config).shards()
    search = Search(config)
    chosen = spread(shards, most_shards(config, shards, limit))
    for index, shard in enumerate(chosen):
        search.read(shard, -(-(limit - len(search.found)) // (len(chosen) - index)))
    for shard in shards:
        search.read(shard, limit - len(search.found))
    if not search.found:
        raise nothing_found(config, shards, search)
    order = {shard.name: index for index, shard in enumerate(shards)}
    return Sampling(
        found=sorted(search.found, key=lambda found: (order[found.shard], found.sample.row)),
        source=config,
        num_shards=len(shards),
        size_bytes=sum(shard.size for shard in shards),
        refused=search.refused,
        bad_shards=search.bad_shards,
    )


class Search:
    """The samples found so far, and how far each shard was read."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.found: list[Found] = []
        self.bad_shards: list[tuple[str, BadShard]] = []
        self.refused = 0
        self.fields: set[str] = set()
        """Of the samples looked at."""
        self._next_row: dict[str, int | None] = {}
        """By shard; None where it was read to its end."""

    def read(self, shard: Shard, wanted: int) -> None:
        """Take up to `wanted` samples more of a shard, from where it was left."""
        if wanted < 1 or self._next_row.get(shard.name, 0) is None:
            return
        enough = len(self.found) + wanted
        try:
            for sample in self._rest(shard):
                self._look_at(shard, sample)
                if len(self.found) == enough or self.refused >= MOST_REFUSED:
                    return
        except BadShard as error:
            # A run publishes none of its rows.
            self.found = [found for found in self.found if found.shard != shard.name]
            self.bad_shards.append((shard.name, error))
        self._next_row[shard.name] = None

    def _rest(self, shard: Shard) -> Iterator[Sample]:
        """The samples that were not looked at before."""
        if self.refused < MOST_REFUSED:
            start = self._next_row.get(shard.name) or 0
            yield from (sample for sample in open_source(self.config).read(shard) if sample.row >= start)

    def _look_at(self, shard: Shard, sample: Sample) -> None:
        self._next_row[shard.name] = sample.row + 1
        self.fields.update(sample.fields)
        admitted = attempt(lambda: self.config.where_admits(sample))
        if admitted or isinstance(admitted, BadSample):
            self.found.append(Found(shard.name, sample))
        else:
            self.refused += 1


def most_shards(config: SourceConfig, shards: Sequence[Shard], limit: int) -> int:
    """How many shards to spread the samples over."""
    most = min(SPREAD, limit, len(shards))
    if config.kind != "parquet":
        return most
    mean = sum(shard.size for shard in shards) / len(shards)
    return max(1, min(most, int(WHOLE_BYTES // max(1.0, mean))))


def spread(shards: Sequence[Shard], count: int) -> list[Shard]:
    """`count` shards, evenly spaced, the first among them."""
    return [shards[index * len(shards) // count] for index in range(count)]


def nothing_found(config: SourceConfig, shards: Sequence[Shard], search: Search) -> UsageError | TooManyDeadLetters:
    """Why no sample was found."""
    if search.refused:
        conditions = " and ".join(map(str, config.where))
        return UsageError(
            f"none of the {search.refused} samples looked at is admitted by `where` ({conditions}). Their fields are "
            f"{', '.join(sorted(search.fields))}; loosen the condition, or correct the field's name."
        )
    if search.bad_shards:
        name, error = search.bad_shards[0]
        return TooManyDeadLetters(
            f"none of the {len(shards)} shards can be read (first: {name}: {error}). Mend them, or name others."
        )
    return UsageError(f"the {len(shards)} shards of {config.path} hold no sample. Correct source.path.")


def stored_bytes(sample: Sample, tar: bool) -> int:
    """What a sample takes in its shard, compression aside: its fields' bytes, in a tar with headers and padding."""
    sizes = [
        len(str(value).encode()) if not isinstance(value, bytes) else len(value) for value in sample.fields.values()
    ]
    return sum(TAR_BLOCK - (-size // TAR_BLOCK) * TAR_BLOCK for size in sizes) if tar else sum(sizes)
