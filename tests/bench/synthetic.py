"""Synthetic: a source of very many shards, and the store that runs over it would have left.

Source shards are hard links to a few real tar files of one sample each. Receipts and folds are what the library writes,
for shards of 10,000 rows each; label shards are empty files of the size that their receipts state (on S3 a few bytes,
and the receipts say so), for nothing that is measured reads them. One label shard is real.
"""

import dataclasses
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cheap
import numpy as np
from photos import write_tar

from pipelines.job import Job
from pipelines.loading import load
from pipelines.plan import make_job
from relabel.digests import sample_digest, seal, sha256
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.records import to_json
from relabel.releases.stored import Stored, stored
from relabel.shards.shard import Shard
from relabel.shards.source import open_source
from relabel.storage.filesystems import is_local, resolve

ROWS = 10_000
LABEL_SHARD_BYTES = 35 << 20
TINY_BYTES = 16
LETTERS_EVERY = 10
"""Every so many shards has a file of dead letters."""
FOLD_ROWS = 1_000
LINKS = 50_000
"""Of one file; ext4 allows 65,000."""
NUMERICS = {
    "cheap": {"device": "cpu", "cpu": "AMD EPYC 7B13", "threads": 1, "compute_batch": 8, "numpy": np.__version__}
}
RUN = "scale-20260101T000000Z-abcdef"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a synthetic store and its source lie."""

    folder: Path
    store: str
    shards: int
    """Finished; the source holds one in a hundred more, which are open."""

    def recipe(self, with_open: bool = False, store: str = "") -> dict[str, Any]:
        pattern = "*.tar" if with_open else "done-*.tar"
        return {
            "name": "scale",
            "source": {"path": str(self.folder / "source" / pattern), "fields": {"image": "txt"}},
            "steps": [{cheap.Cheap.name: {"log": str(self.first_look)}}],
            "store": store or self.store,
            "resources": {"actors": 1},
        }

    @property
    def first_look(self) -> Path:
        return self.folder / "first_look"

    def job(self, with_open: bool = False, store: str = "") -> Job:
        return make_job(load(self.recipe(with_open, store)))


def build(place: Place) -> None:
    """The source, and a store in which all but the open shards are finished and nothing is published."""
    write_source(place.folder / "source", place.shards)
    job = place.job()
    shards = open_source(job.source).shards()
    local = is_local(place.store)
    real, keys = label_shard(job)
    write_all(place.store, objects(job, shards, real, keys, LABEL_SHARD_BYTES if local else TINY_BYTES))


def write_source(folder: Path, shards: int) -> None:
    folder.mkdir(parents=True)
    names = [f"done-{number:07d}.tar" for number in range(shards)]
    names += [f"open-{number:07d}.tar" for number in range(shards // 100)]
    for start in range(0, len(names), LINKS):
        real = folder.parent / f"real-{start}.tar"
        write_tar(real, [("sample.txt", b"one sample")])
        for name in names[start : start + LINKS]:
            os.link(real, folder / name)


def label_shard(job: Job) -> tuple[bytes, list[str]]:
    """A real one: `ROWS` rows of this job's labels; and its keys."""
    contracts = [labeler.writes() for labeler in job.labelers]
    keys = [f"{row:08d}" for row in range(ROWS)]
    table = label_table(
        label_schema(contracts, job.label_fingerprints), keys, [sample_digest(key.encode()) for key in keys],
        ["ok"] * ROWS, [None] * ROWS, {"cheap_bytes": np.zeros(ROWS, "<f4")},
    )  # fmt: skip
    return encode_label_shard(table), keys


def objects(
    job: Job, shards: Sequence[Shard], real: bytes, keys: Sequence[str], size: int
) -> Iterator[tuple[str, bytes | int]]:
    """Everything that lies in the store: path and bytes, or path and size of an object that holds zeros."""
    receipts = Receipts(job.open_store(), job.fingerprint)
    unfolded: list[Receipt] = []
    for number, shard in enumerate(shards):
        receipt = receipt_of(job, shard, number, size)
        if number == 0:
            receipt = dataclasses.replace(
                receipt, data=stored(f"data/{RUN}/real.parquet", real), ok=ROWS, dead=0, filtered=0, reasons={},
                keys_sha256=keys_digest(keys), dead_letters=None,
            )  # fmt: skip
            yield f"data/{RUN}/real.parquet", real
        elif receipt.data is not None:
            yield receipt.data.path, receipt.data.size_bytes
        if receipt.dead_letters is not None:
            yield receipt.dead_letters.path, receipt.dead_letters.size_bytes
        yield receipts.path(receipt.token, 0), seal(to_json(receipt))
        unfolded.append(receipt)
        if len(unfolded) == FOLD_ROWS or number == len(shards) - 1:
            receipts.fold(unfolded)
            unfolded = []


def receipt_of(job: Job, shard: Shard, number: int, size: int) -> Receipt:
    """What a run would have recorded of a shard; every tenth has dead letters."""
    attempt = sha256(shard.name.encode())[:32]
    name = f"data/{RUN}/{shard.name}-{attempt[:12]}"
    dead = 5 if number % LETTERS_EVERY == 1 else 0
    return Receipt(
        shard=shard.name, size=shard.size, etag=shard.etag, token=shard.token,
        content_sha256=sha256(f"content {shard.name}".encode()), fingerprint=job.fingerprint, generation=0,
        status="ok", reason="", detail="", rows=ROWS, ok=ROWS - dead - 20, dead=dead, filtered=20,
        reasons={"where": 20, **({"corrupt_image": dead} if dead else {})},
        keys_sha256=sha256(f"keys {shard.name}".encode()),
        data=Stored(f"{name}.parquet", size + (number % 10 if size > TINY_BYTES else 0), sha256(name.encode())),
        dead_letters=Stored(f"{name}.dead.jsonl", TINY_BYTES, sha256(b"letters")) if dead else None,
        numerics=NUMERICS, run_id=RUN, attempt=attempt,
    )  # fmt: skip


def write_all(store: str, wanted: Iterable[tuple[str, bytes | int]]) -> None:
    """Plain writes, without the library's syncs; a size stands for that many zeros."""
    if is_local(store):
        for path, content in wanted:
            write_file(Path(store, path), content)
        return
    filesystem, root = resolve(store)
    wanted = iter(wanted)
    while some := dict(islice(wanted, 2_000)):
        filesystem.pipe({f"{root}/{path}": bytes(content) for path, content in some.items()}, batch_size=32)


def write_file(path: Path, content: bytes | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.FileIO(path, "w") as file:
        if isinstance(content, int):
            file.truncate(content)
        else:
            file.write(content)


def unpublish(store: str, first: int) -> None:
    """Takes back the versions from `first` on, as no program may: so that a commit can be measured again."""
    filesystem, root = resolve(store)
    for path in filesystem.find(f"{root}/versions") if filesystem.exists(f"{root}/versions") else []:
        if int(path.rpartition("/v")[2].removesuffix(".json")) >= first:
            filesystem.rm_file(path)
    if first == 1 and filesystem.exists(f"{root}/segments"):
        shutil.rmtree(f"{root}/segments") if is_local(store) else filesystem.rm(f"{root}/segments", recursive=True)
