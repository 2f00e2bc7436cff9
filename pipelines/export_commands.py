"""Export commands: a release in other formats, and the cards that describe it."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from relabel.digests import Json
from relabel.errors import StoreCorrupt, UsageError
from relabel.storage.filesystems import is_local
from relabel.storage.objects import ObjectStore
from relabel.storage.opening import open_store as open_objects

from .store_commands import open_release
from .terminal import Add, add_store, emit, refused, say, size, storage_options

FORMATS = ("webdataset", "hf", "delta", "jsonl")
CARDS = ("croissant", "lineage", "readme", "report")


def declare(add: Add) -> None:
    sub = add("export", export_command, "write a release in a format that needs no relabel to be read")
    add_store(sub)
    sub.add_argument("out", metavar="OUT", help="a folder or URL of its own; the store itself for a Delta log in it")
    sub.add_argument("--format", choices=FORMATS, help="required unless --verify")
    sub.add_argument("--release", default="latest", metavar="R", help="a number, a tag or `latest`")
    sub.add_argument("--accept-partial", action="store_true", help="also of a run that goes on")
    sub.add_argument(
        "--include",
        default="",
        metavar="A,B",
        help="`media`, `labels` or names of labels (default: all labels; webdataset: media, too)",
    )
    sub.add_argument("--source", metavar="PATH", help="where the media lie now: a folder, pattern or listing")
    sub.add_argument(
        "--on-missing",
        default="error",
        choices=("error", "skip"),
        help="where a sample's media is gone or is not what was labelled: fail (default), or leave it out and count it",
    )
    sub.add_argument("--arrays", default="bytes", choices=("bytes", "lists"), help="in Parquet (default: bytes)")
    sub.add_argument("--gzip", action="store_true", help="compress JSON lines")
    sub.add_argument("--verify", action="store_true", help="read every byte of the export at OUT instead")
    card = add("card", card_command, "print what describes a release to others")
    add_store(card)
    card.add_argument("--release", default="latest", metavar="R", help="a number, a tag or `latest`")
    card.add_argument("--format", default="readme", choices=CARDS, help="default: %(default)s")


def export_command(options: argparse.Namespace) -> int:
    out = open_objects(options.out, storage_options(options))
    if is_local(options.out) and Path(out.url).is_file():
        raise UsageError(f"OUT expects a folder, {options.out} is a file.")
    if options.verify:
        return verify_export(options, out)
    if options.format is None:
        raise UsageError(f"export needs --format, one of {', '.join(FORMATS)}.")
    from relabel.exports.export import Exported, export
    from relabel.exports.layout import layout

    release = open_release(options)
    include = [part.strip() for part in options.include.split(",") if part.strip()]
    chosen = layout(
        options.format, list(release.labels.values()), include, options.arrays, options.gzip, options.on_missing
    )
    if out.url == release.objects.url:
        return log_in_store(options, chosen.arrays == "bytes" and not include)
    if chosen.media is False and options.source:
        raise UsageError("--source says where media lie; add --include media.")
    exported: Exported = export(release, out, chosen, options.source, None if options.json else progress)
    if options.json:
        emit(summary(exported, options.out))
    else:
        say(*tell(exported, options.out))
    return 0


def progress(finished: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{finished} of {total} shards", end="\n" if finished == total else "", file=sys.stderr, flush=True)


def log_in_store(options: argparse.Namespace, plain: bool) -> int:
    from relabel.exports.delta import log_in_store as write_log

    if options.format != "delta" or not plain:
        raise UsageError(
            f"OUT is the store itself, where only a Delta log of all labels can be ({options.store}/_delta_log). Give "
            "a folder of its own."
        )
    release = open_release(options)
    number, written = write_log(release)
    if options.json:
        emit(
            {
                "out": options.out,
                "format": "delta",
                "release": release.number,
                "table_version": number,
                "written": written,
            }
        )
    else:
        what = "is now" if written else "was already"
        say(f"{options.out}: version {number} of the Delta table {what} release {release.number}; no file was copied")
    return 0


def summary(exported: "Json", out: str) -> dict[str, Json]:
    manifest = exported.manifest
    return {
        "out": out,
        "format": manifest.plan.layout.format,
        "release": manifest.plan.release,
        "content_digest": manifest.plan.content_digest,
        "shards": len(manifest.shards),
        "written": exported.written,
        "dead_shards": exported.dead_shards,
        "files": len(manifest.files),
        "bytes": exported.size_bytes,
        "samples": exported.samples,
        "left_out": exported.left_out,
        "extra": exported.extra,
    }


def tell(exported: "Json", out: str) -> Iterator[str]:
    told = summary(exported, out)
    yield (
        f"{out}: {told['samples']} samples of release {told['release']} as {told['format']}, {told['files']} files, "
        f"{size(float(told['bytes']))}"
    )
    if told["written"] < told["shards"]:
        yield f"  {told['shards'] - told['written']} of {told['shards']} shards were finished already"
    if told["left_out"]:
        yield "  left out: " + ", ".join(f"{rows} {why}" for why, rows in told["left_out"].items())
    if told["dead_shards"]:
        yield f"  {told['dead_shards']} shards carry no labels and are in no file"
    if told["extra"]:
        yield f"  {told['extra']} samples of the source are not in the release"


def verify_export(options: argparse.Namespace, out: ObjectStore) -> int:
    """Also what `verify` does at an export."""
    from relabel.exports.export import check

    manifest, faults = check(out)
    if options.json:
        emit(
            {
                "release": manifest.plan.release,
                "files": len(manifest.files),
                "problems": [dataclasses.asdict(each) for each in faults],
            }
        )
    else:
        for fault in faults:
            say(f"{fault.path}: {fault.what}")
        say(f"export of release {manifest.plan.release}: {len(faults)} problems; checked {len(manifest.files)} files")
    if not faults:
        return 0
    return refused(
        StoreCorrupt(
            f"the export at {out.url} is not whole (first: {faults[0].path}). Delete the files that are named and run "
            "the same export again: it writes what is missing."
        )
    )


def card_command(options: argparse.Namespace) -> int:
    from relabel.releases.cards import read_card

    release = open_release(options)
    text = read_card(release.objects, release.version, options.format)
    if options.json and options.format in ("readme", "report"):
        emit({"card": text})
    else:
        print(text.rstrip("\n"))
    return 0
