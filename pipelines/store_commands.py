"""Store commands: log, show, verify, doctor, preview: what a store holds, and whether it is whole."""

import argparse
import dataclasses
from collections.abc import Mapping

import relabel
from relabel.digests import Json
from relabel.errors import Refused, StoreCorrupt
from relabel.labels.summary import Summary, from_json
from relabel.releases.approvals import Decision, expires_in, groups_of, read_decisions, with_decisions
from relabel.releases.candidates import read_candidates
from relabel.releases.fences import Fence
from relabel.releases.lookup import find_version
from relabel.releases.release import CANDIDATE, Release, Store
from relabel.releases.retirements import read_retired
from relabel.releases.versions import Version, read_sequence, version_numbers
from relabel.storage.opening import open_store as open_objects

from .seen import tell_seen
from .summary_lines import tell_briefly, tell_summary
from .terminal import Add, add_store, emit, positive, refused, say, storage_options, table
from .verdicts import told


def declare(add: Add) -> None:
    for name, command, text in (
        ("log", log_command, "list a store's releases"),
        ("show", show_command, "describe one release"),
        ("verify", verify_command, "check that a release, or an export of one, is whole"),
        ("candidates", candidates_command, "list what the gate refused, and why, and what waits for approval"),
        ("doctor", doctor_command, "probe whether a store keeps the promises that commits need"),
        ("preview", preview_command, "draw some samples with their labels"),
    ):
        sub = add(name, command, text)
        add_store(sub)
        if name in ("show", "verify", "preview"):
            sub.add_argument(
                "--release", default="latest", metavar="R", help="a number, tag, channel, `latest`, `candidate:RUN`"
            )
        if name == "verify":
            sub.add_argument(
                "--level",
                default="default",
                choices=("quick", "default", "full"),
                help="quick: listings and manifests; default: and file footers; full: every byte",
            )
        if name == "preview":
            sub.add_argument("--out", required=True, metavar="PNG")
            sub.add_argument("--samples", type=positive, default=6, metavar="N")
            sub.add_argument("--accept-partial", action="store_true", help="also of a run that goes on")


def open_store(options: argparse.Namespace) -> Store:
    return relabel.open(options.store, **storage_options(options))


def open_release(options: argparse.Namespace) -> Release:
    """Commands that describe take partial releases as they are; the one that reads labels must be told to."""
    return open_store(options).release(options.release, accept_partial=getattr(options, "accept_partial", True))


def log_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    sequence = read_sequence(store.objects)
    tags, recalls, retired = names_of(store), store.recalls(), read_retired(store.objects)
    if options.json:
        emit([log_entry(entry, tags, recalls, retired) for entry in sequence])
        return 0
    if not sequence:
        say("no release yet")
    for version in reversed(sequence):
        if isinstance(version, Fence):
            say(f"fence   {version.number:<4} {version.created}  {version}")
            continue
        labels = ", ".join(f"{name} {label.fingerprint[:8]}" for name, label in version.labels.items())
        say(
            f"release {version.version:<4} {version.created}  {version.counts.shards} shards, "
            f"{version.counts.ok} ok, {version.counts.dead} dead  {labels}  content {version.content_digest[:12]}"
            + (f"  partial: {version.coverage:.1%}" if version.partial else "")
            + ("  retired" if version.version in retired else "")
            + "".join(f"  {name}" for name in named(tags, version.version))
        )
        if brief := tell_briefly(summary_of(version)):
            say(f"             {brief}")
        if version.version in recalls:
            say(f"             RECALLED: {recalls[version.version]}")
        for revert, target in version.reverts:
            if revert == version.version:
                say(f"             the labels of release {target} again")
    return 0


def log_entry(
    entry: Version | Fence, tags: Mapping[str, int], recalls: Mapping[int, str], retired: frozenset[int]
) -> Json:
    """A release as its file has it, with its tags and its recall; a fence has its `kind` instead."""
    if isinstance(entry, Fence):
        told: dict[str, Json] = entry.model_dump(mode="json")
        return told
    told = described(entry)
    number = entry.version
    return {**told, "tags": named(tags, number), "recalled": recalls.get(number), "retired": number in retired}


def described(version: Version) -> dict[str, Json]:
    """A release as its file has it, with its summary as people read it."""
    summary = summary_of(version)
    return {**version.to_json(), "summary": None if summary is None else summary.to_json()}


def summary_of(version: Version) -> Summary | None:
    """As it was published."""
    return None if version.summary is None else from_json(version.summary)


def names_of(store: Store) -> dict[str, int]:
    """Tags, and channels as they stand."""
    return {**store.tags(), **store.channels()}


def named(tags: Mapping[str, int], number: int) -> list[str]:
    """The tags and channels of a release."""
    return [name for name, tagged in tags.items() if tagged == number]


def latest_for_readers(store: Store) -> int | None:
    """What `latest` means to who accepts no partial release; None where every release is recalled."""
    usable = set(version_numbers(store.objects)) - store.recalls().keys()
    return find_version(store.objects, "latest") if usable else None


