"""Commands: what each word of the command line does; text for people, JSON for programs."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import relabel
from relabel.digests import Json
from relabel.errors import Refused, StoreCorrupt, UsageError
from relabel.releases.release import Release, Store
from relabel.storage.opening import open_store as open_objects


def say(*lines: str) -> None:
    print("\n".join(lines))


def emit(value: Json) -> None:
    print(json.dumps(value, indent=2, default=str))


def size(num_bytes: float) -> str:
    """`3.5 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError


def plan_command(options: argparse.Namespace) -> int:
    from .loading import load, lock_path
    from .plan import make_job, plan

    job = make_job(load(options.recipe, options.overrides), lock_path(options.recipe))
    planned = plan(job, options.limit, options.check_content)
    described = planned.to_json()
    if options.json:
        emit(described)
        return 0
    say(
        f"source    {described['shards']} shards, {size(described['bytes'])} ({job.source.path})",
        f"store     {described['store']}, "
        + (f"latest release {described['latest_release']}" if described["latest_release"] else "no release yet"),
        f"done      {described['done']} shards ({described['samples_known']} samples)",
        f"to label  {described['todo']} shards, {size(described['todo_bytes'])}"
        + "".join(f"; {number} {why}" for why, number in described["why"].items()),
    )
    if described["reused_parts"]:
        say(f"reused    {described['reused_parts']} parts that an interrupted run left")
    if described["removed"]:
        say(f"removed   {len(described['removed'])} shards are gone from the source")
    for change in described["changes"]:
        say(f"why       {change}")
    for warning in described["warnings"]:
        say(f"warning   {warning}")
    for entry in described["todo_shards"][:5]:
        say(f"          {entry['shard']}  ({entry['why']})")
    if described["todo"] > 5:
        say(f"          and {described['todo'] - 5} more")
    return 0


def run_command(options: argparse.Namespace) -> int:
    from .running import run

    outcome = run(
        options.recipe,
        options.overrides,
        limit=options.limit,
        check_content=options.check_content,
        address=options.address,
    )
    described = outcome.to_json()
    if options.json:
        emit(described)
        return 0
    for shard in described["removed"][:5]:
        say(f"removed   {shard} is gone from the source")
    if len(described["removed"]) > 5:
        say(f"removed   and {len(described['removed']) - 5} more")
    for warning in described["warnings"]:
        say(f"warning   {warning}")
    counts = f"{described['ok']} samples labelled, {described['dead']} dead letters, {described['filtered']} filtered"
    if outcome.open_shards:
        say(
            f"{outcome.labelled} shards labelled, {outcome.open_shards} still open; nothing published yet.",
            "Run again (without --limit) to label the rest and publish.",
        )
    elif outcome.published and outcome.release is not None:
        say(
            f"published release {outcome.release.version} in {described['store']}",
            f"  {described['shards']} shards ({outcome.labelled} labelled by this run), {counts}",
            f"  content {outcome.release.content_digest[:16]}",
        )
    elif outcome.release is not None:
        say(f"nothing to do: release {outcome.release.version} has all {described['shards']} shards ({counts})")
    return 0


def storage_options(options: argparse.Namespace) -> dict[str, str]:
    pairs = {}
    for option in options.storage_option:
        name, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--storage-option expects NAME=VALUE, got {option!r}.")
        pairs[name] = value
    return pairs


def open_store(options: argparse.Namespace) -> Store:
    return relabel.open(options.store, **storage_options(options))


def open_release(options: argparse.Namespace) -> Release:
    return open_store(options).release(options.release)


def log_command(options: argparse.Namespace) -> int:
    history = open_store(options).history()
    if options.json:
        emit([version.model_dump(mode="json") for version in history])
        return 0
    if not history:
        say("no release yet")
    for version in reversed(history):
        labels = ", ".join(f"{name} {label.fingerprint[:8]}" for name, label in version.labels.items())
        say(
            f"release {version.version:<4} {version.created}  {version.counts.shards} shards, "
            f"{version.counts.ok} ok, {version.counts.dead} dead  {labels}  content {version.content_digest[:12]}"
        )
    return 0


def show_command(options: argparse.Namespace) -> int:
    release = open_release(options)
    version = release.version
    if options.json:
        emit(version.model_dump(mode="json"))
        return 0
    counts = version.counts
    say(
        f"release   {version.version} of {options.store}, written {version.created} by run {version.run_id}",
        f"content   {version.content_digest}",
        f"shards    {counts.shards}, of which {counts.dead_shards} could not be read; coverage {version.coverage:.1%}",
        f"samples   {counts.samples} = {counts.ok} ok + {counts.dead} dead + {counts.filtered} filtered",
    )
    for reason, number in counts.reasons.items():
        say(f"          {number} {reason}")
    for name, label in version.labels.items():
        contract = release.labels[name]
        say(
            f"label     {name}: {contract.kind} by {label.operator} version {label.version}, "
            f"fingerprint {label.fingerprint[:16]}"
        )
        for column in contract.columns:
            axes = ", ".join(f"{axis}={length}" for axis, length in zip(column.axes, column.shape, strict=True))
            say(f"          {column.name}: {column.dtype}" + (f" [{axes}]" if axes else ""))
    say(f"source    {version.source['root']}")
    return 0


def verify_command(options: argparse.Namespace) -> int:
    from relabel.releases.verify import verify

    report = verify(open_objects(options.store, storage_options(options)), options.release, options.level)
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


def refused(error: Refused) -> int:
    """What a check that was printed already says on standard error; standard output stays one JSON document."""
    print(f"relabel: {error}", file=sys.stderr)
    return error.exit_code


def doctor_command(options: argparse.Namespace) -> int:
    from relabel.releases.doctor import diagnose

    checks = diagnose(open_objects(options.store, storage_options(options)))
    if options.json:
        emit([dataclasses.asdict(check) for check in checks])
    else:
        table(("ok" if check.ok else "FAILED", check.name, check.detail) for check in checks)
    failed = "; ".join(check.name for check in checks if not check.ok)
    return refused(Refused(f"{options.store} does not keep what commits need: {failed}.")) if failed else 0


def operators_command(options: argparse.Namespace) -> int:
    from relabel.labelers import registry

    known = registry.labelers()
    if options.json:
        emit(
            {
                name: {"version": cls.version, "parameters": cls.Parameters.model_json_schema()}
                for name, cls in known.items()
            }
        )
        return 0
    for name, cls in known.items():
        say(f"{name} (version {cls.version}): {(cls.__doc__ or '').strip().partition(chr(10))[0]}")
        for field, info in cls.Parameters.model_fields.items():
            default = "required" if info.is_required() else f"default {info.default!r}"
            say(f"    {field}: {(info.description or '').partition(chr(10))[0]} ({default})")
    return 0


def schema_command(options: argparse.Namespace) -> int:
    from .loading import schema

    emit(schema())
    return 0


def preview_command(options: argparse.Namespace) -> int:
    from .gallery import preview

    release = open_release(options)
    drawn = preview(release, options.out, options.samples)
    if options.json:
        emit({"out": options.out, "samples": drawn})
    else:
        say(f"{options.out}: {len(drawn)} samples of release {release.version.version}")
    return 0


def demo_command(options: argparse.Namespace) -> int:
    from .demo import demo

    return demo(options.out, sys.stdout if not options.json else sys.stderr)


def try_command(options: argparse.Namespace) -> int:
    from .in_process import settle_allocator
    from .reports import tell_trial
    from .trying import try_recipe

    settle_allocator()
    with contextlib.redirect_stdout(sys.stderr):  # what an operator of the user's own prints
        tried = try_recipe(
            options.recipe, options.overrides, limit=options.limit, where=options.conditions, out=options.out
        )
    if options.json:
        emit(tried.to_json())
    else:
        say(*tell_trial(tried))
    return 0


def compare_command(options: argparse.Namespace) -> int:
    from .comparing import compare
    from .in_process import settle_allocator
    from .reports import tell_comparison

    settle_allocator()
    with contextlib.redirect_stdout(sys.stderr):
        comparison = compare(
            options.recipe, options.other, options.overrides, options.other_overrides,
            limit=options.limit, where=options.conditions, out=options.out,
        )  # fmt: skip
    if options.json:
        emit(comparison.to_json())
    else:
        say(*tell_comparison(comparison))
    return 0


def new_command(options: argparse.Namespace) -> int:
    from .scaffold import new_labeler

    files = new_labeler(options.name, Path(options.out))
    if options.json:
        emit([str(path) for path in files])
    else:
        say(
            f"wrote {', '.join(path.name for path in files)} to {files[0].parent}",
            f"test it:      cd {files[0].parent} && python -m pytest",
            f"in a recipe:  plugins: [{files[0]}]",
        )
    return 0


def table(rows: Iterable[Sequence[Any]]) -> None:
    say(*aligned(rows))


def aligned(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Left-aligned columns, a line per row."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in lines]
