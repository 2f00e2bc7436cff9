"""Receipts: first wins, folds, damage, and work that is found gone."""

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.digests import digest, sha256
from relabel.errors import StoreCorrupt
from relabel.releases.receipts import Receipt, Receipts, keys_digest
from relabel.releases.records import decode_records, encode_records, from_json, to_json
from relabel.releases.stored import Stored
from relabel.storage.objects import ObjectStore

FINGERPRINT = digest("teacher")


def make_receipt(number: int, generation: int = 0, attempt: str | None = None) -> Receipt:
    name = f"shard-{number:06d}.tar"
    data = Stored(f"data/run/{name}.parquet", 1000 + number, sha256(name.encode()))
    return Receipt(
        shard=name, size=10**9, etag="e", token=digest(name), content_sha256=sha256(b"1"), fingerprint=FINGERPRINT,
        generation=generation, status="ok", reason="", detail="", rows=10, ok=9, dead=1, filtered=0,
        reasons={"corrupt_image": 1}, keys_sha256=keys_digest(["a"]), data=data, dead_letters=None,
        numerics={"device": "cpu", "threads": 2}, run_id="run", attempt=attempt or uuid.uuid4().hex,
    )  # fmt: skip


stored_objects = st.none() | st.builds(Stored, path=st.text(), size_bytes=st.integers(0, 2**62), sha256=st.text())
records = st.builds(
    Receipt,
    **{name: st.text() for name in ("shard", "etag", "token", "content_sha256", "fingerprint", "status", "reason",
                                    "detail", "keys_sha256", "run_id", "attempt")},
    **{name: st.integers(0, 2**62) for name in ("size", "generation", "rows", "ok", "dead", "filtered")},
    reasons=st.dictionaries(st.text(), st.integers(0, 10**9)),
    numerics=st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.text())),
    data=stored_objects,
    dead_letters=stored_objects,
    summary=st.text(),
)  # fmt: skip


@given(st.lists(records, max_size=5))
def test_records_come_back(receipts: list[Receipt]) -> None:
    data = encode_records(Receipt, receipts)
    assert encode_records(Receipt, list(receipts)) == data
    assert decode_records(Receipt, data, "x") == receipts
    assert [from_json(Receipt, to_json(receipt), "x") for receipt in receipts] == receipts


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(StoreCorrupt, match=r"segments/x.*stored"):
        decode_records(Stored, encode_records(Receipt, [make_receipt(1)]), "segments/x")
    with pytest.raises(StoreCorrupt, match="rows"):
        from_json(Receipt, {k: v for k, v in to_json(make_receipt(1)).items() if k != "rows"}, "x")


def test_the_first_receipt_wins(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    first, late = make_receipt(1), make_receipt(1)
    assert receipts.finish(first) == first
    assert receipts.finish(late) == first
    assert receipts.finish(first) == first
    assert receipts.load().receipts == {first.token: first}


def test_fingerprints_do_not_mix(store: ObjectStore) -> None:
    receipt = make_receipt(1)
    Receipts(store, FINGERPRINT).finish(receipt)
    assert Receipts(store, digest("another")).load().receipts == {}


def test_the_newest_generation_counts(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    old = receipts.finish(make_receipt(1))
    receipts.fold([old])
    assert receipts.load().next_generation(old.token) == 1
    new = receipts.finish(make_receipt(1, generation=1))
    assert receipts.load().receipts == {new.token: new}
    receipts.fold([new])
    assert receipts.load().receipts == {new.token: new}
    assert receipts.load().next_generation(new.token) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data.replace(b"1", b"2", 1), lambda data: b""])
def test_a_damaged_receipt_is_done_again(store: ObjectStore, damage: Callable[[bytes], bytes]) -> None:
    receipts = Receipts(store, FINGERPRINT)
    whole, hit = receipts.finish(make_receipt(1)), receipts.finish(make_receipt(2))
    path = receipts.path(hit.token, 0)
    store.put(path, damage(store.get(path)))
    finished = receipts.load()
    assert finished.receipts == {whole.token: whole}
    assert len(finished.damaged) == 1
    assert path in finished.damaged[0]
    assert finished.next_generation(hit.token) == 1
    again = receipts.finish(make_receipt(2))
    assert again.generation == 1
    assert receipts.load().receipts == {whole.token: whole, again.token: again}


def test_a_damaged_fold_is_reported_and_replaced_by_its_receipts(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    written = [receipts.finish(make_receipt(number)) for number in range(3)]
    path = receipts.fold(written)
    store.put(path, store.get(path)[:-1] + b"?")
    finished = receipts.load()
    assert set(finished.receipts) == {receipt.token for receipt in written}
    assert [path in line for line in finished.damaged] == [True]


def test_many_receipts_fold_into_one(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    folded = [make_receipt(number) for number in range(2000)]
    receipts.fold(folded[:1500])
    receipts.fold(folded[1000:])
    loose = [receipts.finish(make_receipt(number)) for number in range(2000, 2020)]
    finished = receipts.load()
    assert finished.receipts == {receipt.token: receipt for receipt in [*folded, *loose]}
    assert finished.num_loose == 20
    assert finished.damaged == []


def test_a_fold_is_named_by_its_content(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    several = [make_receipt(number) for number in range(5)]
    assert receipts.fold(several) == receipts.fold(reversed(several))


@pytest.mark.parametrize("num_shards", [3, 100])
def test_gone_data_is_noticed(store: ObjectStore, num_shards: int) -> None:
    receipts = Receipts(store, FINGERPRINT)
    written = []
    for number in range(num_shards):
        receipt = make_receipt(number)
        assert receipt.data is not None
        store.put(receipt.data.path, bytes(receipt.data.size_bytes))
        written.append(receipt)
    receipts.fold(written)
    finished = receipts.load()
    assert receipts.data_present(finished) == set(finished.receipts)
    store.delete(f"data/run/{written[0].shard}.parquet")
    store.put(f"data/run/{written[1].shard}.parquet", b"short")
    assert receipts.data_present(finished) == {receipt.token for receipt in written[2:]}


def test_dead_letters_must_be_there_too(store: ObjectStore) -> None:
    receipts = Receipts(store, FINGERPRINT)
    letters = Stored("data/run/letters.dead.jsonl", 3, "0" * 64)
    dead = dataclasses.replace(make_receipt(1), status="dead", data=None, dead_letters=None)
    both = dataclasses.replace(make_receipt(2), data=None, dead_letters=letters)
    for receipt in (dead, both):
        receipts.finish(receipt)
    finished = receipts.load()
    assert receipts.data_present(finished) == {dead.token}
    store.put(letters.path, b"{}\n")
    assert receipts.data_present(finished) == {dead.token, both.token}


def test_strangers_in_the_folder_are_ignored(store: ObjectStore, tmp_path: Path) -> None:
    receipts = Receipts(store, FINGERPRINT)
    store.put(f"{receipts.folder}/notes.txt", b"hello")
    assert receipts.load().receipts == {}
    assert receipts.load().damaged == []
