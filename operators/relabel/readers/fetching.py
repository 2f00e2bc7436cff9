"""Fetching: some rows of one shard, each with its sample, in the order of the source.

Where the shard is known to be the labelled one, rows are found by position and no more than them is read, as far as
its format allows: tar members by their headers (at a remote store by a few looks into the middle), Parquet by row
group, a folder by file. Else samples are found by key, in whatever order they lie.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..errors import BadShard, Refused
from ..shards import tar
from ..shards.folder import FolderSource, raw_name, read_member
from ..shards.keys import BAD_KEY, decode_key
from ..shards.listing import join
from ..shards.pinned import Pinned, PinnedFile, open_pinned
from ..shards.places import place_near, places
from ..shards.shard import Sample, Shard
from ..shards.stream import WINDOW, ordered
from ..shards.webdataset import group
from ..storage.filesystems import is_local
from .label_rows import JoinedRows
from .media import Media

GAP_ROWS = 32
"""Rows between two wanted ones that are passed over by looking for the second anew."""
SLACK = 1.05
"""How far beyond its share of the bytes a run of rows may reach, before range reads slow down."""

Rows = Int64[np.ndarray, " wanted"]
Opener = Callable[[Shard], Pinned]
Proof = Callable[[int, Sample], bool]
"""Whether a row's sample has the digest that its label says."""


@dataclasses.dataclass
class Found:
    """What one reading of a shard met, beside the rows that it gave."""

    extra: list[str] = dataclasses.field(default_factory=list)
    duplicate: list[str] = dataclasses.field(default_factory=list)


def fetch(
    media: Media,
    shard: Shard,
    rows: JoinedRows,
    wanted: Rows,
    trusted: bool,
    found: Found,
    opener: Opener,
    proof: Proof,
) -> Iterator[tuple[int, Sample]]:
    """Row and sample of those of the `wanted` rows (ascending) that the shard holds.

    Raises BadShard where it is damaged or changed, Refused where it is trusted and holds other keys.
    """
    if not len(wanted):
        return
    if isinstance(media.source, FolderSource):
        yield from folder_rows(media.source, shard, rows, wanted, found)
    elif trusted and media.jumpable(shard):
        yield from by_position(rows, wanted, lambda run: tar_run(shard, rows, run, opener, proof))
    elif trusted and media.config.kind == "parquet":
        from .parquet_rows import parquet_rows

        yield from parquet_rows(media, shard, rows, wanted, opener)
    elif media.jumpable(shard):
        yield from by_key(tar_from(shard, rows, int(wanted[0]), opener), rows, wanted, found)
    else:
        yield from by_key(plain(media, shard, opener), rows, wanted, found)


def plain(media: Media, shard: Shard, opener: Opener) -> Iterator[tuple[int, Sample]]:
    """From the beginning, as labelling reads it; from the cache where a copy is there."""
    if not is_local(shard.url):
        pinned = opener(shard)
        if isinstance(pinned, PinnedFile):
            shard = Shard(shard.name, pinned.path, pinned.size, pinned.etag)
        pinned.close()
    return ((sample.row, sample) for sample in media.source.read(shard))


def by_position(
    rows: JoinedRows, wanted: Rows, read: Callable[[Rows], Iterator[tuple[int, Sample]]]
) -> Iterator[tuple[int, Sample]]:
    """Run by run, every key compared with the label's."""
    for run in runs(wanted):
        inside = set(run.tolist())
        last = int(run[-1])
        for row, sample in read(run):
            if row > last:
                break
            if row >= len(rows.keys) or sample.key != rows.keys[row]:
                raise other_key(rows, row, sample.key)
            if row in inside:
                yield row, sample
            if row == last:
                break


def other_key(rows: JoinedRows, row: int, key: str) -> Refused:
    expected = rows.keys[row] if row < len(rows.keys) else "the end"
    return Refused(
        f"row {row} of {rows.shard!r} has the key {key!r} where {expected!r} was labelled; its size and version are "
        "those of the labelled shard. Copy it again."
    )


def runs(wanted: Rows) -> list[Rows]:
    """Cut where more than GAP_ROWS lie between two rows."""
    return np.split(wanted, np.flatnonzero(np.diff(wanted) > GAP_ROWS) + 1)


