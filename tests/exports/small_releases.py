"""Small releases: real photographs in tars, and labels of every kind beside them, committed without Ray and models."""

import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import relabel
from relabel.digests import digest, sample_digest
from relabel.labels.caption import caption_contract
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Geometry
from relabel.labels.kinds import embedding, scores
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.mask import mask_contract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.commit import Draft, commit
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.release import Release
from relabel.releases.stored import stored
from relabel.releases.versions import LabelIdentity, meaning_digest
from relabel.storage.opening import open_store

NAMES = tuple(f"class {index}" for index in range(30))
GEOMETRY = Geometry(size=96, interpolation="bilinear", orientation="exif")
CLASSES = ClassMap(NAMES).declare()
CONTRACTS = (
    label_map_contract("label_map", CLASSES, (3, 4), 5, GEOMETRY),
    mask_contract("mask", CLASSES, GEOMETRY, 0.5),
    caption_contract("caption", ["short"], logprobs=True, reproducible=True, old=True),
    scores("quality", "value"),
    embedding("vector", 7, "<f2"),
)


@dataclasses.dataclass
class Planted:
    """A release and what is known of it."""

    store: Path
    source: Path
    rows: dict[tuple[str, str], dict[str, Any]]
    """(shard, key) -> column -> value, of every labelled sample; arrays as numpy has them."""
    photos: dict[tuple[str, str], bytes]

    @property
    def release(self) -> Release:
        return relabel.open(self.store).release()

    @property
    def config(self) -> str:
        return str(self.source / "*.tar")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def plant(folder: Path, photos: Sequence[tuple[bytes, int]], shards: int = 3, rows: int = 5) -> Planted:
    """`shards` shards of `rows` samples; of each the second is dead and the third filtered."""
    source, store = folder / "photos", folder / "labels"
    source.mkdir(parents=True)
    planted = Planted(store, source, {}, {})
    receipts = []
    for number in range(shards):
        name = f"photos-{number:03d}.tar"
        keys = [f"s/{number}{row}" for row in range(rows)]
        images = [photos[(number * rows + row) % len(photos)] for row in range(rows)]
        members = [
            member
            for key, (data, label) in zip(keys, images, strict=True)
            for member in ((f"{key}.jpg", data), (f"{key}.cls", str(label).encode()))
        ]
        write_tar(source / name, members)
        receipts.append(label_shard(planted, name, keys, [data for data, _ in images], number))
    publish(planted, receipts, {"path": planted.config, "kind": "webdataset", "old_label": "cls"}, "image")
    return planted


def publish(
    planted: Planted,
    receipts: Sequence[Receipt],
    source: Mapping[str, Any],
    need: str | None,
    store: Path | None = None,
) -> None:
    """`need`: of which field the digests are; None: the release does not say."""
    labels = {
        contract.name: LabelIdentity(
            operator=contract.kind, version=1, fingerprint=digest(contract.name), identity={}, contract=contract,
            class_names=NAMES if contract.classes else (),
        )
        for contract in CONTRACTS
    }  # fmt: skip
    about = {} if need is None else {"digested": {"needs": [need], "wants": []}}
    draft = Draft(
        run_id="planted", parent=0, labels=labels, receipts=receipts, num_source_shards=len(receipts),
        selection={"fields": {"image": ["jpg"]}},
        source={"root": str(planted.source), "manifest": digest("x"), **about},
        recipe={"name": "planted", "source": dict(source)},
    )  # fmt: skip
    commit(open_store(str(store or planted.store)), draft)


def derive(planted: Planted, store: Path, how: str) -> Path:
    """The same labels in another store: `old`, by a relabel that did not say what digests are of; `derived`, made of
    the release.
    """
    shutil.copytree(planted.store / "data", store / "data")
    folder = planted.release.version.meaning
    receipts = [*Receipts(open_store(str(planted.store)), folder).load().receipts.values()]
    tars = {"path": planted.config, "kind": "webdataset"}
    labels = {"path": str(planted.store), "kind": "release", "release": "1"}
    publish(planted, receipts, tars if how == "old" else labels, None, store)
    return store


