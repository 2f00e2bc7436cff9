"""Tar: nothing is ever silently shorter; equal to tarfile on what tarfile writes."""

import contextlib
import io
import tarfile
from collections.abc import Iterator

import pytest
from archives import cut, make_tar, pairs, parse, watched
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relabel.errors import BadShard
from relabel.reasons import Reason
from relabel.shards import tar

SMALL = pairs(3)
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=140).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
entries = st.lists(st.tuples(paths, st.binary(max_size=1500)), max_size=4)


def refusal(data: bytes, chunk: int = 1 << 20) -> str:
    with pytest.raises(BadShard) as caught:
        parse(data, chunk)
    return caught.value.reason


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("chunk", [100, 512, 1000, 1 << 20])
def test_members_come_back_in_order_for_any_chunk_size(format: int, chunk: int) -> None:
    members = [*SMALL, ("d" * 90 + "/" + "n" * 200 + ".jpg", b"long")] if format else SMALL
    assert parse(make_tar(members, format), chunk) == [(name.encode(), payload) for name, payload in members]


@settings(max_examples=50, deadline=None)
@given(entries, st.sampled_from(FORMATS[1:]), st.integers(1, 3000))
@example([("a" * 155 + "/" + "b" * 100, b"")], tarfile.PAX_FORMAT, 512)
@example([("é" * 80 + ".jpg", b"x")], tarfile.GNU_FORMAT, 7)
def test_equals_tarfile(members: list[tuple[str, bytes]], format: int, chunk: int) -> None:
    data = make_tar(members, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [
            (info.name.encode(errors="surrogateescape"), read(archive, info)) for info in archive if info.isreg()
        ]
    assert parse(data, chunk) == expected


def read(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    return file.read()


def test_ustar_prefix_is_part_of_the_name() -> None:
    name = "p" * 120 + "/" + "n" * 90
    assert parse(make_tar([(name, b"x")])) == [(name.encode(), b"x")]


@pytest.mark.parametrize("format", FORMATS)
def test_every_truncation_is_found_or_harmless(format: int) -> None:
    data = make_tar([*SMALL, ("long" * 40, b"x" * 600)] if format else SMALL, format)
    whole = parse(data)
    for size in range(0, len(data), 64):
        try:
            got = parse(data[:size])
        except BadShard as error:
            assert error.reason == Reason.TRUNCATED_SHARD, size
        else:
            assert got == whole, size


@pytest.mark.parametrize("format", FORMATS)
def test_no_flipped_header_bit_goes_unnoticed(format: int) -> None:
    data = make_tar([("a/1.jpg", b"x" * 600), ("n" * 120 if format else "b", b"y")], format)
    whole = parse(data)
    for position in header_bytes(data):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 7
        if position % 512 in range(148, 156):
            # How the checksum itself is padded may change without changing it.
            with contextlib.suppress(BadShard):
                assert parse(bytes(damaged)) == whole
        else:
            assert refusal(bytes(damaged)) == Reason.CORRUPT_SHARD, position


def header_bytes(data: bytes) -> Iterator[int]:
    """Positions of all header blocks, found by their magic."""
    for start in range(0, len(data), 512):
        if data[start + 257 : start + 262] == b"ustar":
            yield from range(start, start + 512)


@pytest.mark.parametrize("member", [0, 1, 5])
@pytest.mark.parametrize("blocks", [1, 2])
def test_zeroed_headers_are_not_the_end_of_the_archive(member: int, blocks: int) -> None:
    data = bytearray(make_tar([(f"{index}.jpg", b"x" * 512) for index in range(6)]))
    start = member * 1024
    data[start : start + 512 * blocks] = bytes(512 * blocks)
    if blocks == 2 and member == 5:
        # The last member gone whole is the one archive that nobody can tell from a shorter one.
        assert len(parse(bytes(data))) == 5
    else:
        assert refusal(bytes(data)) == Reason.CORRUPT_SHARD


def test_archives_put_end_to_end_are_refused() -> None:
    one = make_tar(SMALL)
    assert refusal(one + make_tar(SMALL), 1000) == Reason.CORRUPT_SHARD


def test_garbage_after_the_end_is_ignored() -> None:
    data = make_tar(SMALL)
    assert parse(data + b"garbage" * 1000, 777) == parse(data)


def test_one_zero_block_is_not_an_end() -> None:
    data = make_tar(SMALL).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    assert refusal(data) == refusal(data + bytes(512)) == Reason.TRUNCATED_SHARD
    assert parse(data + bytes(1024)) == parse(make_tar(SMALL))


def test_an_empty_archive_has_no_members_and_an_empty_file_is_none() -> None:
    assert parse(make_tar([])) == []
    assert refusal(b"") == Reason.TRUNCATED_SHARD


def test_a_tar_in_a_tar_is_a_payload() -> None:
    inner = make_tar(SMALL)
    assert parse(make_tar([("a.tar", inner), ("b.jpg", b"x")])) == [(b"a.tar", inner), (b"b.jpg", b"x")]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_regular_files_are_members(kind: bytes) -> None:
    data = with_member(kind, 0)
    assert parse(data) == [(b"after.jpg", b"x")]


@pytest.mark.parametrize(
    ("kind", "size"),
    [(tarfile.SYMTYPE, 0), (tarfile.LNKTYPE, 0), (tarfile.LNKTYPE, 700), (tarfile.GNUTYPE_SPARSE, 700), (b"M", 700)],
)
def test_what_cannot_be_read_right_is_refused(kind: bytes, size: int) -> None:
    assert refusal(with_member(kind, size)) == Reason.UNSUPPORTED_SHARD


def test_unknown_types_are_passed_over_with_their_data() -> None:
    assert parse(with_member(b"Q", 700), 512) == [(b"after.jpg", b"x")]


def with_member(kind: bytes, size: int) -> bytes:
    """An archive of one odd member, with `size` bytes of data, and one plain one."""
    info = tarfile.TarInfo("odd")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(size + -size % 512) + make_tar([("after.jpg", b"x")])


def test_pax_sparse_members_are_refused() -> None:
    assert refusal(with_pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})) == Reason.UNSUPPORTED_SHARD


