"""WebDataset: a tar per shard, with a sample's media and labels side by side under one key.

An array is `<column>.npy`, what a caption says `<column>.txt`, everything else of a sample's labels its `labels.json`,
which plain `webdataset` decodes as they are. Media keep their members. The bytes are a function of the samples alone:
no time, no owner, one order.
"""

import io
import re
import tarfile
from collections.abc import Iterator

from ..digests import Json, canonical_json
from ..errors import Refused
from ..labels.contract import Column, LabelContract
from ..shards.shard import Sample
from .join import Chunk
from .layout import Layout, safe_key
from .values import as_json, entries, is_array, is_text, npy

LABELS = "labels.json"
SOURCE = "source.json"
MAX_PLAIN_BYTES = 8**11
CHECKSUM = slice(148, 156)
PLAIN = b"".join(
    [
        b"%b0000644\0",
        b"0000000\0" * 2,
        b"%011o\0",
        b"00000000000\0",
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(247),
    ]
)
"""A header by name (100 bytes) and size."""
MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"\x89PNG"), "png"),
    (re.compile(rb"GIF8"), "gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "tif"),
)


def write(file: io.RawIOBase, chunks: Iterator[Chunk], layout: Layout, shard: str, tar_keys: bool) -> None:
    """`tar_keys`: the source is of tars, whose keys need no other spelling.

    Raises Refused where two members of a sample would have one name.
    """
    for chunk in chunks:
        for row, members in enumerate(labels_of(chunk, layout)):
            key = chunk.table["key"][row].as_py()
            media = members_of(chunk.samples[row], tar_keys) if chunk.samples else {}
            if both := sorted(media.keys() & members.keys()):
                raise Refused(
                    f"sample {key!r} of shard {shard!r} has a member {both[0]!r} already, which the export writes. "
                    "Rename that of the source, or leave the media out: --include labels."
                )
            base = safe_key(key, dots=not tar_keys)
            file.write(b"".join(member(f"{base}.{name}", data) for name, data in {**media, **members}.items()))
    file.write(bytes(2 * tarfile.BLOCKSIZE))


def member(name: str, data: bytes) -> bytes:
    """Header, payload and padding, as `tarfile` writes them; only a name or size that is plain is written faster."""
    if len(name) <= tarfile.LENGTH_NAME and name.isascii() and len(data) < MAX_PLAIN_BYTES:
        header = PLAIN % (name.encode().ljust(tarfile.LENGTH_NAME, b"\0"), len(data))
        header = b"%b%06o\0 %b" % (header[: CHECKSUM.start], sum(header), header[CHECKSUM.stop :])
    else:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        header = info.tobuf(tarfile.PAX_FORMAT)
    return header + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def labels_of(chunk: Chunk, layout: Layout) -> Iterator[dict[str, bytes]]:
    """A sample's labels as members, row by row."""
    columns = entries(chunk.table, layout.labels)
    digests = chunk.table["sample_digest"].to_pylist()
    kinds: dict[str, list[str]] = {"npy": [], "txt": [], "json": []}
    for contract in layout.labels:
        for column in contract.columns:
            kinds[kind_of(contract, column)].append(column.name)
    for row, key in enumerate(chunk.table["key"].to_pylist()):
        members = {f"{name}.npy": npy(columns[name][row]) for name in kinds["npy"]}
        members |= {f"{name}.txt": columns[name][row].encode() for name in kinds["txt"]}
        told: dict[str, Json] = {"key": key, "sample_digest": digests[row] and digests[row].hex()}
        told |= {name: as_json(columns[name][row]) for name in kinds["json"]}
        yield {**members, LABELS: canonical_json(told)}


def kind_of(contract: LabelContract, column: Column) -> str:
    """As what a column lies in a tar."""
    if is_array(column):
        return "npy"
    return "txt" if is_text(contract, column) else "json"


def members_of(sample: Sample, tar_keys: bool) -> dict[str, bytes]:
    """A sample's media as members: those of a tar as they are, bytes of others by what they are, the rest as JSON."""
    fields = {name: value for name, value in sample.fields.items() if not name.startswith("__")}
    if tar_keys:
        return {name: value for name, value in fields.items() if isinstance(value, bytes)}
    members = {extension(name, value): value for name, value in fields.items() if isinstance(value, bytes)}
    text = fields.get("text")
    if isinstance(text, str):
        members["txt"] = text.encode()
    rest = {name: as_json(value) for name, value in fields.items() if not isinstance(value, bytes)}
    return {**members, SOURCE: canonical_json(rest)} if rest else members


def extension(name: str, data: bytes) -> str:
    kind = next((kind for magic, kind in MAGIC if magic.match(data)), None)
    plain = re.sub(r"[^\w]", "_", name).lower()
    if kind is None:
        return f"{plain}.bin"
    return kind if name == "image" else f"{plain}.{kind}"


def describe(layout: Layout) -> dict[str, Json]:
    """Which members a sample has, for the manifest."""
    members: dict[str, Json] = {}
    for contract in layout.labels:
        for column in contract.columns:
            kind = kind_of(contract, column)
            if kind == "npy":
                varying = column.varying
                dtype, axes = (varying.dtype, varying.axes) if varying else (column.dtype, column.axes)
                members[f"{column.name}.npy"] = {"dtype": dtype, "axes": list(axes), "shape": list(column.shape)}
            else:
                members[f"{column.name}.txt" if kind == "txt" else LABELS] = {}
    return members
