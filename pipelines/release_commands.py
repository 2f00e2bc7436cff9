"""Release commands: what becomes of releases: diff, tag, revert, recall, withdraw, erase, collect."""

import argparse
import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.releases.collect import DEFAULT_GRACE_SECONDS, Collected, CollectPlan, apply_plan, drop_plan, plan_collect
from relabel.releases.collect import shown as duration
from relabel.releases.diff import Difference
from relabel.releases.lookup import find_version
from relabel.releases.release import Store
from relabel.releases.versions import read_version, version_numbers
from relabel.releases.withdrawals import Samples
from relabel.storage.objects import ObjectInfo
from relabel.storage.opening import open_store as open_objects

from .store_commands import latest_for_readers, open_store, tell_latest
from .summary_lines import tell_changes
from .terminal import Add, add_store, aligned, emit, positive, say, size, storage_options

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHOWN_TRANSITIONS = 12
SHOWN_OBJECTS = 10


def declare(add: Add) -> None:
    for name, declare_command in COMMANDS.items():
        declare_command(add, name)


def declare_diff(add: Add, name: str) -> None:
    sub = add(name, diff_command, "what changed from one release to another")
    add_store(sub)
    sub.add_argument("a", metavar="A", help="a number, a tag or `latest`")
    sub.add_argument("b", metavar="B", help="the same")
    sub.add_argument("--shards", type=positive, metavar="N", help="read only N of the shards that differ")


def declare_tag(add: Add, name: str) -> None:
    sub = add(name, tag_command, "give a release a name that never moves")
    add_store(sub)
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("--release", default="latest", metavar="R", help="a number or `latest` (default)")


def declare_revert(add: Add, name: str) -> None:
    sub = add(name, revert_command, "publish the labels of an older release again, as the newest one")
    add_store(sub)
    sub.add_argument("release", metavar="N", help="a number or a tag")


def declare_recall(add: Add, name: str) -> None:
    sub = add(name, recall_command, "say that a release must not be used any more; cannot be undone")
    add_store(sub)
    sub.add_argument("release", metavar="N", help="a number or a tag")
    sub.add_argument("--reason", required=True, help="what everybody who uses the release will read")


def declare_withdraw(add: Add, name: str) -> None:
    sub = add(name, withdraw_command, "take samples or shards out of use in every release; cannot be undone")
    add_store(sub)
    sub.add_argument("--shard", metavar="S", help="the shard; without --key the whole of it")
    sub.add_argument("--key", action="append", default=[], metavar="K", dest="keys", help="a sample (repeatable)")
    sub.add_argument(
        "--keys-file",
        metavar="F",
        help='a sample a line: {"shard": S, "key": K} as JSON, or S, a tab, K; S alone is the whole shard; - is stdin',
    )
    sub.add_argument("--reason", required=True)
    sub.add_argument("--ahead", action="store_true", help="also what the latest release does not hold (yet)")


def declare_erase(add: Add, name: str) -> None:
    sub = add(name, erase_command, "publish a release without the labels of withdrawn samples")
    add_store(sub)
    sub.add_argument("--apply", action="store_true", help="and delete the old files, which older releases name")


def declare_collect(add: Add, name: str) -> None:
    sub = add(name, collect_command, "find what no release, receipt or run at work needs; delete it a grace later")
    add_store(sub)
    step = sub.add_mutually_exclusive_group()
    step.add_argument("--apply", metavar="PLAN", help="delete what this plan names and is still not needed")
    step.add_argument("--drop", metavar="PLAN", help="give this plan up")
    sub.add_argument(
        "--grace",
        type=seconds,
        default=DEFAULT_GRACE_SECONDS,
        metavar="TIME",
        help="how old objects and plan must be: 36h, 7d (default: 7d; at least 24h)",
    )
    sub.add_argument("--force-grace", action="store_true", help="allow less than 24h: nothing is at work on the store")


COMMANDS: dict[str, Callable[[Add, str], None]] = {
    "diff": declare_diff,
    "tag": declare_tag,
    "revert": declare_revert,
    "recall": declare_recall,
    "withdraw": declare_withdraw,
    "erase": declare_erase,
    "collect": declare_collect,
}


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a number and s, m, h or d, such as 36h or 7d, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def diff_command(options: argparse.Namespace) -> int:
    found = open_store(options).diff(options.a, options.b, options.shards)
    if options.json:
        emit(found.to_json())
    else:
        say(*tell_difference(found))
    return 0


def tell_difference(found: Difference) -> Iterator[str]:
    told = found.to_json()
    yield f"release {found.a} -> {found.b}" + (": the same labels of the same shards" if found.same_content else "")
    counts = ", ".join(f"{number} {fate}" for fate, number in told["shards"].items() if number)
    yield f"shards    {counts or 'none'}"
    for fate, names in told["shard_examples"].items():
        if names:
            more = told["shards"][fate] - len(names)
            yield f"          {fate}: {', '.join(names)}" + (f" and {more} more" if more else "")
    if found.read < found.to_read:
        yield f"sampled   {found.read} of the {found.to_read} shards that differ were read: all below is of these alone"
    samples = told["samples"]
    if samples["added"] or samples["removed"]:
        yield f"samples   {samples['added']} added, {samples['removed']} removed"
    for each in samples["status"]:
        yield f"status    {each['before']} -> {each['after']}: {each['count']}"
    yield from tell_examples(samples["examples"])
    for name, label in told["labels"].items():
        yield from tell_label(name, label)
    yield from tell_changes(*found.summaries)


