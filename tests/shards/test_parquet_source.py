"""Parquet shards: bytes columns and the Hugging Face image struct, keyed by a column or by content."""

import io
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import read_all, watched
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relabel.digests import sample_digest, sha256
from relabel.errors import BadShard, UnknownName, UsageError
from relabel.reasons import Reason
from relabel.shards.parquet import ParquetSource

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = [b"first", b"second", b"first", None]


def encode(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.write_bytes(encode(pa.table(columns), **options))
    return str(path)


def test_bytes_columns_and_hugging_face_images_give_the_same_samples(tmp_path: Path) -> None:
    structs = [None if image is None else {"bytes": image, "path": "x.jpg"} for image in IMAGES]
    plain = write_table(tmp_path / "plain.parquet", {"image": pa.array(IMAGES, pa.binary())})
    hugging = write_table(tmp_path / "hf.parquet", {"image": pa.array(structs, HF_IMAGE), "label": [1, 2, 3, 4]})
    assert read_all(ParquetSource(plain)) == read_all(ParquetSource(hugging))


def test_without_a_key_rows_are_named_by_content_and_occurrence(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", {"image": pa.array(IMAGES, pa.large_binary())})
    first, second, empty = (sample_digest(data).hex() for data in (b"first", b"second", b""))
    samples = read_all(ParquetSource(path))
    assert [sample.key for sample in samples] == [f"{first}-0", f"{second}-0", f"{first}-1", f"{empty}-0"]
    assert [sample.row for sample in samples] == [0, 1, 2, 3]


def test_a_key_column_of_any_kind_names_rows(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "a.parquet", {"image": IMAGES, "id": [7, 8, 9, None], "raw": [b"a", b"\xff", b"c", b"new\nline"]}
    )
    by_number = read_all(ParquetSource(path, key="id"))
    assert [(sample.key, "__bad_key__" in sample.fields) for sample in by_number] == [
        ("7", False), ("8", False), ("9", False), ("null-3", True),
    ]  # fmt: skip
    by_bytes = read_all(ParquetSource(path, key="raw"))
    assert [(sample.key, "__bad_key__" in sample.fields) for sample in by_bytes] == [
        ("a", False), ("\\xff", True), ("c", False), ("new\nline", True),
    ]  # fmt: skip


def test_repeated_keys_are_refused_by_name(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", {"image": IMAGES, "id": ["a", "b", "a", "c"]})
    with pytest.raises(BadShard, match="'a' in column 'id'") as caught:
        read_all(ParquetSource(path, key="id"))
    assert caught.value.reason == Reason.DUPLICATE_KEYS


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    columns = {"jpg": IMAGES, "text": ["a"] * 4, "width": [1.5] * 4, "tags": [["x"]] * 4, "unused": [b"x"] * 4}
    path = write_table(tmp_path / "a.parquet", columns)
    source = ParquetSource(path, needs=[("png", "jpg"), ("text",)], columns=["width", "tags", "none"])
    assert read_all(source)[0].fields == {"jpg": b"first", "text": "a", "width": 1.5}


@pytest.mark.parametrize(("options", "column"), [({"key": "ID"}, "ID"), ({"needs": [("imag",)]}, "imag")])
def test_an_unknown_column_is_a_mistake_in_the_recipe(tmp_path: Path, options: Any, column: str) -> None:
    path = write_table(tmp_path / "a.parquet", {"image": IMAGES, "id": [1, 2, 3, 4]})
    with pytest.raises(UnknownName, match=f"unknown column '{column}'"):
        ParquetSource(path, **options).shards()


def test_a_later_shard_without_the_column_is_a_bad_shard(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"image": IMAGES})
    write_table(tmp_path / "b.parquet", {"photo": IMAGES})
    source = ParquetSource(str(tmp_path / "*.parquet"))
    first, second = source.shards()
    assert len(list(source.read(first))) == 4
    with pytest.raises(BadShard, match="no column 'image'; the columns are photo") as caught:
        list(source.read(second))
    assert caught.value.reason == Reason.UNSUPPORTED_SHARD


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "corrupt_shard"), (b"not parquet at all", "corrupt_shard"), (b"PAR1PAR1", "truncated_shard")],
)
def test_what_is_not_parquet_is_corrupt(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(BadShard) as caught:
        read_all(ParquetSource(str(tmp_path / "a.parquet")))
    assert caught.value.reason == reason


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = Path(write_table(path, {"image": [bytes([index]) * 90 for index in range(20)]})).read_bytes()
    for size in range(4, len(data), 64):
        path.write_bytes(data[:size])
        with pytest.raises(BadShard, match="truncated_shard"):
            read_all(ParquetSource(str(path)))


def test_with_page_checksums_no_damaged_page_goes_unnoticed(tmp_path: Path) -> None:
    images = [bytes([index + 1]) * 300 for index in range(40)]
    path = tmp_path / "a.parquet"
    options: dict[str, Any] = {
        "write_page_checksum": True, "write_statistics": False, "compression": "none", "use_dictionary": False,
    }  # fmt: skip
    data = Path(write_table(path, {"image": images}, **options)).read_bytes()
    start = data.index(images[0])
    for position in range(start, start + 300 * 40, 211):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BadShard, match="corrupt_shard"):
            read_all(ParquetSource(str(path)))


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 7))
@example(5, 1)
@example(238, 1)
@example(251, 2)
@example(437, 3)
@example(611, 4)
def test_any_flipped_bit_is_refused_or_harmless(position: int, bit: int) -> None:
    images = [bytes([index]) * 50 for index in range(30)]
    data = bytearray(encode(pa.table({"image": images}), write_page_checksum=True))
    data[position % len(data)] ^= 1 << bit
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        try:
            samples = read_all(ParquetSource(file.name))
        except (BadShard, UsageError):
            return
    assert [sample.fields["image"] for sample in samples] == images