def with_pax(headers: dict[str, str], size: int = 3) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.size, info.pax_headers = size, headers
    return info.tobuf(tarfile.PAX_FORMAT) + b"abc" + bytes(509) + bytes(1024)


def test_pax_records_override_path_and_size() -> None:
    assert parse(with_pax({"path": "other/b.png", "size": "2"})) == [(b"other/b.png", b"ab")]
    assert parse(with_pax({"mtime": "1.5", "SCHILY.xattr.user.x": "a=b"})) == [(b"a.jpg", b"abc")]
    assert refusal(with_pax({"size": "two"})) == Reason.CORRUPT_SHARD


def test_global_pax_headers_hold_for_all_members() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "git"}) as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    assert parse(buffer.getvalue()) == [(b"a.jpg", b"")]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_pax_records_that_do_not_parse_are_corrupt(payload: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(payload)
    data = info.tobuf(tarfile.USTAR_FORMAT) + payload + bytes(-len(payload) % 512) + make_tar([("a.jpg", b"x")])
    try:
        got = parse(data)
    except BadShard as error:
        assert error.reason in (Reason.CORRUPT_SHARD, Reason.UNSUPPORTED_SHARD, Reason.TRUNCATED_SHARD)
    else:
        assert len(got) == 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 2000))
def test_any_bytes_are_refused_or_read(data: bytes, chunk: int) -> None:
    try:
        parse(data, chunk)
    except BadShard as error:
        assert error.reason in set(Reason)


@pytest.mark.parametrize("size", [1 << 31, 8 << 30, 1 << 70])
def test_a_huge_declared_member_costs_no_memory(size: int) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = size
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    assert refusal(data) == Reason.UNSUPPORTED_SHARD
    with watched() as memory, pytest.raises(BadShard) as caught:
        list(tar.members(cut(data, 512), max_member_bytes=1 << 80))
    assert caught.value.reason == Reason.TRUNCATED_SHARD
    assert memory.peak < 1 << 20


def test_signed_checksums_of_old_tars_are_accepted() -> None:
    data = bytearray(make_tar([("é.jpg", b"x")], tarfile.GNU_FORMAT))
    unsigned = int(data[148:154], 8)
    data[148:154] = b"%06o" % (unsigned - 512)
    assert parse(bytes(data)) == [("é.jpg".encode(), b"x")]
