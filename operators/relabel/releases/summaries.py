"""Summaries of releases: those of its label shards added up; what a receipt and an entry carry of theirs as text."""

from collections.abc import Iterable

import pyarrow as pa

from ..digests import Json
from ..labels.contract import LabelContract
from ..labels.summary import Summary, add_up, parse, summarise
from .segments import Entry

BLOCK = 512
"""Summaries that are added up at a time: memory does not grow with the shards."""


def shard_summary(contracts: Iterable[LabelContract], table: pa.Table) -> str:
    """Of a label shard, as its receipt and its entry carry it; "" where its labels have none."""
    found = summarise(contracts, table)
    return "" if found is None else found.encode()


def add_texts(texts: Iterable[str]) -> Summary | None:
    """Of all these shards together; those without are left out, None where that is all of them."""
    held: list[Summary] = []
    for text in texts:
        if text:
            held.append(parse(text))
        if len(held) == BLOCK:
            held = [add_up(held)]
    return add_up(held) if held else None


def release_summary(entries: Iterable[Entry]) -> Json:
    """What a version says of its entries; None where no shard has a summary."""
    found = add_texts(entry.summary for entry in entries)
    return None if found is None else found.state()
