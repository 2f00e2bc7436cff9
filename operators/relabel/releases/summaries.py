"""Summaries of releases: those of its label shards added up; what a receipt and an entry carry of theirs as text."""

import itertools
from collections.abc import Iterable

import pyarrow as pa

from ..digests import Json
from ..labels.contract import LabelContract
from ..labels.summary import Summary, add_up, parse_all, summarise
from .segments import Entry

BLOCK = 512
"""Summaries that are added up at a time: memory does not grow with the shards."""


def shard_summary(contracts: Iterable[LabelContract], table: pa.Table) -> str:
    """Of a label shard, as its receipt and its entry carry it; "" where its labels have none."""
    found = summarise(contracts, table)
    return "" if found is None else found.encode()


def add_texts(texts: Iterable[str]) -> Summary | None:
    """Of all these shards together; those without are left out, None where that is all of them."""
    whole: Summary | None = None
    rest = iter(text for text in texts if text)
    while block := list(itertools.islice(rest, BLOCK)):
        added = parse_all(block)
        whole = added if whole is None else add_up([whole, added])
    return whole


def release_summary(entries: Iterable[Entry]) -> Json:
    """What a version says of its entries; None where no shard has a summary."""
    found = add_texts(entry.summary for entry in entries)
    return None if found is None else found.state()
