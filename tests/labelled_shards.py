"""Labelled shards: sources of real, small JPEGs of every kind, and releases of them made without a model or Ray.

Every label says which sample it is of: `mark_value` is a number of its key, the label map is drawn from it.
"""

import dataclasses
import functools
import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from archives import make_tar
from PIL import Image

import relabel
from relabel.digests import digest, sample_digest
from relabel.labels.contract import Classes, Geometry, LabelContract
from relabel.labels.kinds import scores
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.commit import Draft, commit
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.stored import stored
from relabel.releases.versions import LabelIdentity, meaning_digest, version_numbers
from relabel.shards.source import SourceConfig, open_source, pick
from relabel.storage.filesystems import resolve
from relabel.storage.opening import open_store

Statuses = Callable[[str, str], str]
Fields = list[tuple[str, bytes]]


def mark(key: str) -> float:
    """A number of a key."""
    return int(digest(key)[:6], 16) / 2**24


def jpeg(photo: bytes, seed: int, size: int = 32) -> bytes:
    """A small JPEG of some part of a photograph, another one for every seed."""
    with Image.open(io.BytesIO(photo)) as image:
        random = np.random.default_rng(seed)
        left, top = (int(random.integers(0, max(1, side - 64))) for side in image.size)
        part = image.convert("RGB").crop((left, top, left + 64, top + 64)).resize((size, size))
    out = io.BytesIO()
    part.save(out, "JPEG", quality=80, comment=str(seed))
    return out.getvalue()


def members(photos: Sequence[tuple[bytes, int]], first: int, count: int) -> Fields:
    """Samples `first` to `first + count`, each .jpg and .cls."""
    found: Fields = []
    for number in range(first, first + count):
        photo, label = photos[number % len(photos)]
        found += [(f"{number:05d}.jpg", jpeg(photo, number)), (f"{number:05d}.cls", str(label).encode())]
    return found


def write_file(url: str, data: bytes) -> None:
    filesystem, path = resolve(url)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    with filesystem.open(path, "wb") as file:
        file.write(data)


def write_tars(url: str, photos: Sequence[tuple[bytes, int]], sizes: Sequence[int]) -> None:
    """`train-00.tar` ... with so many samples each."""
    first = 0
    for number, size in enumerate(sizes):
        write_file(f"{url}/train-{number:02d}.tar", make_tar(members(photos, first, size)))
        first += size


def write_parquets(url: str, photos: Sequence[tuple[bytes, int]], sizes: Sequence[int], group: int = 8) -> None:
    """`train-00.parquet` ... with columns image, id and label, in small row groups."""
    first = 0
    for number, size in enumerate(sizes):
        files = dict(members(photos, first, size))
        keys = [f"{index:05d}" for index in range(first, first + size)]
        columns = {
            "image": [files[f"{key}.jpg"] for key in keys],
            "id": keys,
            "label": [int(files[f"{key}.cls"]) for key in keys],
        }
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, row_group_size=group)
        write_file(f"{url}/train-{number:02d}.parquet", sink.getvalue())
        first += size


def map_contract(classes: int, grid: tuple[int, int], top_k: int) -> LabelContract:
    geometry = Geometry(size=64, interpolation="bilinear", orientation="exif")
    return label_map_contract("label_map", Classes(digest="c" * 64, count=classes), grid, top_k, geometry)


@functools.lru_cache(maxsize=64)
def logits_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclasses.dataclass
class Publisher:
    """Publishes releases of one source into one store."""

    store_url: str
    source: Mapping[str, Any]
    statuses: Statuses = lambda shard, key: "ok"
    """(shard, key) -> ok | dead | filtered."""
    needs: Sequence[str] = ("image",)
    """What the digests are over."""
    labels: Sequence[str] = ("label_map", "mark")
    teacher: str = "small"
    classes: int = 5
    grid: tuple[int, int] = (2, 3)
    top_k: int = 2
    distinct: int = 2**24
    """Maps, of which every key has one."""

    def publish(self, **release: Any) -> relabel.Release:
        """Labels every shard of the source; opens the release."""
        store = open_store(self.store_url)
        config = SourceConfig.model_validate(dict(self.source))
        contracts = {"label_map": map_contract(self.classes, self.grid, self.top_k), "mark": scores("mark", "value")}
        chosen = {name: contracts[name] for name in self.labels}
        fingerprints = {name: digest([self.teacher, name]) for name in chosen}
        source = open_source(config)
        receipts = [self._label(store, config, source, shard, chosen, fingerprints) for shard in source.shards()]
        identities = {
            name: LabelIdentity(operator=name, version=1, fingerprint=fingerprints[name], identity={}, contract=each)
            for name, each in chosen.items()
        }
        numbers = version_numbers(store)
        version = commit(
            store,
            Draft(
                run_id=uuid.uuid4().hex, parent=numbers[-1] if numbers else 0, labels=identities, receipts=receipts,
                removed=(), num_source_shards=len(receipts),
                recipe={"source": json.loads(config.model_dump_json()), "steps": []}, source={"root": source.root},
            ),
        )  # fmt: skip
        return relabel.open(self.store_url).release(version.version, **release)

    def _maps(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        seeds = [int(mark(key) * 2**24) % self.distinct for key in keys]
        shape = (self.classes, *self.grid)
        made = {seed: encode(logits_of(seed, shape)[None], self.top_k) for seed in dict.fromkeys(seeds)}
        empty = encode(np.zeros((0, *shape), np.float32), self.top_k)
        found = {name: np.concatenate([empty[name], *(made[seed][name] for seed in seeds)]) for name in empty}
        sides = {name: np.full(len(keys), 32, np.int32) for name in ("height", "width")}
        return {f"label_map_{name}": values for name, values in {**found, **sides}.items()}

    def _label(
        self, store: Any, config: SourceConfig, source: Any, shard: Any, contracts: Any, fingerprints: Any
    ) -> Receipt:
        samples = list(source.read(shard))
        keys = [sample.key for sample in samples]
        statuses = [self.statuses(shard.name, key) for key in keys]
        digests = [sample_digest(b"".join(as_bytes(pick(config, one, need)) for need in self.needs)) for one in samples]
        ok = [key for key, status in zip(keys, statuses, strict=True) if status == "ok"]
        marks = {"mark_value": np.array([mark(key) for key in ok], np.float32)}
        arrays = {**(self._maps(ok) if "label_map" in contracts else {}), **marks}
        reasons = [{"ok": None, "dead": "corrupt_image", "filtered": "where"}[status] for status in statuses]
        schema = label_schema(list(contracts.values()), fingerprints)
        data = encode_label_shard(label_table(schema, keys, digests, statuses, reasons, arrays))
        at = f"data/{uuid.uuid4().hex}.parquet"
        store.put(at, data)
        meaning = meaning_digest(fingerprints, None)
        return Receipts(store, meaning).finish(
            Receipt(
                shard=shard.name, size=shard.size, etag=shard.etag, token=shard.token, content_sha256="0" * 64,
                fingerprint=meaning, generation=0, numerics={"device": "none"}, run_id="run", attempt=uuid.uuid4().hex,
                status="ok", reason="", detail="", rows=len(keys), ok=len(ok), dead=statuses.count("dead"),
                filtered=statuses.count("filtered"),
                reasons={reason: reasons.count(reason) for reason in sorted(set(filter(None, reasons)))},
                keys_sha256=keys_digest(keys), data=stored(at, data), dead_letters=None,
            )
        )  # fmt: skip


def as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
