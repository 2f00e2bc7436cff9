"""Diff: shards, samples and labels of two releases, by class where there are classes."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import relabel
from relabel.digests import digest, sample_digest
from relabel.labels.class_map import ClassMap
from relabel.labels.contract import Geometry, LabelContract
from relabel.labels.kinds import classes, scores, text
from relabel.labels.label_map import LabelMap, LabelMaps, decode_row, encode, label_map_contract
from relabel.labels.mask import mask_contract
from relabel.labels.shard_file import encode_label_shard, label_schema, label_table
from relabel.releases.changes import top_of_maps
from relabel.releases.commit import Draft, commit
from relabel.releases.diff import Difference
from relabel.releases.receipts import Receipt, keys_digest
from relabel.releases.stored import stored
from relabel.releases.versions import LabelIdentity
from relabel.testing.memory import MemoryStore

ANIMALS, BEASTS = ("cat", "dog", "owl"), ("owl", "cat", "yak")
GEOMETRY = Geometry(size=64, interpolation="bilinear", orientation="exif")
Rows = Mapping[str, tuple[Any, ...] | str]
"""Key -> the values of the label's columns, or `status reason`."""
numbers = itertools.count()


def publish(store: MemoryStore, contract: LabelContract, shards: Mapping[str, Rows], names: Sequence[str] = ()) -> int:
    """A release of these rows; returns its number."""
    teacher = digest([contract.model_dump(mode="json"), list(names)])
    receipts = [write(store, contract, teacher, shard, rows) for shard, rows in shards.items()]
    identity = LabelIdentity(
        operator="hand", version=1, fingerprint=teacher, identity={}, contract=contract, class_names=tuple(names)
    )
    number = len(list(store.list("versions")))
    held = relabel.Store(store).release().shards if number else []
    draft = Draft(
        run_id=f"run-{number}", parent=number, labels={contract.name: identity}, receipts=receipts,
        num_source_shards=len(receipts), removed=[shard for shard in held if shard not in shards],
    )  # fmt: skip
    return commit(store, draft).version


def write(store: MemoryStore, contract: LabelContract, teacher: str, shard: str, rows: Rows) -> Receipt:
    ok = [values for values in rows.values() if not isinstance(values, str)]
    columns = {
        column.name: [values[index] for values in ok] if column.loose
        else np.array([values[index] for values in ok], column.dtype).reshape(len(ok), *column.shape)
        for index, column in enumerate(contract.columns)
    }  # fmt: skip
    states = [values.split() if isinstance(values, str) else ["ok", None] for values in rows.values()]
    table = label_table(
        label_schema([contract], {contract.name: teacher}), list(rows), [sample_digest(key.encode()) for key in rows],
        [str(status) for status, _ in states], [reason for _, reason in states], columns,
    )  # fmt: skip
    data = encode_label_shard(table)
    path = f"data/{next(numbers)}.parquet"
    store.put(path, data)
    dead = sum(status == "dead" for status, _ in states)
    return Receipt(
        shard=shard, size=1, etag="e", token=digest([shard, teacher]), content_sha256="", fingerprint=teacher,
        generation=0, status="ok", reason="", detail="", rows=len(rows), ok=len(ok), dead=dead,
        filtered=len(rows) - len(ok) - dead, reasons={reason: 1 for _, reason in states if reason},
        keys_sha256=keys_digest(rows), data=stored(path, data), dead_letters=None, numerics={}, run_id="run",
        attempt=str(next(numbers)),
    )  # fmt: skip


def told(store: MemoryStore, a: int = 1, b: int = 2) -> Any:
    return diff(store, a, b).to_json()


def diff(store: MemoryStore, a: int, b: int, shards: int | None = None) -> Difference:
    return relabel.Store(store).diff(a, b, shards)


def pick(index: int, score: float = 0.9) -> tuple[Any, ...]:
    return [index], [score]


