"""Reported releases: pairs of small ones over real photographs and texts, with what hurts a page planted in them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from planted_releases import Rows, publish
from releases_of_photos import write_tar

from pipelines.gate import judge
from pipelines.gate_policy import Gate
from relabel.labels.caption import caption_contract
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Geometry, LabelContract
from relabel.labels.kinds import classes
from relabel.labels.label_map import encode, label_map_contract
from relabel.labels.mask import mask_contract
from relabel.releases.commit import Proposal
from relabel.releases.release import Release, Store
from relabel.releases.versions import Version
from relabel.shards.shard import Shard
from relabel.shards.source import SourceConfig, open_source
from relabel.storage.opening import open_store

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202e</td></main>{{ 7 * 7 }}"
NAMES = ("dog", "cat, house cat", f"owl {ATTACK}", "whale & co", "horse")
GEOMETRY = Geometry(size=64, interpolation="bilinear", orientation="exif")
CLASSES = ClassMap(NAMES).declare()
CAPTIONS = caption_contract("caption", ["short", "long"], logprobs=True, reproducible=True, old=True)
MASKS = mask_contract("mask", CLASSES, GEOMETRY, 0.4)
MAPS = label_map_contract("map", CLASSES, (6, 6), 3, GEOMETRY)
TOPICS = classes("topic", NAMES, top_k=len(NAMES))
SHARDS, ROWS = 3, 6


def photo_shards(folder: Path, photos: Sequence[tuple[bytes, int]]) -> dict[str, Shard]:
    """Tars of the photographs; of each the last one is cut off."""
    for number in range(SHARDS):
        name = f"{number}.tar"
        members = {}
        for row in range(ROWS):
            image = Image.open(io.BytesIO(photos[(number * ROWS + row) % len(photos)][0])).convert("RGB")
            image.thumbnail((360, 360))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=85)
            data = buffer.getvalue()
            members[f"{name}/{row:04}.jpg"] = data[: len(data) * 2 // 3] if row == ROWS - 1 else data
            members[f"{name}/{row:04}.txt"] = b"IMG_0001.jpg"
        write_tar(folder / name, members)
    return {
        shard.name: shard for shard in open_source(SourceConfig(path=f"{folder}/*.tar", kind="webdataset")).shards()
    }


def text_shards(folder: Path) -> dict[str, Shard]:
    folder.mkdir(parents=True)
    for number in range(SHARDS):
        name = f"{number}.jsonl"
        lines = [
            json.dumps(
                {"id": f"{name}/{row:04}", "text": f"Text {row} of {name}. {ATTACK} " + "Words follow words. " * 9}
            )
            for row in range(ROWS)
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
    config = SourceConfig(path=f"{folder}/*.jsonl", kind="jsonl", key="id")
    return {shard.name: shard for shard in open_source(config).shards()}


def labels_of(contract: LabelContract, name: str, teacher: str) -> dict[str, Any]:
    """Columns of all but the last row of a shard: of two teachers most rows are equal, some differ much."""
    rows, random = ROWS - 1, np.random.default_rng(sum(map(ord, name)))
    moved = np.arange(rows) % 3 == 1 if teacher == "large" else np.zeros(rows, np.bool_)
    ids = np.where(moved, 2, random.integers(0, 2, rows))
    if contract.kind == "caption":
        return caption_columns(name, rows, moved)
    if contract.kind == "mask":
        return mask_columns(rows, ids, random)
    if contract.kind == "label_map":
        logits = random.normal(0, 1, (rows, len(NAMES), 6, 6)).astype(np.float32)
        for row, index in enumerate(ids):
            logits[row, index, :, : 3 if moved[row] else 6] += 6
        side = np.full(rows, 360, np.int32)
        arrays = {**encode(logits, 3), "height": side, "width": side}
        return {f"map_{suffix}": values for suffix, values in arrays.items()}
    scores = random.dirichlet(np.ones(len(NAMES)), rows).astype(np.float32)
    scores[np.arange(rows), ids] += 1
    scores /= scores.sum(axis=1, keepdims=True)
    order = np.argsort(-scores, axis=1)
    return {"topic_ids": order.astype(np.uint16), "topic_scores": np.take_along_axis(scores, order, axis=1)}


def caption_columns(name: str, rows: int, moved: np.ndarray) -> dict[str, Any]:
    said = [f"Photo {row} of {name}, {'quite another thing' if moved[row] else 'as it was'}" for row in range(rows)]
    said[0] = f"A caption {ATTACK}"
    columns: dict[str, Any] = {"caption_old": ["IMG_0001.jpg"] * rows}
    for style, texts in (("short", said), ("long", [f"{text}, told at some length. " * 3 for text in said])):
        columns |= {
            f"caption_{style}_text": [" ".join(text.split()) for text in texts],
            f"caption_{style}_raw": texts, f"caption_{style}_num_tokens": np.full(rows, 9, np.int32),
            f"caption_{style}_finish_reason": ["stop"] * rows,
            f"caption_{style}_mean_logprob": -np.linspace(0.1, 2, rows).astype(np.float32),
            f"caption_{style}_attempts": np.ones(rows, np.uint8),
            f"caption_{style}_flags": [["over_budget"] if row == 2 and style == "long" else [] for row in range(rows)],
        }  # fmt: skip
    return columns


def mask_columns(rows: int, ids: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    maps = []
    for index in ids.tolist():
        each = np.full((48, 64), 3, np.uint8)
        each[10:40, 8 : 30 + 5 * index] = index
        each[:4] = 255
        maps.append(each)
    present = [sorted({*np.unique(each).tolist()} - {255}) for each in maps]
    return {
        "mask_map": [each.tobytes() for each in maps], "mask_height": np.full(rows, 48, np.int32),
        "mask_width": np.full(rows, 64, np.int32), "mask_classes": present,
        "mask_confidence": [random.uniform(0.5, 1, len(each)).astype(np.float32).tolist() for each in present],
    }  # fmt: skip


def two_releases(folder: Path, contract: LabelContract, photos: Sequence[tuple[bytes, int]]) -> Store:
    """Release 1 of a small teacher, release 2 of a large one, which was declared and judged."""
    texts = contract is TOPICS
    shards = text_shards(folder / "in") if texts else photo_shards(folder / "in", photos)
    source = (
        {"path": f"{folder}/in/*.jsonl", "kind": "jsonl", "key": "id"}
        if texts
        else {"path": f"{folder}/in/*.tar", "kind": "webdataset", "old_label": "txt"}
    )
    store = folder / "store"
    names = NAMES if contract.classes else ()

    def rows(teacher: str) -> dict[str, Rows]:
        reason = "prompt_too_long" if texts else "corrupt_image"
        return {
            name: Rows(labels_of(contract, name, teacher), {reason: 1}, source=shard, detail=f"cut off {ATTACK}")
            for name, shard in shards.items()
        }

    recipe = {"name": "planted", "source": source, "note": ATTACK}
    publish(store, contract, rows("small"), names, recipe=recipe)

    def gate(proposal: Proposal) -> Version:
        version = proposal.version
        objects = open_store(str(store))
        verdict = judge(
            Release(objects, version), Store(objects).release(1), Gate(expect_change=f"a larger teacher {ATTACK}")
        )
        return version.model_copy(update={"gate": verdict.to_json()})

    release = publish(store, contract, rows("large"), names, teacher="large", run_id="run-2", recipe=recipe, gate=gate)
    assert release.number == 2
    return Store(open_store(str(store)))
