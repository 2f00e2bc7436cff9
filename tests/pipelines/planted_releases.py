"""Planted releases: small ones whose labels a test writes itself, published as a run publishes, without Ray."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relabel.digests import Json, digest, sample_digest, sha256
from relabel.labels.contract import LabelContract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.commit import Draft, Proposal, commit
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.release import Release, Store
from relabel.releases.stored import stored
from relabel.releases.summaries import shard_summary
from relabel.releases.versions import LabelIdentity, Version, meaning_digest
from relabel.shards.shard import Shard
from relabel.storage.opening import open_store


@dataclasses.dataclass
class Rows:
    """What one shard holds: label columns of its labelled rows, and how many more are dead or filtered."""

    labels: Mapping[str, Any]
    """Column -> values, equally long."""
    dead: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Reason -> rows."""
    filtered: int = 0
    unreadable: str = ""
    """Of a dead shard: the reason."""
    source: Shard | None = None
    """The shard that was labelled, where there is one: its samples' keys are `<shard>/<row>`."""
    detail: str = "planted"
    """Of dead letters."""


def publish(
    folder: Path,
    contract: LabelContract,
    shards: Mapping[str, Rows],
    names: Sequence[str] = (),
    teacher: str = "small",
    run_id: str = "run-1",
    recipe: Json = None,
    gate: Callable[[Proposal], Version] | None = None,
) -> Release:
    """Release of these shards on top of what the store in `folder` holds."""
    store = open_store(str(folder))
    fingerprint = digest(teacher)
    receipts = Receipts(store, meaning_digest({contract.name: fingerprint}, None))
    wanted = [
        receipts.finish(receipt(store, contract, fingerprint, receipts.fingerprint, name, rows, run_id))
        for name, rows in shards.items()
    ]
    identity = LabelIdentity(
        operator="planted", version=1, fingerprint=fingerprint, identity={"teacher": teacher}, contract=contract,
        class_names=tuple(names),
    )  # fmt: skip
    history = Store(store).history() if store.exists("store.json") else []
    parent = history[-1] if history else None
    gone = [name for name in Release(store, parent).shards if name not in shards] if parent else []
    commit(
        store,
        Draft(
            run_id=run_id, parent=parent.version if parent else 0, labels={contract.name: identity}, receipts=wanted,
            num_source_shards=len(shards), removed=gone, recipe=recipe or {}, source={"root": "planted"}, gate=gate,
        ),
    )  # fmt: skip
    return Store(store).release(recalled="ignore")


def receipt(
    store: Any, contract: LabelContract, fingerprint: str, meaning: str, shard: str, rows: Rows, run_id: str
) -> Receipt:
    """Of a label shard that is written here; its bytes are its source shard's ETag."""
    size = rows.source.size if rows.source else 100
    common = {
        "shard": shard, "size": size, "content_sha256": sha256(shard.encode()), "fingerprint": meaning, "generation": 0,
        "numerics": {"device": "cpu"}, "run_id": run_id, "attempt": sha256(f"{shard}{run_id}".encode())[:32],
    }  # fmt: skip
    if rows.unreadable:
        return Receipt(
            **common, etag=rows.unreadable, token=digest([shard, 100, rows.unreadable]), status="dead", rows=0, ok=0,
            reason=rows.unreadable, detail=rows.detail, dead=0, filtered=0, reasons={}, keys_sha256="", data=None,
            dead_letters=None,
        )  # fmt: skip
    data, keys, letters, summary = label_shard(contract, fingerprint, shard, rows)
    etag = rows.source.etag if rows.source else sha256(data)
    path = f"data/{run_id}/{shard.replace('/', '_')}-{sha256(data)[:12]}"
    store.put(f"{path}.parquet", data)
    if letters:
        store.put(f"{path}.dead.jsonl", letters)
    dead = sum(rows.dead.values())
    return Receipt(
        **common, etag=etag, token=digest([shard, size, etag]), status="ok", reason="", detail="", rows=len(keys),
        ok=len(keys) - dead - rows.filtered, dead=dead, filtered=rows.filtered,
        reasons={**rows.dead, **({"where": rows.filtered} if rows.filtered else {})}, keys_sha256=keys_digest(keys),
        data=stored(f"{path}.parquet", data),
        dead_letters=stored(f"{path}.dead.jsonl", letters) if letters else None, summary=summary,
    )  # fmt: skip


def label_shard(
    contract: LabelContract, fingerprint: str, shard: str, rows: Rows
) -> tuple[bytes, list[str], bytes, str]:
    """The file, its keys, its dead letters and its summary."""
    count = len(next(iter(rows.labels.values())))
    reasons = [reason for reason, number in rows.dead.items() for _ in range(number)]
    statuses = ["ok"] * count + ["dead"] * len(reasons) + ["filtered"] * rows.filtered
    keys = [f"{shard}/{row:04}" for row in range(len(statuses))]
    table = label_table(
        label_schema([contract], {contract.name: fingerprint}), keys, [sample_digest(key.encode()) for key in keys],
        statuses, [*[None] * count, *reasons, *["where"] * rows.filtered],
        {name: np.asarray(values) if not isinstance(values, list) else values for name, values in rows.labels.items()},
    )  # fmt: skip
    lines = [
        json.dumps({"key": key, "row": row, "reason": reason, "detail": rows.detail}) + "\n"
        for row, (key, reason) in enumerate(zip(keys[count:], reasons, strict=False), count)
    ]
    return encode_label_shard(table), keys, "".join(lines).encode(), shard_summary([contract], table)