def test_shards_samples_and_states() -> None:
    store, contract = MemoryStore(), classes("animal", ANIMALS)
    same: Rows = {"s": pick(0)}
    publish(store, contract, {
        "gone": {"x": pick(0), "y": pick(0)}, "same": same,
        "both": {"a": pick(0), "b": "dead corrupt_image", "c": pick(1), "d": "filtered where"},
    }, ANIMALS)  # fmt: skip
    publish(store, contract, {
        "new": {"z": pick(0)}, "same": same,
        "both": {"c": pick(1), "b": pick(2), "e": pick(0), "d": "filtered where", "a": "dead timed_out"},
    }, ANIMALS)  # fmt: skip
    found = told(store)
    assert found["shards"] == {"added": 1, "removed": 1, "changed": 1, "unchanged": 1, "died": 0, "revived": 0}
    assert found["shard_examples"]["added"] == ["new"]
    assert (found["samples"]["added"], found["samples"]["removed"]) == (2, 2)
    assert found["samples"]["status"] == [
        {"before": "dead corrupt_image", "after": "ok", "count": 1},
        {"before": "ok", "after": "dead timed_out", "count": 1},
    ]
    assert {"shard": "both", "key": "b", "before": "dead corrupt_image", "after": "ok"} in found["samples"]["examples"]
    assert (found["labels"]["animal"]["compared"], found["labels"]["animal"]["changed"]) == (1, 0)


def test_classes_are_matched_by_name() -> None:
    store = MemoryStore()
    publish(store, classes("animal", ANIMALS), {"s": {"a": pick(0), "b": pick(1), "c": pick(2)}}, ANIMALS)
    publish(store, classes("animal", BEASTS), {"s": {"a": pick(1), "b": pick(2), "c": pick(0)}}, BEASTS)
    label = told(store)["labels"]["animal"]
    assert (label["compared"], label["changed"]) == (3, 1)
    assert label["transitions"] == [{"before": "dog", "after": "yak", "count": 1}]
    assert label["examples"] == [{"shard": "s", "key": "b", "before": "dog", "after": "yak"}]
    assert label["notes"] == ["class maps differ (3 and 3): 2 names are in both"]


def test_what_cannot_be_compared_is_said() -> None:
    store = MemoryStore()
    publish(store, classes("x", ANIMALS), {"s": {"a": pick(0)}})
    publish(store, classes("x", BEASTS), {"s": {"a": pick(1)}})
    publish(store, classes("x", ("ant", "bee")), {"s": {"a": pick(1)}}, ("ant", "bee"))
    publish(store, scores("x", "mean"), {"s": {"a": (0.5,)}})
    publish(store, scores("y", "mean"), {"s": {"a": (0.5,)}})
    assert "have no names to match by" in told(store, 1, 2)["labels"]["x"]["notes"][0]
    assert told(store, 3, 4)["labels"]["x"]["notes"] == ["not compared: a classes in A, a score in B"]
    labels = told(store, 4, 5)["labels"]
    assert {name: label["notes"] for name, label in labels.items()} == {
        "x": ["only in release A"], "y": ["only in release B"],
    }  # fmt: skip
    assert all(label["compared"] == 0 for label in labels.values())


def maps(logits: np.ndarray) -> list[tuple[Any, ...]]:
    encoded = encode(logits.astype(np.float32), 2)
    return [(*(encoded[name][row] for name in ("ids", "scores", "residual")), 10, 10) for row in range(len(logits))]


def test_label_maps_by_sample_and_by_cell() -> None:
    contract = label_map_contract("maps", ClassMap(ANIMALS).declare(), (2, 2), 2, GEOMETRY)
    before = np.zeros((2, 3, 2, 2))
    before[:, 0] = 5.0
    after = before.copy()
    after[1, 1, 0, 0] = 9.0  # one cell of the second sample
    store = MemoryStore()
    publish(store, contract, {"s": dict(zip("ab", maps(before), strict=True))}, ANIMALS)
    publish(store, contract, {"s": dict(zip("ab", maps(after), strict=True))}, ANIMALS)
    after[1, 1] = 9.0
    publish(store, contract, {"s": dict(zip("ab", maps(after), strict=True))}, ANIMALS)
    one, all_cells = (told(store, 1, number)["labels"]["maps"] for number in (2, 3))
    assert (one["changed"], one["cells_changed"], one["cells"]) == (0, 1, 8)
    assert (all_cells["changed"], all_cells["cells_changed"]) == (1, 4)
    assert all_cells["transitions"] == [{"before": "cat", "after": "dog", "count": 1}]


