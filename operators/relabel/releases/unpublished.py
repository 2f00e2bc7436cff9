"""Unpublished: what runs have finished and no release holds: of a run that goes on, was stopped, or was refused.

What an erasure wrote in place of a published file is no such work.
"""

import re

from ..storage.objects import ObjectStore
from .receipts import Receipt, Receipts
from .redactions import read_redactions
from .segments import SegmentRef, read_segment
from .stored import in_threads
from .versions import Version, read_history

FOLDER = re.compile(r"receipts/([0-9a-f]{16})/")


def unpublished(store: ObjectStore, fingerprint: str = "") -> dict[str, list[Receipt]]:
    """Fingerprint (its first 16 digits) -> the newest receipts, by shard, that no release holds; or of one only."""
    folders = {found[1] for info in store.list("receipts") if (found := FOLDER.match(info.path))}
    wanted = sorted(folders & {fingerprint[:16]} if fingerprint else folders)
    history = read_history(store) if wanted else []
    receipts = {each: unpublished_of(store, each, history) for each in wanted}
    return {each: found for each, found in receipts.items() if found}


def unpublished_of(store: ObjectStore, fingerprint: str, history: list[Version]) -> list[Receipt]:
    """Of one meaning, of which token and generation name a receipt."""
    segments: dict[str, SegmentRef] = {
        ref.path: ref for version in history if version.meaning.startswith(fingerprint) for ref in version.segments
    }
    lists = in_threads(lambda ref: read_segment(store, ref), list(segments.values()))
    entries = [entry for each in lists for entry in each]
    published = {(entry.token, entry.generation) for entry in entries}
    redactions = read_redactions(store)
    rewritten = {redactions.current(entry.data) for entry in entries if entry.data is not None}
    newest = Receipts(store, fingerprint).load().receipts.values()
    found = [
        receipt
        for receipt in newest
        if (receipt.token, receipt.generation) not in published
        and (receipt.data is None or receipt.data not in rewritten)
    ]
    return sorted(found, key=lambda receipt: receipt.shard)