def tar_run(shard: Shard, rows: JoinedRows, run: Rows, opener: Opener, proof: Proof) -> Iterator[tuple[int, Sample]]:
    """From the first row of a run on, or a little before it."""
    first = int(run[0])
    pinned = opener(shard)
    share = int(shard.size * min(1.0, SLACK * (int(run[-1]) + 1) / max(1, len(rows.keys))))
    try:
        if isinstance(pinned, PinnedFile):
            yield from tar_samples(pinned, walk_to(pinned, first), share)
            return
        begin = place_near(pinned.at, shard.size, rows.main.rows, first) if first else (0, 0)
        guessed = tar_samples(pinned, begin, share)
        if begin != (0, 0):
            sample = proven(guessed, first, rows.keys[first], proof)
            if sample is None:  # archives in archives: what looked like a place was none
                guessed = tar_samples(pinned, (0, 0), share)
            else:
                yield first, sample
        yield from guessed
    finally:
        pinned.close()


def proven(samples: Iterator[tuple[int, Sample]], row: int, key: str, proof: Proof) -> Sample | None:
    """The sample of a row where reading began in the middle of an archive; None where it is not that row's."""
    try:
        sample = next((sample for number, sample in samples if number == row), None)
    except BadShard:
        return None
    return sample if sample is not None and sample.key == key and proof(row, sample) else None


def walk_to(pinned: Pinned, row: int) -> tuple[int, int]:
    """A row and where it begins, by the headers before it."""
    for number, place in enumerate(places(pinned.at, pinned.size)):
        if number == row:
            return number, place.start
    return 0, 0  # there are fewer rows, which whoever compares keys will say


def tar_samples(pinned: Pinned, begin: tuple[int, int], soon: int) -> Iterator[tuple[int, Sample]]:
    first, start = begin
    try:
        yield from enumerate(group(tar.members(pinned.chunks(start, soon))), start=first)
    except BadShard as error:
        raise error.of(pinned.path) from error


def tar_from(shard: Shard, rows: JoinedRows, first: int, opener: Opener) -> Iterator[tuple[int, Sample]]:
    """From `first` on where the keys before it are those of the rows before it, else from the beginning."""
    pinned = opener(shard)
    try:
        begin = (0, 0)
        if first and isinstance(pinned, PinnedFile):
            for number, place in enumerate(places(pinned.at, pinned.size)):
                if number == first:
                    begin = (first, place.start)
                if number == first or place.key != rows.keys[number]:
                    break
        yield from tar_samples(pinned, begin, shard.size)
    finally:
        pinned.close()


def by_key(
    samples: Iterator[tuple[int, Sample]], rows: JoinedRows, wanted: Rows, found: Found
) -> Iterator[tuple[int, Sample]]:
    """Of samples in any order; once all wanted ones are found only who reads the last row reads on to the end."""
    keys, left = rows.keys, set(wanted.tolist())
    to_the_end = int(wanted[-1]) >= int(np.flatnonzero(rows.ok)[-1]) if rows.ok.any() else True
    expected, seen = 0, set[int]()
    for position, sample in samples:
        expected = max(expected, position) if not seen else expected
        if expected < len(keys) and sample.key == keys[expected]:
            row: int | None = expected
        else:
            row = rows.main.rows.get(sample.key)
        if row is None:
            found.extra.append(sample.key)
            continue
        if row in seen:
            found.duplicate.append(sample.key)
            continue
        seen.add(row)
        expected = row + 1
        if row in left:
            left.discard(row)
            yield row, sample
        if not left and not to_the_end:
            return


def folder_rows(
    source: FolderSource, shard: Shard, rows: JoinedRows, wanted: Rows, found: Found
) -> Iterator[tuple[int, Sample]]:
    """Of the files of a bucket, those that are wanted, by their relative paths."""
    names = [decode_key(raw_name(member.path))[0] for member in shard.members]
    known = rows.main.rows
    if int(wanted[-1]) >= len(rows.keys) - 1 or not len(rows.keys):
        found.extra += [name for name in names if name not in known]
    left = set(wanted.tolist())
    chosen = [
        (row, name, member)
        for name, member in zip(names, shard.members, strict=True)
        if (row := known.get(name, -1)) in left
    ]

    def reader(member: Any) -> Callable[[], tuple[bytes, str]]:
        return lambda: read_member(join(source.root, member.path), member, source.files.options)

    calls = (reader(member) for _, _, member in chosen)
    contents = (call() for call in calls) if is_local(source.root) else ordered(calls, WINDOW)
    for (row, name, _), (content, _) in zip(chosen, contents, strict=True):
        yield row, Sample(name, row, {source.field: content, "path": name})


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's fields without our own marks."""
    return {name: value for name, value in fields.items() if name != BAD_KEY}


def open_listed(options: Mapping[str, Any]) -> Opener:
    """Opens shards where they lie."""
    return lambda shard: open_pinned(shard.url, shard.size, shard.etag, options)