def test_the_digest_is_that_of_the_file_and_a_change_is_found(tmp_path: Path) -> None:
    path = Path(write_table(tmp_path / "a.parquet", {"image": IMAGES}))
    source = ParquetSource(str(path))
    [shard] = source.shards()
    reading = source.read(shard)
    samples = iter(reading)
    next(samples)
    assert reading.content_sha256 == sha256(path.read_bytes())
    write_table(path, {"image": [b"other"] * 4})
    with pytest.raises(BadShard) as caught:
        list(source.read(shard))
    assert caught.value.reason == Reason.CHANGED_SHARD


def test_rows_stream_in_bounded_memory(tmp_path: Path) -> None:
    images = [index.to_bytes(4, "big") * 25_000 for index in range(400)]
    options: dict[str, Any] = {"use_dictionary": False, "compression": "none", "write_batch_size": 8}
    path = write_table(tmp_path / "a.parquet", {"image": images}, **options)
    source = ParquetSource(path)
    [shard] = source.shards()
    del images
    before = pa.total_allocated_bytes()
    with watched() as memory:
        highest = max(pa.total_allocated_bytes() - before for _ in source.read(shard))
    assert highest + memory.peak < 24 << 20


def test_an_empty_table_has_no_samples(tmp_path: Path) -> None:
    assert read_all(ParquetSource(write_table(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())}))) == []


@pytest.mark.parametrize("how", ["renamed over", "written over"])
def test_a_file_that_changes_while_it_is_read_never_gives_the_new_rows(tmp_path: Path, how: str) -> None:
    path, other = tmp_path / "a.parquet", tmp_path / "other"
    for target, letter in ((path, b"1"), (other, b"2")):
        table = pa.table({"id": [f"{row:03d}" for row in range(200)], "image": [letter * 4000] * 200})
        pq.write_table(table, target, use_dictionary=False, compression="none", row_group_size=10)
    assert path.stat().st_size == other.stat().st_size
    source = ParquetSource(str(path), {}, "id", (("image",),), ())
    [shard] = source.shards()
    reading = source.read(shard)
    found = []

    def read_all() -> None:
        for sample in reading:
            found.append(sample.fields["image"])
            if len(found) == 1 and how == "renamed over":
                other.replace(path)
            elif len(found) == 1:
                path.write_bytes(other.read_bytes())

    if how == "renamed over":
        read_all()
        assert len(found) == 200
        assert {bytes(str(image)[2:3], "ascii") for image in found} == {b"1"}
    else:
        with pytest.raises(BadShard, match="changed_shard"):
            read_all()
