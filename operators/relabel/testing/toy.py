"""Toy: what a run leaves in a store, without a model and without Ray: real label shards, receipts and drafts."""

import functools
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..digests import digest, sample_digest, sha256
from ..labels.contract import LabelContract
from ..labels.kinds import scores
from ..labels.shard_file import encode_label_shard, label_schema, label_table
from ..reasons import Reason, Status
from ..releases.commit import Draft
from ..releases.receipts import Receipt, Receipts, keys_digest
from ..releases.stored import stored
from ..releases.summaries import shard_summary
from ..releases.versions import LabelIdentity, meaning_digest
from ..storage.objects import ObjectStore

LABEL = "toy"
UNREADABLE = "broken.tar"
"""A shard of this name is a dead letter."""
STATES = (Status.FILTERED, Status.DEAD, Status.OK, Status.OK)
REASONS = (Reason.WHERE, Reason.CORRUPT_IMAGE, None, None)


def contract() -> LabelContract:
    return scores(LABEL, "value")


def meaning(teacher: str) -> str:
    """The fingerprint of runs and receipts."""
    return meaning_digest({LABEL: digest(teacher)}, None)


def token_of(shard: str, etag: str) -> str:
    return digest([shard, 100, etag])


@functools.cache
def label_shard(shard: str, etag: str, teacher: str) -> tuple[bytes, str, str]:
    """The bytes of a label shard of four rows, its keys' digest, its summary."""
    keys = [f"{shard}-{row}" for row in range(len(STATES))]
    values = np.array([int(digest([key, etag, teacher])[:6], 16) / 2**24 for key in keys[2:]], "<f4")
    table = label_table(
        label_schema([contract()], {LABEL: digest(teacher)}),
        keys,
        [sample_digest(f"{key}{etag}".encode()) for key in keys],
        STATES,
        REASONS,
        {f"{LABEL}_value": values},
    )
    return encode_label_shard(table), keys_digest(keys), shard_summary([contract()], table)


def label(store: ObjectStore, run_id: str, shard: str, etag: str, teacher: str, generation: int = 0) -> Receipt:
    """Write what one attempt at a shard writes; returns the receipt that counts."""
    attempt = uuid.uuid4().hex
    fields: dict[str, Any] = {
        "shard": shard, "size": 100, "etag": etag, "token": token_of(shard, etag), "run_id": run_id,
        "fingerprint": meaning(teacher), "generation": generation, "attempt": attempt,
    }  # fmt: skip
    receipts = Receipts(store, meaning(teacher))
    if shard == UNREADABLE:
        return receipts.finish(dead_receipt(fields))
    data, keys, summary = label_shard(shard, etag, teacher)
    letters = json.dumps({"key": f"{shard}-1", "reason": "corrupt_image", "detail": "cut off"}).encode() + b"\n"
    at = f"data/{run_id}/{shard}-{attempt[:12]}"
    store.put(f"{at}.parquet", data)
    store.put(f"{at}.dead.jsonl", letters)
    return receipts.finish(
        Receipt(
            **fields, content_sha256=sha256(f"{shard}{etag}".encode()), status="ok", reason="", detail="",
            rows=4, ok=2, dead=1, filtered=1, reasons={"corrupt_image": 1, "where": 1}, keys_sha256=keys,
            data=stored(f"{at}.parquet", data), dead_letters=stored(f"{at}.dead.jsonl", letters),
            numerics={"device": "toy"}, summary=summary,
        )
    )  # fmt: skip


def dead_receipt(fields: Mapping[str, Any]) -> Receipt:
    rest: dict[str, Any] = {
        "content_sha256": "", "status": "dead", "reason": "truncated_shard", "detail": "ends early", "rows": 0,
        "ok": 0, "dead": 0, "filtered": 0, "reasons": {}, "keys_sha256": "", "data": None, "dead_letters": None,
        "numerics": {},
    }  # fmt: skip
    return Receipt(**{**fields, **rest})


def finish_shards(store: ObjectStore, run_id: str, source: Mapping[str, str], teacher: str) -> list[Receipt]:
    """What a run does before it publishes: skip what is finished and present, label and fold the rest.

    `source`: shard -> ETag.
    """
    receipts = Receipts(store, meaning(teacher))
    finished = receipts.load()
    present = receipts.data_present(finished)
    tokens = {shard: token_of(shard, etag) for shard, etag in source.items()}
    done = {shard: finished.receipts[token] for shard, token in tokens.items() if token in present}
    made = {
        shard: label(store, run_id, shard, source[shard], teacher, finished.next_generation(token))
        for shard, token in tokens.items()
        if shard not in done
    }
    if len(made) > 1:
        receipts.fold(made.values())
    return [*done.values(), *made.values()]


def draft(
    run_id: str,
    parent: int,
    receipts: Sequence[Receipt],
    teacher: str,
    removed: Sequence[str] = (),
    lease: int | None = None,
) -> Draft:
    identity = LabelIdentity(
        operator=LABEL, version=1, fingerprint=digest(teacher), identity={"teacher": teacher}, contract=contract()
    )
    return Draft(
        run_id=run_id, parent=parent, labels={LABEL: identity}, receipts=receipts, removed=removed,
        num_source_shards=len(receipts), recipe={"steps": [LABEL]}, source={"root": "toy"}, lease=lease,
    )  # fmt: skip
