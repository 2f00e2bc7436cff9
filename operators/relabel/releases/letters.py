"""Letters: the dead letters of shards and samples, as releases and receipts name them.

Of a sample its label shard holds status and reason; detail and attempts lie in the file beside it, a JSON object per
line. A dead shard has no files: its record says all, and each of its generations was an attempt.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from ..digests import Json
from ..errors import UnknownName
from ..reasons import DEAD_REASONS
from ..storage.objects import ObjectStore
from .receipts import Receipt
from .segments import Entry
from .stored import get_checked

Record = Receipt | Entry
"""What says of a shard how it ended."""


def dead_reasons(record: Record) -> Counter[str]:
    """Reason code -> dead samples of a shard that was read; filtered ones are not dead."""
    return Counter({reason: rows for reason, rows in record.reasons.items() if reason in DEAD_REASONS})


def check_reason(reason: str | None) -> None:
    """Raises UnknownName, with the nearest, for what is no reason of dead letters."""
    if reason is not None and reason not in DEAD_REASONS:
        raise UnknownName("reason", reason, DEAD_REASONS)


def read_letters(store: ObjectStore, records: Iterable[Record], reason: str | None = None) -> Iterator[dict[str, Json]]:
    """Dead shards and samples, or those with one reason; only the files that hold some are read.

    Of a sample: shard, key, row, reason, detail, attempts (None where an older relabel wrote it); of a shard the same
    without key and row.
    """
    check_reason(reason)
    for record in records:
        if record.status == "dead":
            if reason in (None, record.reason):
                yield {
                    "shard": record.shard,
                    "reason": record.reason,
                    "detail": record.detail,
                    "attempts": record.generation + 1,
                }
        elif record.dead_letters is not None and (reason is None or record.reasons.get(reason)):
            for line in get_checked(store, record.dead_letters).splitlines():
                letter = {"shard": record.shard, "attempts": None, **json.loads(line)}
                if reason in (None, letter["reason"]):
                    yield letter
