"""Jobs small enough to be run hundreds of times: real label shards, receipts and commits, no model."""

import dataclasses
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from relabel.digests import digest, sample_digest, sha256
from relabel.labels.contract import Classes, Geometry, LabelContract
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.commit import Draft, commit
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.stored import stored
from relabel.releases.versions import LabelIdentity, Version, meaning_digest, version_numbers
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store

TOP_K = 2


def contract_of() -> LabelContract:
    geometry = Geometry(size=64, interpolation="bilinear", orientation="exif")
    return label_map_contract("label_map", Classes(digest="c" * 64, count=5), (2, 2), TOP_K, geometry)


def encode_shard(shard: str, rows: int, teacher: str) -> tuple[bytes, list[str]]:
    """A label shard whose first row is filtered, whose second is dead, and whose others carry maps; and its keys."""
    contract = contract_of()
    schema = label_schema([contract], {"label_map": digest(teacher)})
    random = np.random.default_rng(int(sha256(f"{shard}{teacher}".encode())[:8], 16))
    statuses = ["filtered", "dead", *["ok"] * rows][:rows]
    reasons = ["where", "corrupt_image", *[None] * rows][:rows]
    num_ok = statuses.count("ok")
    maps = encode(random.normal(size=(num_ok, 5, 2, 2)).astype(np.float32), TOP_K)
    labels = {f"label_map_{name}": values for name, values in maps.items()}
    sides = np.full(num_ok, 100, np.int32)
    keys = [f"{shard}-{row}" for row in range(rows)]
    table = label_table(
        schema, keys, [sample_digest(key.encode()) for key in keys], statuses, reasons,
        {**labels, "label_map_height": sides, "label_map_width": sides},
    )  # fmt: skip
    return encode_label_shard(table), keys


@dataclasses.dataclass
class Job:
    """One run over a source whose shards have the given numbers of rows; -1 is a shard that cannot be read."""

    store: ObjectStore
    shards: dict[str, int]
    run_id: str = "run-1"
    teacher: str = "small"
    etags: dict[str, str] = dataclasses.field(default_factory=dict)
    parent: int | None = None

    @property
    def receipts(self) -> Receipts:
        return Receipts(self.store, self.meaning)

    @property
    def meaning(self) -> str:
        return meaning_digest({"label_map": digest(self.teacher)}, None)

    def token(self, shard: str) -> str:
        return digest([shard, 100, self.etags.get(shard, "etag")])

    def label(self, shard: str, generation: int = 0) -> Receipt:
        """Write what an attempt at this shard writes, and its receipt."""
        rows, attempt = self.shards[shard], uuid.uuid4().hex
        common = {
            "shard": shard, "size": 100, "etag": self.etags.get(shard, "etag"), "token": self.token(shard),
            "content_sha256": sha256(shard.encode()), "fingerprint": self.meaning, "generation": generation,
            "numerics": {"device": "cpu"}, "run_id": self.run_id, "attempt": attempt,
        }  # fmt: skip
        if rows < 0:
            return self.receipts.finish(
                Receipt(**common, status="dead", reason="truncated_shard", detail="ends in mid-member", rows=0, ok=0,
                        dead=0, filtered=0, reasons={}, keys_sha256="", data=None, dead_letters=None)
            )  # fmt: skip
        data, keys = encode_shard(shard, rows, self.teacher + self.etags.get(shard, ""))
        if self.etags.get(shard):
            data, keys = encode_shard(shard, rows, self.teacher)
        letters = json.dumps({"key": keys[1], "reason": "corrupt_image", "detail": "cut off"}).encode() + b"\n"
        at = f"data/{self.run_id}/{shard.replace('/', '_')}-{attempt[:12]}"
        self.store.put(f"{at}.parquet", data)
        self.store.put(f"{at}.dead.jsonl", letters)
        return self.receipts.finish(
            Receipt(**common, status="ok", reason="", detail="", rows=rows, ok=rows - 2, dead=1, filtered=1,
                    reasons={"where": 1, "corrupt_image": 1}, keys_sha256=keys_digest(keys),
                    data=stored(f"{at}.parquet", data), dead_letters=stored(f"{at}.dead.jsonl", letters))
        )  # fmt: skip

    def finish_all(self) -> list[Receipt]:
        """What a run does before it publishes: skip what is finished and present, label the rest."""
        finished = self.receipts.load()
        present = self.receipts.data_present(finished)
        return [
            finished.receipts[token] if (token := self.token(shard)) in present
            else self.label(shard, finished.next_generation(token))
            for shard in self.shards
        ]  # fmt: skip

    def draft(self, receipts: Sequence[Receipt], removed: Sequence[str] = ()) -> Draft:
        numbers = version_numbers(self.store)
        label = LabelIdentity(
            operator="label_map", version=1, fingerprint=digest(self.teacher), identity={"teacher": self.teacher},
            contract=contract_of(),
        )  # fmt: skip
        parent = self.parent if self.parent is not None else (numbers[-1] if numbers else 0)
        return Draft(
            run_id=self.run_id, parent=parent, labels={"label_map": label}, receipts=receipts, removed=removed,
            num_source_shards=len(self.shards), recipe={"steps": ["label_map"]}, source={"root": "memory"},
        )  # fmt: skip

    def run(self, removed: Sequence[str] = ()) -> Version:
        return commit(self.store, self.draft(self.finish_all(), removed))


MakeJob = Callable[..., Job]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def make_job(store: ObjectStore) -> MakeJob:
    """Job(shards, **fields) on this test's store."""

    def make(shards: dict[str, int], **fields: object) -> Job:
        return Job(**{"store": store, "shards": shards, **fields})

    return make


@pytest.fixture(scope="session")
def job_type() -> type[Job]:
    """For tests that make a store per example."""
    return Job
