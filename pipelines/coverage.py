"""Coverage: which rows of which shards are labelled and written, and so which shards can be finished."""

import dataclasses
from collections.abc import Sequence

from .job import Part, ShardTask
from .parts import Header
from .stages import Report
from .writing import Event


@dataclasses.dataclass(slots=True)
class ShardCoverage:
    """The parts of one shard by first row; `end` once its last part has come."""

    parts: dict[int, Part]
    end: Header | None = None
    usage: list[Report] = dataclasses.field(default_factory=list)
    """Of the parts that came."""

    def tiled(self) -> list[Part] | None:
        """The parts that cover [0, total_rows) exactly, or None while some are missing."""
        if self.end is None:
            return None
        tiles, row = [], 0
        while row < self.end.total_rows:
            part = self.parts.get(row)
            if part is None:
                return None
            tiles.append(part)
            row += part.rows
        return tiles if row == self.end.total_rows else None


class Coverage:
    """Takes the events of several-part shards; tolerates parts that are delivered twice."""

    def __init__(self, tasks: Sequence[ShardTask]) -> None:
        self._shards = {task.shard.token: ShardCoverage(dict(task.finished_parts)) for task in tasks}

    def add(self, event: Event) -> tuple[Header, list[Part]] | None:
        """The shard's last header and its parts, exactly once: when the event completes the shard."""
        shard = self._shards.get(event.header.token)
        if shard is None:
            return None
        shard.usage += event.header.usage
        if event.part is not None:
            shard.parts[event.part.start] = event.part
        if event.header.last:
            shard.end = event.header
        tiles = shard.tiled()
        if tiles is None or shard.end is None:
            return None
        del self._shards[event.header.token]
        return dataclasses.replace(shard.end, usage=shard.usage), tiles