def tell_latest(store: Store, version: Version) -> list[str]:
    """Which release readers get as `latest`, where it is not this one."""
    latest = latest_for_readers(store)
    if latest in (version.version, None):
        return []
    return [f"latest    is release {latest} for readers" + (": this one is partial" if version.partial else "")]


def show_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    release = store.release(options.release, accept_partial=True, recalled="ignore")
    version = release.version
    tags, recall = named(names_of(store), version.version), store.recalls().get(version.version)
    retired = version.version in read_retired(store.objects)
    if options.json:
        emit({**described(version), "tags": tags, "recalled": recall, "retired": retired})
        return 0
    if recall is not None:
        say(f"RECALLED  {recall}")
    if retired:
        say("retired   its labels are not given out any more, and may be deleted")
    counts = version.counts
    say(
        f"release   {version.version} of {options.store}, written {version.created} by run {version.run_id}",
        *tell_latest(store, version),
        f"content   {version.content_digest}",
        f"shards    {counts.shards}, of which {counts.dead_shards} could not be read; coverage {version.coverage:.1%}",
        f"samples   {counts.samples} = {counts.ok} ok + {counts.dead} dead + {counts.filtered} filtered",
    )
    for reason, number in counts.reasons.items():
        say(f"          {number} {reason}")
    if (now := release.counts) != counts:
        say(f"now       {now.ok} ok + {now.dead} dead + {now.filtered} filtered: samples were withdrawn since")
    if tags:
        say(f"tags      {', '.join(tags)}")
    for name, label in version.labels.items():
        contract = release.labels[name]
        say(
            f"label     {name}: {contract.kind} by {label.operator} version {label.version}, "
            f"fingerprint {label.fingerprint[:16]}"
        )
        for line in filter(None, map(tell_seen, label.identity.get("statistics", ()))):
            say(f"          statistic {line}")
        for column in contract.columns:
            axes = ", ".join(f"{axis}={length}" for axis, length in zip(column.axes, column.shape, strict=True))
            say(f"          {column.name}: {column.dtype}" + (f" [{axes}]" if axes else ""))
    for line in told(version.gate) if version.gate else ():
        say(f"gate      {line}")
    for line in tell_summary(release.summary, counts.shards - counts.dead_shards):
        say(line)
    say(f"source    {version.source['root']}")
    return 0


def candidates_command(options: argparse.Namespace) -> int:
    objects = open_store(options).objects
    found = read_candidates(objects)
    decisions = {each.run_id: read_decisions(objects, each.run_id) if groups_of(each) else {} for each in found}
    if options.json:
        emit([{**each.to_json(), "decisions": as_json(decisions[each.run_id])} for each in found])
        return 0
    for each in found:
        say(f"{CANDIDATE}{each.run_id}  {each.version.created}  would be release {each.version.version}")
        gate = with_decisions(each.version.gate, decisions[each.run_id]) if groups_of(each) else each.version.gate
        for line in told(gate):
            say(f"    {line}")
        if groups_of(each) and expires_in(objects, each) <= 0:
            say("    expired: run the recipe again for a new candidate")
    if not found:
        say("none: nothing that was refused, or that waits for approval")
    return 0


def as_json(decisions: Mapping[str, Decision]) -> dict[str, Json]:
    return {group: decision.to_json() for group, decision in decisions.items()}


def verify_command(options: argparse.Namespace) -> int:
    from relabel.exports.manifest import MANIFEST
    from relabel.releases.verify import verify

    objects = open_objects(options.store, storage_options(options))
    if objects.exists(MANIFEST):
        from .export_commands import verify_export

        return verify_export(options, objects)
    report = verify(objects, options.release, options.level)
    if options.json:
        emit(dataclasses.asdict(report))
    else:
        for problem in report.problems:
            say(f"{problem.object}: {problem.what}")
        counts = ", ".join(f"{number} {name}" for name, number in report.counts.items())
        say(f"release {report.release}, level {report.level}: {len(report.problems)} problems; checked {counts}")
    if report.ok:
        return 0
    return refused(
        StoreCorrupt(
            f"release {report.release} of {options.store} is not whole (first: {report.problems[0].object}). What lies "
            "below data/ can be made again: delete it and run the recipe. Restore anything else from a copy."
        )
    )


def doctor_command(options: argparse.Namespace) -> int:
    from relabel.releases.doctor import diagnose

    checks = diagnose(open_objects(options.store, storage_options(options)))
    if options.json:
        emit([dataclasses.asdict(check) for check in checks])
    else:
        table(("ok" if check.ok else "FAILED", check.name, check.detail) for check in checks)
    failed = "; ".join(check.name for check in checks if not check.ok)
    return refused(Refused(f"{options.store} does not keep what commits need: {failed}.")) if failed else 0


def preview_command(options: argparse.Namespace) -> int:
    from .gallery import preview

    release = open_release(options)
    drawn = preview(release, options.out, options.samples)
    if options.json:
        emit({"out": options.out, "samples": drawn})
    else:
        say(f"{options.out}: {len(drawn)} samples of release {release.version.version}")
    return 0
