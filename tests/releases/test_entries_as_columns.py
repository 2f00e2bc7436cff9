"""Entries as columns: the bytes that plain lists give, and one entry found without making all the others."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel.digests import canonical_json
from relabel.errors import UnknownName
from relabel.releases import records
from relabel.releases.receipts import Receipt
from relabel.releases.records import decode_records, encode_records, fields_of
from relabel.releases.release import Release
from relabel.releases.segments import INDEX_AFTER, EntryColumns, read_segments
from relabel.releases.stored import Stored
from relabel.storage.objects import ObjectStore

MakeJob = Callable[..., Any]

SHARDS = {"a.tar": 4, "b.tar": 5, "é.tar": 3, "dead.tar": -1}


def plain_cell(value: object) -> object:
    if isinstance(value, Stored):
        return dataclasses.asdict(value)
    return canonical_json(value).decode() if isinstance(value, dict) else value


def encode_plainly(receipts: list[Receipt]) -> bytes:
    """Cell by cell, as Arrow makes columns of Python's own values; no record has a summary or a usage."""
    types = {name: declared for name, declared in fields_of(Receipt).items() if name not in ("summary", "usage")}
    schema = pa.schema([(name, records.arrow_type(declared)) for name, declared in types.items()])
    rows = [{name: plain_cell(getattr(receipt, name)) for name in types} for receipt in receipts]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema), sink, compression="zstd", compression_level=3,
        row_group_size=records.ROW_GROUP_ROWS, write_page_checksum=True, write_statistics=False,
        use_dictionary=[name for name in records.REPETITIVE if name in types],
    )  # fmt: skip
    return sink.getvalue()


def test_the_bytes_are_those_of_plain_lists(make_job: MakeJob, store: ObjectStore) -> None:
    receipts = make_job(SHARDS).finish_all()
    shared = {"mixed": [{"threads": 1}, {"threads": 2}]}
    receipts += [dataclasses.replace(each, numerics=shared, dead_letters=None) for each in receipts]
    data = encode_records(Receipt, receipts)
    assert data == encode_plainly(receipts)
    assert decode_records(Receipt, data, "x") == receipts
    assert decode_records(Receipt, encode_records(Receipt, []), "x") == []


def test_one_entry_is_found_among_those_of_several_segments(make_job: MakeJob, store: ObjectStore) -> None:
    make_job(SHARDS, run_id="one").run()
    make_job({**SHARDS, "c.tar": 6}, run_id="two", etags={"a.tar": "new"}).run()
    version = make_job({"a.tar": 4, "c.tar": 6}, run_id="three", etags={"a.tar": "new"}).run(
        removed=["b.tar", "é.tar", "dead.tar"]
    )
    assert len(version.segments) == 3
    columns, entries = EntryColumns(store, version.segments), read_segments(store, version.segments)
    assert columns.entries() == entries
    assert list(entries) == ["a.tar", "c.tar"]
    assert {shard: columns.find(shard) for shard in entries} == entries
    assert columns.tokens() == {shard: entry.token for shard, entry in entries.items()}
    assert columns.find("b.tar") is None
    assert columns.find("z.tar") is None
    before = EntryColumns(store, version.segments[:1])
    assert list(before.tokens()) == sorted(SHARDS)
    assert before.find("é.tar") == before.entries()["é.tar"]


def test_an_epoch_does_not_search_for_every_shard(
    make_job: MakeJob, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(SHARDS, run_id="one").run()
    version = make_job({**SHARDS, "c.tar": 6}, run_id="two", etags={"a.tar": "new"}).run(removed=["b.tar"])
    columns, entries = EntryColumns(store, version.segments), read_segments(store, version.segments)
    searched: list[str] = []
    look_for = EntryColumns._look_for

    def counted(self: EntryColumns, shard: str) -> tuple[int, int] | None:
        searched.append(shard)
        return look_for(self, shard)

    monkeypatch.setattr(EntryColumns, "_look_for", counted)
    for _ in range(5):
        assert {shard: columns.find(shard) for shard in entries} == entries
        assert columns.find("b.tar") is None
        assert columns.find("z.tar") is None
    assert len(searched) == INDEX_AFTER < 5 * len(entries)


def test_one_shard_is_read_without_making_all_entries(
    make_job: MakeJob, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_job(SHARDS).run()
    release = Release(store, version)

    def refuse(self: EntryColumns) -> None:
        raise AssertionError("all entries were made")

    monkeypatch.setattr(EntryColumns, "entries", refuse)
    assert release.table("b.tar").num_rows == 5
    assert release.shards == sorted(SHARDS)
    with pytest.raises(UnknownName, match="did you mean 'b.tar'"):
        release.table("b.tax")
