"""Layout: what an export consists of: its format, the labels and the media in it, and how files and keys are called."""

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

from ..errors import UnknownName, UsageError
from ..labels.contract import Declaration, LabelContract

Format = Literal["webdataset", "hf", "delta", "jsonl"]
FORMATS: tuple[Format, ...] = ("webdataset", "hf", "delta", "jsonl")
WITH_MEDIA = ("webdataset",)
"""Formats that hold the media unless it is said what to include."""
SUFFIXES = {"webdataset": ".tar", "hf": ".parquet", "delta": ".parquet", "jsonl": ".jsonl"}
FOLDERS = {"webdataset": "", "hf": "data/", "delta": "data/", "jsonl": ""}
KNOWN_SUFFIX = re.compile(
    r"\.(tar|tar\.gz|tgz|tar\.zst|tar\.zstd|parquet|pq|(jsonl|ndjson)(\.gz|\.zst|\.zstd)?)$", re.IGNORECASE
)


class Layout(Declaration):
    """All that was chosen: equal layouts of one release give equal bytes."""

    format: Format
    labels: tuple[LabelContract, ...]
    media: bool
    arrays: Literal["bytes", "lists"] = "bytes"
    """In Parquet. bytes: C order, little endian, as the column's contract says; lists: nested lists."""
    gzip: bool = False
    """JSON lines only."""
    on_missing: Literal["error", "skip"] = "error"
    """What becomes of a sample whose media is gone, or is not what was labelled."""

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.format] + (".gz" if self.gzip else "")


def layout(
    kind: Format,
    known: Sequence[LabelContract],
    include: Sequence[str] = (),
    arrays: Literal["bytes", "lists"] = "bytes",
    gzip: bool = False,
    on_missing: Literal["error", "skip"] = "error",
) -> Layout:
    """`include`: `media`, `labels` (all of them) or names of labels.

    Nothing: all labels, and the media where the format is one of media. Labels are included where none is named.
    Raises UnknownName, UsageError for what does not go together.
    """
    names = [contract.name for contract in known]
    for name in include:
        if name not in ("media", "labels", *names):
            raise UnknownName("part of an export", name, ["media", "labels", *names])
    wanted = [name for name in include if name in names] or names
    if "labels" in include:
        wanted = names
    media = "media" in include or (not include and kind in WITH_MEDIA)
    if media and kind == "delta":
        raise UsageError("a Delta table holds labels alone; take --format hf for Parquet with media.")
    if gzip and kind != "jsonl":
        raise UsageError(f"--gzip is for jsonl; files of {kind} are compressed in their own way, or not at all.")
    if arrays == "lists" and kind not in ("hf", "delta"):
        raise UsageError(f"--arrays lists is for hf and delta; {kind} holds arrays in one way.")
    labels = tuple(contract for contract in known if contract.name in wanted)
    return Layout(format=kind, labels=labels, media=media, arrays=arrays, gzip=gzip, on_missing=on_missing)


def file_names(shards: Sequence[str], layout: Layout) -> dict[str, str]:
    """Shard -> path of its file: the shard's own name with the suffix of the format, whole where two would be one."""
    bases: dict[str, list[str]] = {}
    for shard in shards:
        bases.setdefault(safe_path(KNOWN_SUFFIX.sub("", shard)), []).append(shard)
    paths = {}
    for base, named in bases.items():
        for shard in named:
            name = base if len(named) == 1 else safe_path(shard)
            paths[shard] = f"{FOLDERS[layout.format]}{name}{layout.suffix}"
    return paths


def safe_path(name: str) -> str:
    """A relative path below any folder; names that are one already, as nearly all are, stay as they are."""
    return "/".join(safe_part(part) for part in name.split("/"))


def safe_part(part: str) -> str:
    """Neither empty, hidden nor a way out; nothing that a URL, a glob or a shell would take for something else."""
    plain = re.sub(r"[^\w.=+@, -]", lambda found: quote(found[0], safe=""), part)
    if part[:1] in ("", ".", "_"):
        plain = f"%{ord(part[0]):02X}{plain[1:]}" if part else "%00"
    return plain


def safe_key(key: str, dots: bool) -> str:
    """What a sample is called in a tar. A key of another tar stays as it is unless it leads out of a folder.

    `dots`: the key is none of a tar, whose keys have no dot in their last part: there `%2E` stands for one.
    """
    folder, slash, last = key.rpartition("/")
    parts = folder.split("/") if slash else []
    if dots:
        last = last.replace("%", "%25").replace(".", "%2E")
        parts = [part.replace("%", "%25") for part in parts]
    if any(part in ("", ".", "..") for part in parts):
        parts = [part.replace(".", "%2E") or "%00" for part in parts]
    last = re.sub(r"^__(.*)__$", r"%5F%5F\1__", last)  # webdataset takes such names for its own
    return "/".join([*parts, last]) or "%00"
