"""Hostile tars: what is read is what tarfile reads, or the shard is refused with a reason, its name and a place."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from archives import make_tar, pairs, read_all
from confined import confined
from fuzz_tar import Members, judge, one, ours, with_checksums
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel.errors import BadShard
from relabel.reasons import Reason
from relabel.shards import limits
from relabel.shards.webdataset import WebDatasetSource

END = bytes(1024)


def header(name: str = "a.jpg", size: int = 0, kind: bytes = b"0", **fields: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT)


def extension(kind: bytes, payload: bytes) -> bytes:
    return header("x", len(payload), kind) + payload + bytes(-len(payload) % 512)


def record(key: str, value: bytes) -> bytes:
    body = b" %s=%s\n" % (key.encode(), value)
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def file(name: str = "a.jpg", payload: bytes = b"abc") -> bytes:
    return header(name, len(payload)) + payload + bytes(-len(payload) % 512)


def patched(block: bytes, start: int, value: bytes) -> bytes:
    return with_checksums(block[:start] + value + block[start + len(value) :])


X = b"x"
ACCEPTED: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {
    "GNU long name": (extension(b"L", b"n" * 300 + b".jpg\0") + file(), [(b"n" * 300 + b".jpg", b"abc")]),
    "pax path": (extension(X, record("path", b"b/c.jpg")) + file(), [(b"b/c.jpg", b"abc")]),
    "pax size": (extension(X, record("size", b"2")) + file(), [(b"a.jpg", b"ab")]),
    "pax record of a newline": (extension(X, record("path", b"b\nc.jpg")) + file(), [(b"b\nc.jpg", b"abc")]),
    "global comment": (extension(b"g", record("comment", b"x")) + file(), [(b"a.jpg", b"abc")]),
    "dots and roots": (file("../../e.jpg") + file("/etc/x"), [(b"../../e.jpg", b"abc"), (b"/etc/x", b"abc")]),
    "base-256 size": (patched(file(), 124, b"\x80" + bytes(10) + b"\3"), [(b"a.jpg", b"abc")]),
    "a tar in a tar": (file("b.tar", make_tar(pairs(1))), [(b"b.tar", make_tar(pairs(1)))]),
    "a zip behind it": (file() + END + b"PK\x03\x04 and so on", [(b"a.jpg", b"abc")]),
}  # fmt: skip
REFUSED: dict[str, tuple[bytes, Reason]] = {
    "two long names": (extension(b"L", b"b\0") * 2 + file(), Reason.CORRUPT_SHARD),
    "two names": (extension(b"L", b"b\0") + extension(X, record("path", b"c")) + file(), Reason.CORRUPT_SHARD),
    "no name": (extension(X, record("path", b"")) + file(), Reason.CORRUPT_SHARD),
    "an early end": (patched(extension(X, record("path", b"b")), 124, b"00000000004\0"), Reason.CORRUPT_SHARD),
    "a global path": (extension(b"g", record("path", b"b")) + file(), Reason.UNSUPPORTED_SHARD),
    "a global size": (extension(b"g", record("size", b"1")) + file(), Reason.UNSUPPORTED_SHARD),
    "a pax size of words": (extension(X, record("size", b"1_0")) + file(), Reason.CORRUPT_SHARD),
    "a pax size of nothing": (extension(X, record("size", b"")) + file(), Reason.CORRUPT_SHARD),
    "a negative pax size": (extension(X, record("size", b"-3")) + file(), Reason.CORRUPT_SHARD),
    "a pax size of 10 GB": (extension(X, record("size", b"%d" % 10**10)) + file(), Reason.UNSUPPORTED_SHARD),
    "10 GB": (header(size=10**10), Reason.UNSUPPORTED_SHARD),
    "a negative base-256 size": (patched(file(), 124, b"\xff" * 12), Reason.CORRUPT_SHARD),
    "a huge base-256 size": (patched(file(), 124, b"\x80" + b"\xff" * 11), Reason.UNSUPPORTED_SHARD),
    "an octal size of garbage": (patched(file(), 124, b"0o00000003\0\0"), Reason.CORRUPT_SHARD),
    "a hidden size": (patched(file(), 124, b"3\x00 9 9 9 9 9 "), Reason.CORRUPT_SHARD),
    "old GNU sparse": (header(size=3, kind=b"S") + b"abc" + bytes(509), Reason.UNSUPPORTED_SHARD),
    "pax sparse 0.1": (extension(X, record("GNU.sparse.map", b"0,3")) + file(), Reason.UNSUPPORTED_SHARD),
    "pax sparse 1.0": (extension(X, record("GNU.sparse.major", b"1")) + file(), Reason.UNSUPPORTED_SHARD),
    "a hard link": (file() + header("b.jpg", kind=b"1", linkname="a.jpg"), Reason.UNSUPPORTED_SHARD),
    "a symbolic link": (header("b.jpg", kind=b"2", linkname="/etc/passwd"), Reason.UNSUPPORTED_SHARD),
    "a long link": (extension(b"K", b"l" * 300) + header("b.jpg", kind=b"2"), Reason.UNSUPPORTED_SHARD),
    "a folder of data": (header("d/", 512, b"5") + bytes(512), Reason.UNSUPPORTED_SHARD),
    "an old folder of data": (header("d/", 512, b"\0") + bytes(512), Reason.UNSUPPORTED_SHARD),
    "a file named as a folder": (file("d/"), Reason.CORRUPT_SHARD),
    "a name of 5000 bytes": (extension(b"L", b"n" * 5000) + file(), Reason.UNSUPPORTED_SHARD),
    "a name of 2 MB": (header("x", 2 << 20, b"L"), Reason.UNSUPPORTED_SHARD),
    "a zip": (b"PK\x03\x04" + bytes(600), Reason.CORRUPT_SHARD),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_but_clear_archives_are_read(name: str) -> None:
    data, expected = ACCEPTED[name]
    assert judge(data + END) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_understand_differently_is_refused(name: str, tmp_path: Path) -> None:
    data, reason = REFUSED[name]
    assert judge(data + END) is None
    path = tmp_path / "shard.tar"
    path.write_bytes(file("first.jpg") + data + END)
    with pytest.raises(BadShard, match=r"shard\.tar.*byte \d+") as caught:
        read_all(WebDatasetSource(str(path)))
    assert caught.value.reason == reason


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_cut_at_every_64_bytes(
    compress: Callable[[bytes], bytes], photos: list[tuple[bytes, int]], tmp_path: Path
) -> None:
    suffix = {0x1F: ".tar.gz", 0x28: ".tar.zst"}.get(compress(b"x")[0], ".tar")
    plain = make_tar([("a.jpg", photos[0][0][:3000]), ("a.cls", b"1"), ("b.jpg", photos[1][0][:3000])])
    data = compress(plain)
    path = tmp_path / f"shard{suffix}"
    refused = 0
    for size in range(0, len(data) - 1, 64):
        path.write_bytes(data[:size])
        try:
            assert len(read_all(WebDatasetSource(str(path)))) == 2
        except BadShard as error:
            assert error.reason in (Reason.TRUNCATED_SHARD, Reason.CORRUPT_SHARD)
            assert str(path) in error.detail
            refused += 1
    assert refused > 0.5 * len(data.rstrip(b"\0")) / 64


def flips(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 512):
        if data[start + 257 : start + 262] == b"ustar":
            for bit in range(start * 8, (start + 512) * 8, 29):
                damaged = bytearray(data)
                damaged[bit // 8] ^= 1 << bit % 8
                yield bytes(damaged)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_flipped_header_bits(format: int) -> None:
    data = make_tar([("a/1.jpg", b"x" * 600), ("n" * 120 if format else "b", b"y")], format)
    whole = ours(data)
    for damaged in flips(data):
        assert ours(damaged) in (None, whole)  # the padding of the checksum field says nothing
        judge(with_checksums(damaged))


entries = st.lists(
    st.one_of(
        st.builds(file, st.sampled_from(["a.jpg", "b.cls", "d/e.jpg", "../x.jpg"]), st.binary(max_size=600)),
        st.builds(header, st.just("l.jpg"), st.just(0), st.sampled_from([b"3", b"5", b"6", b"7", b"\0", b"Q", b"V"])),
        st.builds(extension, st.sampled_from([b"L", b"K"]), st.binary(max_size=20)),
        st.builds(
            lambda kind, key, value: extension(kind, record(key, value)),
            st.sampled_from([b"x", b"X", b"g"]), st.sampled_from(["path", "size", "mtime", "linkpath"]),
            st.one_of(st.binary(max_size=9), st.integers(0, 700).map(lambda size: b"%d" % size)),
        ),
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=150)
@given(entries, st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3), st.integers(1, 3000))
def test_any_mixture_of_headers_is_read_as_tarfile_reads_it(
    blocks: list[bytes], changes: list[tuple[int, int]], chunk: int
) -> None:
    data = bytearray(b"".join(blocks) + END)
    judge(bytes(data), chunk)
    for place, value in changes:
        data[place % len(data)] = value
    judge(bytes(data), chunk)
    judge(with_checksums(bytes(data)), chunk)


@settings(max_examples=200)
@given(st.sampled_from([b"g", b"z", b"\0", b"\xff"]), st.binary(max_size=2000))
def test_the_fuzzers_target_takes_anything(kind: bytes, data: bytes) -> None:
    one(kind + data)


def test_keys_are_data(tmp_path: Path) -> None:
    names = [b"../../up.jpg", b"/etc/passwd.jpg", b"new\nline.jpg", b"\xff\xfe.jpg", b"nul\x07.jpg", b"plain.jpg"]
    (tmp_path / "a.tar").write_bytes(b"".join(extension(X, record("path", name)) + file() for name in names) + END)
    samples = read_all(WebDatasetSource(str(tmp_path / "a.tar")))
    assert [(sample.key, "__bad_key__" in sample.fields) for sample in samples] == [
        ("../../up", False), ("/etc/passwd", False), ("new\nline", True), ("\\xff\\xfe", True), ("nul\x07", True),
        ("plain", False),
    ]  # fmt: skip


READ = """
from relabel.shards.webdataset import WebDatasetSource
source = WebDatasetSource(sys.argv[1])
guarded(lambda: sum(1 for shard in source.shards() for _ in source.read(shard)))
"""


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_bomb_of_one_member_costs_no_memory(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A member of unknown kind with 1 GiB of zeros, which is passed over."""
    path = tmp_path / f"bomb.tar.{suffix}"
    size, piece = 1 << 30, 1 << 25
    head, zeros, tail = (compress(data) for data in (header("x", size, b"V"), bytes(piece), file() + END))
    path.write_bytes(head + zeros * (size // piece) + tail)
    answer = confined(READ, str(path))
    assert answer["answer"] == 1
    assert answer["grown"] < 200 << 20


def test_a_bomb_beyond_the_cap_is_a_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.shards.decompress.FREE_DECOMPRESSED_BYTES", 1 << 24)
    path = tmp_path / "bomb.tar.zst"
    path.write_bytes(pa.compress(header("x", 1 << 27, b"V") + bytes(1 << 27) + END, "zstd", asbytes=True))
    with pytest.raises(BadShard, match=r"bomb\.tar\.zst of \d+ bytes decompresses to more") as caught:
        read_all(WebDatasetSource(str(path)))
    assert caught.value.reason == Reason.UNSUPPORTED_SHARD


def test_a_large_member_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "large.tar.gz"
    size = 200 << 20
    path.write_bytes(
        gzip.compress(header("a.jpg", size)) + gzip.compress(bytes(1 << 20), 1) * (size >> 20) + gzip.compress(END)
    )
    answer = confined(READ, str(path))
    assert answer["answer"] == 1
    assert answer["grown"] < 1.5 * size


@pytest.mark.parametrize("what", ["fields", "samples"])
def test_many_small_members_are_bounded(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relabel.shards.webdataset.MAX_SAMPLE_BYTES", 10_000)
    monkeypatch.setattr("relabel.shards.webdataset.MAX_KEYS_BYTES", 10_000)
    members = [(f"a.{index}" if what == "fields" else f"{index}.a", b"") for index in range(200)]
    (tmp_path / "many.tar").write_bytes(make_tar(members))
    with pytest.raises(BadShard, match=r"many\.tar") as caught:
        read_all(WebDatasetSource(str(tmp_path / "many.tar")))
    assert caught.value.reason == Reason.UNSUPPORTED_SHARD


def test_global_headers_do_not_pile_up() -> None:
    noise = extension(b"g", b"".join(record(f"k{index}", b"v" * 900) for index in range(20)))
    assert judge(noise * 200 + file() + END) == [(b"a.jpg", b"abc")]
    assert limits.MAX_EXTENSION_BYTES < 1 << 21


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_damaged_stream_frees_what_it_held(kind: str, tmp_path: Path) -> None:
    """Pyarrow's own `read` keeps a megabyte for every stream that fails."""
    payload = bytes(index * index % 251 for index in range(3 << 20))
    data = make_tar([("a.jpg", payload)])
    packed = gzip.compress(data, 1) if kind == "gz" else bytes(pa.compress(data, "zstd", asbytes=True))
    (tmp_path / f"a.tar.{kind}").write_bytes(packed[:-30])
    code = """
from relabel.shards.webdataset import WebDatasetSource
from relabel.errors import BadShard
source = WebDatasetSource(sys.argv[1])
def many():
    for _ in range(150):
        try:
            list(source.read(source.shards()[0]))
        except BadShard:
            continue
guarded(many)
"""
    assert confined(code, str(tmp_path / f"a.tar.{kind}"))["grown"] < 60 << 20


def test_trailing_bytes_after_compression(tmp_path: Path) -> None:
    data = gzip.compress(make_tar(pairs(2)))
    path = tmp_path / "a.tar.gz"
    for tail in (b"garbage" * 100, b"PK\x03\x04" + bytes(600), bytes(700)):
        path.write_bytes(data + tail)
        try:
            assert len(read_all(WebDatasetSource(str(path)))) == 2
        except BadShard as error:
            assert error.reason in (Reason.CORRUPT_SHARD, Reason.TRUNCATED_SHARD)
    path.write_bytes(data[: len(data) // 2] + data)
    with pytest.raises(BadShard):
        read_all(WebDatasetSource(str(path)))


def test_an_archive_is_what_its_reader_says() -> None:
    members: Members = [(b"a.jpg", b"abc")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert judge(buffer.getvalue()) == members
