"""Hostile JSON lines: rows as they were written or a dead shard with its line; no file takes more than its caps."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from archives import read_all
from confined import confined
from hypothesis import given
from hypothesis import strategies as st

from relabel.errors import BadShard
from relabel.reasons import Reason
from relabel.shards.json_lines import JsonLinesSource, fields_of

READ = """
from relabel.shards.json_lines import JsonLinesSource
source = JsonLinesSource(sys.argv[1])
guarded(lambda: sum(1 for shard in source.shards() for sample in source.read(shard)))
"""
GOOD = b'{"text": "good"}\n'


def refusal(path: Path, data: bytes, key: str | None = None) -> BadShard:
    path.write_bytes(data)
    with pytest.raises(BadShard, match=path.name) as caught:
        read_all(JsonLinesSource(str(path), key=key))
    return caught.value


@pytest.mark.parametrize(
    ("line", "reason", "says"),
    [
        (b"{'text': 1}\n", Reason.CORRUPT_SHARD, "line 3 is not JSON"),
        (b'{"text": "a"} {"text": "b"}\n', Reason.CORRUPT_SHARD, "Extra data"),
        (b'{"text": "a", "text": "b"}\n', Reason.CORRUPT_SHARD, "names a member twice"),
        (b'{"meta": {"a": 1, "a": 2}}\n', Reason.CORRUPT_SHARD, "names a member twice"),
        (b'{"text": NaN}\n', Reason.CORRUPT_SHARD, "NaN is no number"),
        (b'{"text": "\xff"}\n', Reason.CORRUPT_SHARD, "UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16"), Reason.CORRUPT_SHARD, "line 3"),
        (b'["text"]\n', Reason.CORRUPT_SHARD, "must be an object ({...}), got list"),
        (b"7\n", Reason.CORRUPT_SHARD, "got int"),
        (b'{"n": ' + b"9" * 5000 + b"}\n", Reason.CORRUPT_SHARD, "line 3"),
        (b"[" * 200_000 + b"\n", Reason.CORRUPT_SHARD, "line 3"),
        (b'{"text": "cut', Reason.TRUNCATED_SHARD, "ends in the middle of line 3"),
        (b'{"__bad_key__": true}\n', Reason.UNSUPPORTED_SHARD, "reserved"),
    ],
)
def test_a_line_that_is_none_names_itself(tmp_path: Path, line: bytes, reason: Reason, says: str) -> None:
    found = refusal(tmp_path / "a.jsonl", GOOD + b"\n" + line)
    assert found.reason == reason
    assert says in found.detail


def test_a_line_without_end_is_refused_in_small_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    answer = confined(READ, str(path), limit_bytes=2 << 30)
    assert answer["error"] == "BadShard"
    assert "unsupported_shard" in answer["text"]
    assert "line 1 has more than" in answer["text"]
    assert answer["grown"] < 120 << 20


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_bomb_is_read_in_small_memory(tmp_path: Path, suffix: str) -> None:
    """1.2 GB of rows from a thousandth of that."""
    row = json.dumps({"text": "x" * (8 << 20)}).encode() + b"\n"
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes((gzip.compress(row, 1) if suffix == "gz" else pa.compress(row, "zstd", asbytes=True)) * 150)
    answer = confined(READ, str(path), limit_bytes=2 << 30)
    assert answer["answer"] == 150
    assert answer["grown"] < 200 << 20


def test_blank_lines_are_bounded(tmp_path: Path) -> None:
    found = refusal(tmp_path / "a.jsonl.gz", gzip.compress(GOOD + b"\n" * (30 << 20)))
    assert "100000 blank lines before line 100002" in found.detail


def test_what_a_shard_may_decompress_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.shards.decompress.FREE_DECOMPRESSED_BYTES", 1000)
    monkeypatch.setattr("relabel.shards.decompress.MAX_EXPANSION", 2)
    found = refusal(tmp_path / "a.jsonl.gz", gzip.compress(GOOD * 10_000))
    assert found.reason == Reason.UNSUPPORTED_SHARD
    assert refusal(tmp_path / "b.jsonl.gz", gzip.compress(GOOD * 10)[:-5]).reason == Reason.TRUNCATED_SHARD
    assert refusal(tmp_path / "c.jsonl.gz", GOOD).reason == Reason.CORRUPT_SHARD


def test_keys_of_a_shard_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.shards.naming.MAX_KEYS_BYTES", 10_000)
    assert refusal(tmp_path / "a.jsonl", GOOD * 200).reason == Reason.UNSUPPORTED_SHARD
    long = json.dumps({"k": "a" * 5000}).encode()
    assert "line 1: row 0 has a key of 5000" in refusal(tmp_path / "b.jsonl", long, key="k").detail


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_fields_or_a_bad_shard(line: bytes, ended: bool) -> None:
    try:
        fields = fields_of(1, line, ended)
    except BadShard as error:
        assert "line 1" in error.detail
    else:
        assert all(isinstance(value, str | int | float | bool | None) for value in fields.values())
