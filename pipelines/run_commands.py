"""Run commands: plan and run a recipe; try and compare, before a run is paid for."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from relabel.digests import Json
from relabel.releases.partitions import WHOLE, Partition, parse_partition

from .logs import VARIABLE
from .prices import tell_cost
from .terminal import Add, add_if_busy, add_overrides, aligned, emit, positive, say, size


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
        if name == "plan":
            sub.add_argument(
                "--measure",
                type=positive,
                nargs="?",
                const=3,
                metavar="N",
                help="label a part of N shards (3) here: what the whole will take, cost and wait for",
            )
        if name == "run":
            sub.add_argument("--log", choices=("auto", "json", "text"), help="form of the log (default: RELABEL_LOG)")
            sub.add_argument("--address", help="a running Ray cluster (default: a local one for this run)")
            add_if_busy(sub)
            sub.add_argument(
                "--bring-back", action="store_true", help="publish labels although a revert or a recall took them back"
            )
            sub.add_argument(
                "--refit", action="store_true", help="gather the statistics that steps need anew, over today's rows"
            )
            sub.add_argument(
                "--accept-recompute", action="store_true", help="label more once more than max_recompute allows"
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
    from .gatekeeper import refusals
    from .loading import load, lock_path
    from .plan import make_job, plan

    job = make_job(load(options.recipe, options.overrides), lock_path(options.recipe))
    planned = plan(job, options.limit, options.check_content, partition_of(options))
    measured = None if options.measure is None else measured_here(planned, options.measure)
    described = {**planned.to_json(), "refused": refusals(planned), "measured": measured}
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
    if described["pending"]:
        say(
            f"before    the statistic {described['pending']} is gathered over all shards; which labels are still good "
            "is known after that"
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
    for refusal in described["refused"]:
        say(*aligned([("refused  ", line.strip()) for line in refusal.splitlines()]))
    for entry in described["todo_shards"][:5]:
        say(f"          {entry['shard']}  ({entry['why']})")
    if described["todo"] > 5:
        say(f"          and {described['todo'] - 5} more")
    if measured is not None:
        say(*tell_measured(measured))
    return 0


def measured_here(planned: Any, shards: int) -> Json:
    from .in_process import settle_allocator
    from .measuring import measure

    settle_allocator()
    with contextlib.redirect_stdout(sys.stderr):  # what an operator of the user's own prints
        return measure(planned, shards).to_json()


def tell_measured(measured: Json) -> Iterator[str]:
    from .projection import tell_projection

    stages = ", ".join(f"{stage} {each:g}" for stage, each in measured["ms_per_sample"].items())
    yield (
        f"measured  {measured['labelled']} samples of {measured['shards']} shards on this machine; ms a sample and "
        f"slot: {stages}"
    )
    slots = f"actors: {measured['actors']} on {measured['device']}; readers: {measured['readers']}; Ray started"
    for line in tell_projection(measured["projected"], f"about {measured['samples']} samples ({slots})"):
        yield f"projected {line}"


def run_command(options: argparse.Namespace) -> int:
    from .leasing import IfBusy
    from .running import run

    if options.log is not None:
        os.environ[VARIABLE] = options.log
    outcome = run(
        options.recipe,
        options.overrides,
        limit=options.limit,
        check_content=options.check_content,
        address=options.address,
        partition=partition_of(options),
        if_busy=IfBusy(options.if_busy),
        bring_back=options.bring_back,
        refit=options.refit,
        accept_recompute=options.accept_recompute,
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
    for line in tell_usage(described["usage"]):
        say(line)


def tell_usage(usage: Json) -> list[str]:
    """What it cost and what it waited for; nothing where nothing was labelled."""
    if not usage["samples"]:
        return []
    told = [f"cost      {tell_cost(usage['cost'])}"]
    if usage["bottleneck"]:
        told.append(f"limit     {usage['bottleneck']['text']}")
        if usage["bottleneck"]["share"] < 0.5:
            told.append(
                f"start     {usage['startup_seconds']:.0f} of {usage['graph_seconds']:.0f} s: until a model is loaded"
            )
    return told


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
