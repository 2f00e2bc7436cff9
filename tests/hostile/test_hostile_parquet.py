"""Hostile Parquet: rows as they were written or a dead shard with its name; no file takes more than its caps."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import read_all
from confined import ROOT, confined

from relabel.errors import BadShard, UnknownName
from relabel.reasons import Reason
from relabel.shards import pages
from relabel.shards.parquet import ParquetSource

READ = """
from relabel.shards.parquet import ParquetSource
source = ParquetSource(sys.argv[1])
guarded(lambda: sum(len(sample.fields["image"]) for shard in source.shards() for sample in source.read(shard)))
"""


def encode(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **options)
    return sink.getvalue()


def refusal(path: Path, **options: Any) -> BadShard:
    source = ParquetSource(str(path), **options)
    [shard] = source.files.shards()
    with pytest.raises(BadShard, match=path.name) as caught:
        list(source.read(shard))
    return caught.value


def test_a_dictionary_bomb_is_read_in_small_memory(tmp_path: Path) -> None:
    """300 rows of one 4 MB value: 1.2 GB from a few kB."""
    value = bytes(4 << 20)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array([value], pa.binary()))
    path = tmp_path / "bomb.parquet"
    path.write_bytes(
        encode({"image": dictionary}, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)
    )
    assert path.stat().st_size < 1 << 20
    answer = confined(READ, str(path))
    assert answer["answer"] == 300 * len(value)
    assert answer["grown"] < 400 << 20


def test_a_page_beyond_the_cap_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "page.parquet"
    path.write_bytes(
        encode({"image": [bytes(600 << 20)]}, compression="zstd", use_dictionary=False, write_statistics=False)
    )
    answer = confined(READ, str(path), limit_bytes=2 << 30)
    assert answer["error"] == "BadShard"
    assert "unsupported_shard" in answer["text"]
    assert "page of" in answer["text"]
    assert answer["grown"] < 200 << 20


def test_sizes_that_lie_in_the_footer_do_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own header counts: it decides what is allocated."""
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 1000)
    path = tmp_path / "a.parquet"
    path.write_bytes(encode({"image": [b"x" * 5000]}, use_dictionary=False))
    assert refusal(path).reason == Reason.UNSUPPORTED_SHARD


def test_run_lengths_of_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.shards.naming.MAX_KEYS_BYTES", 100_000)
    path = tmp_path / "rows.parquet"
    path.write_bytes(encode({"image": pa.nulls(100_000, pa.binary())}))
    assert path.stat().st_size < 2000
    assert refusal(path).reason == Reason.UNSUPPORTED_SHARD


def test_a_footer_that_announces_too_much(tmp_path: Path) -> None:
    data = encode({"image": [b"x"]})
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:-8] + b"\xff\xff\xff\x7f" + data[-4:])
    assert refusal(path).reason == Reason.CORRUPT_SHARD
    path.write_bytes(data[:4] + bytes(20 << 20) + (20 << 20).to_bytes(4, "little") + b"PAR1")
    assert refusal(path).reason == Reason.UNSUPPORTED_SHARD


def test_schemas_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    twice = pa.Table.from_arrays([pa.array([b"a"]), pa.array([b"b"])], ["image", "image"])
    for table, reason in (
        (twice, Reason.UNSUPPORTED_SHARD),
        (pa.table({"image": [[b"a"]]}), Reason.UNSUPPORTED_SHARD),
        (pa.table({"image": [{"deep": {"bytes": b"a"}}]}), Reason.UNSUPPORTED_SHARD),
        (pa.table({"photo": [b"a"]}), Reason.UNSUPPORTED_SHARD),
    ):
        path.write_bytes(encode(table))
        assert refusal(path).reason == reason
    path.write_bytes(encode({"photo": [b"a"]}))
    with pytest.raises(UnknownName, match="photo"):
        ParquetSource(str(path)).shards()


def test_no_rows_and_null_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(encode({"image": pa.array([], pa.binary())}))
    assert read_all(ParquetSource(str(path))) == []
    path.write_bytes(encode({"image": [b"a", b"b"], "id": pa.array([None, "x"])}))
    bad = [("__bad_key__" in sample.fields) for sample in read_all(ParquetSource(str(path), key="id"))]
    assert bad == [True, False]
    assert [("__bad_key__" in sample.fields) for sample in read_all(ParquetSource(str(path), key="id"))] == [
        True,
        False,
    ]
    path.write_bytes(encode({"image": [b"a"], "id": ["k" * 10_000]}))
    assert refusal(path, key="id").reason == Reason.UNSUPPORTED_SHARD


def test_the_walk_over_pages_agrees_with_the_writer(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        for compression in ("none", "snappy", "zstd"):
            table = pa.table({"image": [bytes([n]) * 3000 for n in range(200)], "other": list(range(200))})
            data = encode(table, data_page_version=version, compression=compression, data_page_size=10_000,
                          row_group_size=60, use_dictionary=False, write_batch_size=4)  # fmt: skip
            largest = pages.largest_page(io.BytesIO(data), {"image"}, "a")
            assert 10_000 <= largest < 40_000
            assert pages.largest_page(io.BytesIO(data), {"other"}, "a") < 5_000


def test_damage_at_sampled_positions_ends_no_process(tmp_path: Path) -> None:
    """Each flip in turn; the answer is the same rows or a refusal. In a process of its own: pyarrow may end it."""
    images = [bytes([n]) * (100 + n) for n in range(100)]
    (tmp_path / "whole.parquet").write_bytes(encode({"image": images}, row_group_size=40, write_page_checksum=True))
    code = """
import sys
from pathlib import Path
from relabel.errors import BadShard, UsageError
from relabel.shards.parquet import ParquetSource
whole = Path(sys.argv[1])
data = whole.read_bytes()
bad = whole.with_name("bad.parquet")
refused = 0
for place in list(range(0, len(data), 23)) + list(range(len(data) - 600, len(data), 3)):
    for change in (1 << place % 8, 0xFF):
        damaged = bytearray(data)
        damaged[place] ^= change
        bad.write_bytes(damaged)
        print(place, change, file=sys.stderr, flush=True)
        source = ParquetSource(str(bad))
        try:
            rows = [sample.fields["image"] for sample in source.read(source.files.shards()[0])]
            assert rows == [bytes([n]) * (100 + n) for n in range(100)], place
        except (BadShard, UsageError):
            refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "whole.parquet")], capture_output=True, text=True,
                          check=False, env={"PYTHONPATH": f"{ROOT}/operators"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-300:]
    assert int(done.stdout) > 100
