"""Join: labels beside the media that they were made of, by key; what does not fit is refused or counted."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ..errors import BadShard, Refused
from ..shards.shard import Sample
from .media import Media
from .rows import LabelRows

HELD_BYTES = 64 << 20
"""Of media that wait until their row group is decoded."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some labelled rows, and their samples where media are included."""

    table: pa.Table
    """key, sample_digest, and the label columns as `Release.table` has them."""
    samples: list[Sample] | None = None


@dataclasses.dataclass
class Tally:
    """What became of a shard's samples."""

    samples: int = 0
    """Exported."""
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    """Why not -> rows: reason codes of the release; missing_media, other_media."""
    extra: int = 0
    """Samples of the source of which the release knows nothing; not exported."""

    def leave_out(self, why: str, rows: int = 1) -> None:
        if rows:
            self.left_out[why] = self.left_out.get(why, 0) + rows


def labels_alone(rows: LabelRows, tally: Tally) -> Iterator[Chunk]:
    for table in rows.tables():
        tally.samples += len(table)
        yield Chunk(table)


def with_media(rows: LabelRows, media: Media, on_missing: Literal["error", "skip"], tally: Tally) -> Iterator[Chunk]:
    """In the order of the source.

    Raises Refused at what is missing or is not what was labelled, unless it is skipped: then it is counted.
    """
    skip = on_missing == "skip"
    places = {key: row for row, key in enumerate(rows.keys)}
    waiting: list[tuple[int, Sample]] = []
    held, current, seen = 0, -1, 0
    for sample in readable(rows, media, skip):
        row = places.pop(sample.key, None)
        if row is None:
            tally.extra += 1
            continue
        if not rows.ok[row]:
            continue
        seen += 1
        if media.withdrawn(rows.shard, sample.key):
            tally.leave_out("withdrawn")
            continue
        if not media.is_what_was_labelled(sample, rows.digests[row]):
            if not skip:
                raise other_media(rows.shard, sample.key)
            tally.leave_out("other_media")
            continue
        group = rows.group_of(row)
        if waiting and (group != current or held > HELD_BYTES):
            yield chunk(rows, current, waiting, tally)
            waiting, held = [], 0
        current = group
        waiting.append((row, sample))
        held += sum(len(value) for value in sample.fields.values() if isinstance(value, bytes | str))
    if waiting:
        yield chunk(rows, current, waiting, tally)
    missing = [key for key, row in places.items() if rows.ok[row]]
    if missing and not skip:
        raise Refused(
            f"{len(missing)} labelled samples of shard {rows.shard!r} are not in the source (first: {missing[0]!r}). "
            "Give the media that were labelled with --source, or leave such samples out: --on-missing skip."
        )
    tally.leave_out("missing_media", len(missing))


def chunk(rows: LabelRows, group: int, waiting: list[tuple[int, Sample]], tally: Tally) -> Chunk:
    tally.samples += len(waiting)
    return Chunk(rows.take(group, [row for row, _ in waiting]), [sample for _, sample in waiting])


def readable(rows: LabelRows, media: Media, skip: bool) -> Iterator[Sample]:
    """The shard's samples; none where it is gone, and what follows damage in it is missing."""
    if rows.shard not in media.shards:
        if not skip:
            raise Refused(
                f"the shard {rows.shard!r} is not in the source {media.source.root}. Give the media that were labelled "
                "with --source, or leave such samples out: --on-missing skip."
            )
        return
    try:
        yield from media.samples(rows.shard)
    except BadShard as error:
        if not skip:
            raise Refused(f"the shard {rows.shard!r} cannot be read to its end any more: {error}") from error


def other_media(shard: str, key: str) -> Refused:
    return Refused(
        f"sample {key!r} of shard {shard!r} is not what was labelled: its fields are gone or have another digest. Give "
        "the media that were labelled with --source, run the recipe again, or leave them out: --on-missing skip."
    )
