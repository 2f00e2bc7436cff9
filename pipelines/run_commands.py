"""Run commands: plan and run a recipe; try and compare, before a run is paid for."""

import argparse
import contextlib
import sys

from relabel.digests import Json
from relabel.releases.partitions import WHOLE, Partition, parse_partition

from .terminal import Add, add_if_busy, add_overrides, emit, positive, say, size


def declare(add: Add) -> None:
    for name, command, text in (
        ("plan", plan_command, "say what a run would do and why; writes nothing"),
        ("run", run_command, "label what is not labelled yet and publish a release"),
    ):
        sub = add(name, command, text)
        sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
        add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
        sub.add_argument("--limit", type=positive, metavar="N", help="label at most N shards this time")
        sub.add_argument(
            "--check-content", action="store_true", help="read finished shards again and compare their digests"
        )
        sub.add_argument(
            "--partition", metavar="i/n", help="only the shards of the i-th of n parts of the source; publishes nothing"
        )
        if name == "run":
            sub.add_argument("--address", help="a running Ray cluster (default: a local one for this run)")
            add_if_busy(sub)
            sub.add_argument(
                "--bring-back", action="store_true", help="publish labels although a revert or a recall took them back"
            )
    declare_trials(add)


def declare_trials(add: Add) -> None:
    for name, command, text in (
        ("try", try_command, "label a few samples here, without Ray and store, and draw them"),
        ("compare", compare_command, "label a few samples with two recipes, and draw both side by side"),
    ):
        sub = add(name, command, text)
        sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
        if name == "compare":
            sub.add_argument("other", help="the second recipe; the samples are those of the first")
        add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
        if name == "compare":
            add_overrides(sub, "--set-b", "other_overrides", "override one field of the second recipe (repeatable)")
        sub.add_argument("--limit", type=positive, default=20, metavar="N", help="samples (default: %(default)s)")
        sub.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="CONDITION",
            dest="conditions",
            help="only samples like these: 'json.width>=256', 'cls=471' (repeatable)",
        )
        sub.add_argument("--out", metavar="PNG", help=f"the picture (default: RECIPE'S NAME-{name}.png)")


def plan_command(options: argparse.Namespace) -> int:
    from .loading import load, lock_path
    from .plan import make_job, plan

    job = make_job(load(options.recipe, options.overrides), lock_path(options.recipe))
    planned = plan(job, options.limit, options.check_content, partition_of(options))
    described = planned.to_json()
    if options.json:
        emit(described)
        return 0
    say(
        f"source    {described['shards']} shards, {size(float(described['bytes']))} ({job.source.path})",
        f"store     {described['store']}, "
        + (f"latest release {described['latest_release']}" if described["latest_release"] else "no release yet"),
        f"done      {described['done']} shards ({described['samples_known']} samples)",
        f"to label  {described['todo']} shards, {size(float(described['todo_bytes']))}"
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
    for shard, by in list(described["taken_back"].items())[:1]:
        say(f"refused   {len(planned.taken_back)} shards (first: {shard}) have labels that were taken out of use: {by}")
        say("          a run publishes them only with --bring-back")
    for entry in described["todo_shards"][:5]:
        say(f"          {entry['shard']}  ({entry['why']})")
    if described["todo"] > 5:
        say(f"          and {described['todo'] - 5} more")
    return 0


def run_command(options: argparse.Namespace) -> int:
    from .leasing import IfBusy
    from .running import run

    outcome = run(
        options.recipe,
        options.overrides,
        limit=options.limit,
        check_content=options.check_content,
        address=options.address,
        partition=partition_of(options),
        if_busy=IfBusy(options.if_busy),
        bring_back=options.bring_back,
    )
    if options.json:
        emit(outcome.to_json())
    else:
        tell_outcome(outcome.to_json())
    return 0


def partition_of(options: argparse.Namespace) -> Partition:
    return WHOLE if options.partition is None else parse_partition(options.partition)


def tell_outcome(described: Json) -> None:
    """What a run did, or a publication, for people."""
    for shard in described["removed"][:5]:
        say(f"removed   {shard} is gone from the source")
    if len(described["removed"]) > 5:
        say(f"removed   and {len(described['removed']) - 5} more")
    for warning in described["warnings"]:
        say(f"warning   {warning}")
    for milestone in described["milestones"]:
        say(f"milestone release {milestone['release']}, coverage {milestone['coverage']:.1%}")
    labelled, left, release = (described[name] for name in ("labelled", "open", "release"))
    counts = f"{described['ok']} samples labelled, {described['dead']} dead letters, {described['filtered']} filtered"
    if described["partition"]:
        say(
            f"partition {described['partition']}: {labelled} shards labelled; {left} of all {described['shards']} "
            "shards were open when this run began or still are.",
            "`relabel publish` with this recipe publishes once no shard is open.",
        )
    elif left:
        say(
            f"{labelled} shards labelled, {left} still open; nothing published yet.",
            "Run again (without --limit) to label the rest and publish.",
        )
    elif described["published"]:
        say(
            f"published release {release} in {described['store']}",
            f"  {described['shards']} shards ({labelled} labelled by this run), {counts}",
            f"  content {described['content_digest'][:16]}",
        )
    else:
        say(f"nothing to do: release {release} has all {described['shards']} shards ({counts})")


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