def test_the_class_of_a_map_is_that_of_its_mean() -> None:
    """The shortcut over the top k agrees with the mean over dense probabilities."""
    contract = label_map_contract("maps", ClassMap(tuple("abcdefg")).declare(), (3, 2), 2, GEOMETRY)
    encoded = encode(np.random.default_rng(0).normal(size=(200, 7, 3, 2)).astype(np.float32) * 2, 2)
    sides = np.ones(200, np.int32)
    maps_of_all = LabelMaps(np.ones(200, np.bool_), **encoded, height=sides, width=sides)
    rows = [{f"maps_{name}": value[row].tobytes() for name, value in encoded.items()} for row in range(200)]
    decoded = [decode_row(contract, {**row, "maps_height": 1, "maps_width": 1}) for row in rows]
    assert all(isinstance(each, LabelMap) for each in decoded)
    expected = [each.probabilities().mean(axis=(0, 1), dtype=np.float64).argmax() for each in decoded]
    assert (top_of_maps(maps_of_all, 7) == expected).mean() > 0.99  # float32 against float64


def test_masks_by_pixel() -> None:
    contract = mask_contract("mask", ClassMap(ANIMALS).declare(), GEOMETRY, 0.5)

    def row(pixels: list[int]) -> tuple[Any, ...]:
        return bytes(pixels), 2, 2, sorted(set(pixels) - {255}), [0.9] * len(set(pixels) - {255})

    store = MemoryStore()
    publish(store, contract, {"s": {"a": row([0, 0, 0, 1]), "b": row([2, 2, 255, 2])}}, ANIMALS)
    publish(store, contract, {"s": {"a": row([1, 1, 0, 1]), "b": row([2, 2, 2, 2])}}, ANIMALS)
    label = told(store)["labels"]["mask"]
    assert (label["compared_by"], label["cells"], label["cells_changed"], label["changed"]) == ("pixels", 8, 3, 1)
    assert label["transitions"] == [{"before": "cat", "after": "dog", "count": 1}]


@pytest.mark.parametrize(
    ("contract", "before", "after", "shown"),
    [
        (scores("x", "mean", "spread"), (0.25, 1.0), (0.5, 1.0), ("mean 0.25, spread 1", "mean 0.5, spread 1")),
        (text("x"), ("a cat",), ("a dog " * 20,), ("a cat", ("a dog " * 20)[:59] + "…")),
    ],
    ids=["scores", "text"],
)
def test_other_kinds_by_value(contract: LabelContract, before: Any, after: Any, shown: tuple[str, str]) -> None:
    store = MemoryStore()
    publish(store, contract, {"s": {"a": before, "b": before}})
    publish(store, contract, {"s": {"a": before, "b": after}})
    label = told(store)["labels"]["x"]
    assert (label["compared"], label["changed"]) == (2, 1)
    assert label["examples"] == [{"shard": "s", "key": "b", "before": shown[0], "after": shown[1]}]


def test_only_what_differs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store, contract = MemoryStore(), scores("x", "mean")
    publish(store, contract, {f"{number}": {"a": (0.5,)} for number in range(8)})
    publish(store, contract, {f"{number}": {"a": (0.5 + (number > 3),)} for number in range(8)})
    read: list[str] = []
    get = MemoryStore.get

    def remember(self: MemoryStore, path: str) -> bytes:
        read.append(path)
        return get(self, path)

    monkeypatch.setattr(MemoryStore, "get", remember)
    whole = diff(store, 1, 2)
    assert len([path for path in read if path.startswith("data/")]) == 2 * 4
    assert (whole.read, whole.labels["x"].changed) == (4, 4)
    sampled = diff(store, 1, 2, shards=2)
    assert (sampled.to_read, sampled.read, sampled.labels["x"].changed) == (4, 2, 2)


def test_withdrawn_samples_are_no_difference(make_job: Callable) -> None:
    store = MemoryStore()
    make_job({"a.tar": 5}, store=store).run()
    opened = relabel.Store(store)
    opened.withdraw({"a.tar": ["a.tar-3"]}, "asked")
    opened.erase()
    found = opened.diff(1, 2).to_json()
    assert (found["same_content"], found["shards"]["changed"]) == (False, 1)
    assert (found["samples"]["status"], found["labels"]["label_map"]["changed"]) == ([], 0)