COMPARED = {"values": "value", "texts": "text"}
"""What a label has, by how it is compared; others have classes."""
CELL_CHARACTERS = 60


def tell_label(name: str, label: Json) -> Iterator[str]:
    """How many samples and cells changed, from which class to which, and some of them."""
    for note in label["notes"]:
        yield f"label     {name}: {note}"
    if not label["compared"]:
        return
    what = f"have another {COMPARED.get(label['compared_by'], 'class')}"
    yield f"label     {name}: {share(label['changed'], label['compared'])} samples {what}" + (
        f", {share(label['cells_changed'], label['cells'])} {label['compared_by']} changed" if label["cells"] else ""
    )
    shown = label["transitions"][:SHOWN_TRANSITIONS]
    rows = [(f"{each['count']:>10}", each["before"], "->", each["after"]) for each in shown]
    yield from aligned(rows)
    if len(label["transitions"]) > len(shown):
        yield f"          and {len(label['transitions']) - len(shown)} other changes of class (--json has all)"
    yield from tell_examples(label["examples"])


def tell_examples(examples: Sequence[Json]) -> Iterator[str]:
    if examples:
        yield "          for example"
    yield from aligned(
        ("           ", each["shard"], each["key"], cut(each["before"]), "->", cut(each["after"])) for each in examples
    )


def cut(text: str) -> str:
    """A cell of a table; --json has all of it."""
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…"


def share(part: int, whole: int) -> str:
    """`3 of 120 (2.5 %)`."""
    return f"{part} of {whole} ({100 * part / whole:.3g} %)"


def tag_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    number = find_version(store.objects, options.release)
    store.tag(options.name, number)
    if options.json:
        emit({"tag": options.name, "release": number})
    else:
        latest = tell_latest(store, read_version(store.objects, number))
        say(f"{options.name} names release {number} of {store.url} from now on", *latest)
    return 0


def revert_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    before = version_numbers(store.objects)[-1:]
    number = find_version(store.objects, options.release)
    version = store.revert(number)
    target = read_version(store.objects, number)
    published = [version.version] != before
    same = version.content_digest == target.content_digest
    if options.json:
        fields = {"release": version.version, "reverts": number, "published": published, "same_content": same}
        emit({**fields, "content_digest": version.content_digest, "run_id": version.run_id})
    elif not published:
        say(f"nothing to do: release {version.version} holds the labels of release {number} already")
    else:
        say(
            f"published release {version.version}: the labels of release {number} again"
            + ("" if same else ", and what another run published meanwhile"),
            f"  {version.counts.shards} shards, {version.counts.ok} ok, content {version.content_digest[:16]}",
            *tell_latest(store, version),
            "  What this took back is not published again by a run, unless with --bring-back.",
        )
    return 0


def recall_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    number = find_version(store.objects, options.release)
    reason = store.recall(number, options.reason)
    recalls, numbers = store.recalls(), version_numbers(store.objects)
    usable = [each for each in numbers if each not in recalls]
    later = [each for each in usable if each > number]
    latest = latest_for_readers(store)
    tags = [name for name, named in store.tags().items() if named == number]
    channels = [name for name, meant in store.channels().items() if meant == number]
    if options.json:
        fields = {"release": number, "reason": reason, "latest": latest}
        emit({**fields, "later_releases": later, "tags": tags, "channels": channels})
        return 0
    say(f"release {number} of {store.url} is recalled: {reason}")
    if reason != options.reason.strip():
        say("  It was recalled before; the first reason stands.")
    say(f"  `latest` is release {latest}." if latest else "  No release is left that `latest` could be.")
    if tags:
        say(f"  Tagged {', '.join(tags)}: who opens it by that name is warned.")
    for name in channels:
        to = shlex.join(["relabel", "promote", options.store, str(latest or "N"), "--to", name])
        say(f"  The channel {name} still means it: who reads that is warned. Move it: `{to}`")
    if later:
        say(
            f"  Published after it: {', '.join(map(str, later[:10]))}. They may hold the same labels; look with "
            f"`relabel diff {options.store} {number} {later[-1]}` and recall them, too."
        )
    say("  A run does not publish its labels again, unless with --bring-back.")
    return 0


def withdraw_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    samples = named_samples(options)
    ids = store.withdraw(samples, options.reason, options.ahead)
    keys = sum(len(wanted) for wanted in samples.values() if wanted is not None)
    shards = sum(wanted is None for wanted in samples.values())
    if options.json:
        emit({"ids": ids, "samples": keys, "shards": shards})
        return 0
    named = " and ".join(
        several(number, what) for number, what in ((keys, "sample"), (shards, "whole shard")) if number
    )
    say(
        f"withdrawn: {named}, in every release of {store.url}",
        "  Readers give them out no more, and no run labels them again. Their labels lie in the files of old releases "
        f"until `relabel erase {options.store} --apply`.",
    )
    return 0