def plant_other(folder: Path, kind: str, photos: Sequence[tuple[bytes, int]]) -> Planted:
    """One shard of five samples: a folder of images, Parquet of images, JSON lines of texts."""
    planted = Planted(folder / "labels", folder / "source", {}, {})
    planted.source.mkdir(parents=True)
    images = [data for data, _ in photos[:5]]
    config: dict[str, Any] = {"path": str(planted.source), "kind": kind, "buckets": 1}
    name, keys = f"part-{kind}", [f"k{row}" for row in range(5)]
    if kind == "images":
        name, keys = "bucket-00000-of-00001", [f"cats/photo {row}.jpg" for row in range(5)]
        (planted.source / "cats").mkdir()
        for key, data in zip(keys, images, strict=True):
            (planted.source / key).write_bytes(data)
    elif kind == "parquet":
        table = pa.table({"id": keys, "image": images})
        pq.write_table(table, planted.source / f"{name}.parquet")
    else:
        images = [f"text {row}".encode() for row in range(5)]
        lines = [json.dumps({"id": key, "text": data.decode()}) for key, data in zip(keys, images, strict=True)]
        (planted.source / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    if kind != "images":
        config |= {"path": f"{planted.source}/*", "key": "id"}
        name = next(planted.source.iterdir()).name
    receipt = label_shard(planted, name, keys, images, 7)
    publish(planted, [receipt], config, "text" if kind == "jsonl" else "image")
    return planted


def fingerprints() -> dict[str, str]:
    return {contract.name: digest(contract.name) for contract in CONTRACTS}


def label_shard(planted: Planted, name: str, keys: Sequence[str], images: Sequence[bytes], seed: int) -> Receipt:
    statuses = ["ok", "dead", "filtered", *["ok"] * len(keys)][: len(keys)]
    reasons = [None, "corrupt_image", "where", *[None] * len(keys)][: len(keys)]
    ok = [row for row, status in enumerate(statuses) if status == "ok"]
    columns = label_columns(len(ok), seed)
    digests = [sample_digest(data) for data in images]
    table = label_table(
        label_schema(list(CONTRACTS), fingerprints()), keys, digests, statuses, reasons, stored_columns(columns)
    )
    objects = open_store(str(planted.store))
    data = encode_label_shard(table)
    objects.put(f"data/run/{name}.parquet", data)
    for place, row in enumerate(ok):
        planted.rows[name, keys[row]] = {column: values[place] for column, values in columns.items()}
        planted.photos[name, keys[row]] = images[row]
    size = (planted.source / name).stat() if (planted.source / name).exists() else planted.source.stat()
    receipt = Receipt(
        shard=name, size=size.st_size, etag=str(size.st_mtime_ns), token=digest([name, seed]), content_sha256="3" * 64,
        fingerprint=meaning_digest(fingerprints(), {"fields": {"image": ["jpg"]}}), generation=0, status="ok",
        reason="", detail="", rows=len(keys), ok=len(ok), dead=statuses.count("dead"),
        filtered=statuses.count("filtered"), reasons={each: 1 for each in reasons if each},
        keys_sha256=keys_digest(keys), data=stored(f"data/run/{name}.parquet", data), dead_letters=None,
        numerics={"device": "cpu"}, run_id="run", attempt="5" * 32,
    )  # fmt: skip
    return Receipts(objects, receipt.fingerprint).finish(receipt)


def label_columns(rows: int, seed: int) -> dict[str, Any]:
    """What every label says of so many samples."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (rows, len(NAMES), 3, 4)).astype(np.float32)
    maps = {f"label_map_{name}": values for name, values in encode(logits, 5).items()}
    masks = [random.integers(0, 3, (random.integers(2, 9), 6)).astype(np.uint8) for _ in range(rows)]
    for mask in masks:
        mask[0, :3] = (0, 1, 2)
    sides = random.integers(1, 900, (2, rows)).astype(np.int32)
    return {
        **maps, "label_map_height": sides[0], "label_map_width": sides[1],
        "mask_map": masks, "mask_height": np.array([mask.shape[0] for mask in masks], np.int32),
        "mask_width": np.full(rows, 6, np.int32), "mask_classes": [[0, 1, 2]] * rows,
        "mask_confidence": [random.uniform(0.5, 1, 3).astype(np.float32).tolist() for _ in range(rows)],
        "caption_old": [f"IMG_{row}.jpg" for row in range(rows)],
        "caption_short_text": [f"Überall „photo“ {seed}{row}" for row in range(rows)],
        "caption_short_raw": [f" photo {row}\n" for row in range(rows)],
        "caption_short_num_tokens": np.arange(rows, dtype=np.int32), "caption_short_finish_reason": ["stop"] * rows,
        "caption_short_mean_logprob": -random.random(rows).astype(np.float32),
        "caption_short_attempts": np.full(rows, 200, np.uint8), "caption_short_flags": [["language"], []] * rows,
        "quality_value": random.normal(size=rows).astype(np.float32),
        "vector_vector": random.normal(size=(rows, 7)).astype(np.float16),
    }  # fmt: skip


def stored_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """As a labeler gives them."""
    rows = len(columns["caption_old"])
    return {
        **columns,
        "mask_map": [mask.tobytes() for mask in columns["mask_map"]],
        "caption_short_flags": columns["caption_short_flags"][:rows],
    }