def several(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def named_samples(options: argparse.Namespace) -> Samples:
    """What the options name: a shard, keys of it, or a file of both."""
    if options.keys and options.shard is None:
        raise UsageError("--key needs --shard: a sample is known by both.")
    if (options.shard is None) == (options.keys_file is None):
        raise UsageError("expected --shard (with or without --key) or --keys-file, one of them.")
    if options.keys_file is None:
        return {options.shard: options.keys or None}
    try:
        text = sys.stdin.read() if options.keys_file == "-" else Path(options.keys_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{options.keys_file} cannot be read: {error}.") from error
    return from_lines(text.splitlines(), options.keys_file)


def from_lines(lines: Iterable[str], name: str) -> Samples:
    samples: dict[str, list[str] | None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        shard, key = from_line(line, f"{name}:{number}")
        held = samples.setdefault(shard, [])
        if key is None:
            samples[shard] = None
        elif held is not None:
            held.append(key)
    return samples


def from_line(line: str, place: str) -> tuple[str, str | None]:
    """`SHARD<tab>KEY`, `SHARD`, or a JSON object with these (as `release.dead_letters()` and `dead --json` give)."""
    if not line.startswith("{"):
        shard, tab, key = line.partition("\t")
        return shard, key if tab else None
    try:
        fields = json.loads(line)
        return str(fields["shard"]), None if fields.get("key") is None else str(fields["key"])
    except (ValueError, KeyError) as error:
        raise UsageError(f'{place}: expected {{"shard": ..., "key": ...}}, got {line[:80]!r} ({error}).') from error


def erase_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    erased = store.erase(options.apply)
    if options.json:
        told = dataclasses.asdict(dataclasses.replace(erased, release=None))
        emit({**told, "release": erased.release.version if erased.release else None})
        return 0
    held = f"release {erased.release.version} of" if erased.release else "nothing is published; what is finished in"
    say(
        f"{held} {store.url} holds no label of a withdrawn sample"
        + (f"; {erased.rewritten} files were written anew" if erased.rewritten else "; nothing was left to erase")
    )
    if erased.redacted:
        say(f"  redacted: releases {', '.join(map(str, erased.redacted))} (they can be read, without these samples)")
    if erased.deleted:
        say(f"  deleted: {erased.deleted} old files")
    if erased.lying:
        say(
            f"  {len(erased.lying)} old files still hold the labels. Delete them: relabel erase {options.store} --apply"
        )
    say("  Parts and files of attempts that lost may hold them, too: relabel collect finds them.")
    return 0


def collect_command(options: argparse.Namespace) -> int:
    store = Store(open_objects(options.store, storage_options(options)))
    if options.drop:
        drop_plan(store.objects, options.drop)
        emit({"dropped": options.drop}) if options.json else say(f"the plan {options.drop} is given up")
        return 0
    if options.apply:
        done = apply_plan(store.objects, options.apply, options.grace, options.force_grace)
        emit(dataclasses.asdict(done)) if options.json else say(*tell_collected(done, options.apply))
        return 0
    planned = plan_collect(store.objects, options.grace, options.force_grace)
    emit(dataclasses.asdict(planned)) if options.json else say(*tell_plan(planned, options))
    return 0


def tell_plan(planned: CollectPlan, options: argparse.Namespace) -> Iterator[str]:
    if planned.objects:
        yield f"{counted(planned.objects)} are needed by nothing:"
        yield from aligned(("  ", info.path, size(float(info.size))) for info in planned.objects[:SHOWN_OBJECTS])
        if len(planned.objects) > SHOWN_OBJECTS:
            yield f"  and {len(planned.objects) - SHOWN_OBJECTS} more (--json has all)"
    else:
        yield "nothing to collect"
    if planned.young:
        yield f"{counted(planned.young)} are younger than {duration(options.grace)} and left alone: a run may need them"
    if planned.objects:
        left = max(0.0, options.grace - planned.age_seconds)
        forced = " --force-grace" if options.force_grace else ""
        grace = f" --grace {options.grace:g}s" if options.grace != DEFAULT_GRACE_SECONDS else ""
        when = f"In {duration(left)}" if left else "Now"
        yield f"Nothing was deleted. {when}: relabel collect {options.store} --apply {planned.id}{grace}{forced}"


def counted(objects: Sequence[ObjectInfo]) -> str:
    return f"{len(objects)} objects ({size(float(sum(info.size for info in objects)))})"


def tell_collected(done: Collected, name: str) -> Iterator[str]:
    yield f"plan {name}: deleted {counted(done.deleted)}"
    if done.needed:
        yield f"  {len(done.needed)} objects are needed by now and stay (first: {done.needed[0]})"
    if done.young:
        yield f"  {len(done.young)} objects were written again within the grace and stay"
    if done.gone:
        yield f"  {done.gone} objects were gone already"
