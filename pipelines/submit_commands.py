"""Submit commands: a recipe on a cluster, now (`submit`) or every night (`manifest`, `launch`)."""

import argparse
import dataclasses
import datetime as dt
import os
import re
import signal
import sys
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from relabel.about import __version__
from relabel.errors import UsageError

from .terminal import Add, add_overrides, emit, positive, say

IMAGE = f"relabel:{__version__}"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PATIENCE_SECONDS = 300.0


def declare(add: Add) -> None:
    declare_submit(add)
    declare_manifest(add)
    launch = add(
        "launch", launch_command, "what the CronJob of `manifest` runs: start tonight's RayJob, wait for its end"
    )
    launch.add_argument("rayjob", metavar="RAYJOB", help="the suspended RayJob to copy")
    launch.add_argument("--deadline", type=seconds, default=8 * 3600, metavar="TIME", help="90m, 8h (default: 8h)")
    launch.add_argument(
        "--retries", type=retries, default=2, metavar="N", help="after exit code 1 (default: %(default)s)"
    )
    launch.add_argument("--time-zone", type=time_zone, default="Etc/UTC", metavar="ZONE", help="of the dated name")
    launch.add_argument(
        "--dates-in", type=time_zone, metavar="ZONE",
        help="tell `nightly` its date, that on which it was due in this zone (default: it takes the day it starts on)",
    )  # fmt: skip
    launch.add_argument("--server", metavar="URL", help="the API server (default: that of this pod's cluster)")


def declare_submit(add: Add) -> None:
    sub = add("submit", submit_command, "run a recipe as a job of a Ray cluster, through the job server of its head")
    sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
    sub.add_argument("--address", required=True, metavar="URL", help="the head's job server: http://HOST:8265")
    sub.add_argument(
        "--command", default="run", choices=("run", "nightly"), dest="program", help="what the job does (default: run)"
    )
    sub.add_argument("--follow", action="store_true", help="show the job's log, and end as the job ends")
    sub.add_argument("--stop", action="store_true", help="ask the job of this very recipe to end; nothing is lost")
    sub.add_argument(
        "--wheel",
        action="append",
        default=[],
        metavar="FILE",
        dest="wheels",
        help="code that the job imports instead of what the image has (repeatable)",
    )
    sub.add_argument(
        "--patience", type=float, default=PATIENCE_SECONDS, metavar="SECONDS",
        help="how long a head that is away is waited for (default: %(default)g)",
    )  # fmt: skip
    passed = sub.add_argument_group("passed on to the job's command")
    passed.add_argument(
        "--if-busy", choices=("take-over", "wait", "refuse"), help="run: where another run holds the store"
    )
    passed.add_argument("--limit", type=positive, metavar="N", help="run: label at most N shards this time")
    passed.add_argument("--partition", metavar="i/n", help="run: only the i-th of n parts of the source")
    passed.add_argument("--refit", action="store_true", help="run: gather statistics anew")
    passed.add_argument("--bring-back", action="store_true", help="run: publish what a revert or recall took back")
    passed.add_argument("--date", metavar="YYYY-MM-DD", help="nightly: the night's date")
    passed.add_argument("--deadline", metavar="TIME", help="nightly: when it stops, cleanly")


PASSED = {"run": ("if_busy", "limit", "partition", "refit", "bring_back"), "nightly": ("date", "deadline")}


def passed_on(options: argparse.Namespace) -> list[str]:
    """What of the command line is the job's. Raises UsageError where its command knows no such option."""
    words: list[str] = []
    for program, names in PASSED.items():
        for name in names:
            if (value := getattr(options, name)) in (None, False):
                continue
            flag = f"--{name.replace('_', '-')}"
            if program != options.program:
                raise UsageError(
                    f"{flag} is an option of `{program}`, and the job runs `{options.program}` (--command)."
                )
            words += [flag] if value is True else [flag, str(value)]
    return words


def declare_manifest(add: Add) -> None:
    sub = add(
        "manifest", manifest_command, "print what Kubernetes needs to run a recipe once, or every night (KubeRay)"
    )
    sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
    sub.add_argument("--schedule", type=schedule, metavar="CRON", help="every night: '0 2 * * *' (default: once, now)")
    sub.add_argument("--time-zone", type=time_zone, default="Etc/UTC", metavar="ZONE", help="of it: Europe/Berlin")
    sub.add_argument("--ray-cron", action="store_true", help="KubeRay's RayCronJob (alpha) in place of a CronJob")
    sub.add_argument(
        "--image", default=IMAGE, help="with relabel in it, as deploy/docker builds it (default: %(default)s)"
    )
    sub.add_argument("--namespace", metavar="NAME", help="default: none, so that kubectl or Kustomize says it")
    sub.add_argument(
        "--workers",
        type=workers,
        metavar="N[:MAX]",
        help="pods with a model actor each (default: resources.actors, or 1)",
    )
    sub.add_argument("--cpus", type=positive, default=4, metavar="N", help="per worker (default: %(default)s)")
    sub.add_argument("--memory", type=memory, default="16Gi", metavar="SIZE", help="per worker (default: %(default)s)")
    sub.add_argument("--gpus", type=count, default=1, metavar="N", help="per worker (default: %(default)s); 0 for CPUs")
    sub.add_argument("--deadline", type=seconds, default=8 * 3600, metavar="TIME", help="90m, 8h (default: 8h)")
    sub.add_argument("--secret", metavar="NAME", help="a Secret whose keys become the environment of the Ray pods")
    sub.add_argument("--out", metavar="FOLDER", help="write a file per object and a kustomization.yaml there")


def manifest_command(options: argparse.Namespace) -> int:
    from . import manifests
    from .shipping import pack

    shipment = pack(options.recipe, options.overrides)
    actors = shipment.recipe.resources.actors
    settings = manifests.Settings(
        image=options.image, namespace=options.namespace, cpus=options.cpus, memory=options.memory, gpus=options.gpus,
        workers=options.workers or ((actors.min, actors.max) if actors else (1, 1)), secret=options.secret,
        deadline_seconds=options.deadline, schedule=options.schedule, time_zone=options.time_zone,
        overrides=options.overrides,
    )  # fmt: skip
    if options.ray_cron and options.schedule is None:
        raise UsageError("--ray-cron needs a --schedule.")
    every = manifests.objects(shipment, settings, options.ray_cron)
    if shipment.variables and not options.secret:
        names = ", ".join(shipment.variables)
        print(f"relabel: the recipe needs {names} in the environment of the pods: --secret NAME", file=sys.stderr)
    header = "# Written by `relabel manifest`: change the recipe or an overlay, not this file.\n"
    if options.out is not None:
        files = manifests.write(Path(options.out), every, header)
        emit([str(path) for path in files]) if options.json else say(*map(str, files))
    elif options.json:
        emit({"apiVersion": "v1", "kind": "List", "items": every})
    else:
        say(header + "---\n".join(map(manifests.to_yaml, every)))
    return 0


def launch_command(options: argparse.Namespace) -> int:
    from .launching import Api, Launch, Owner, due, tonight

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the first process of a container hears nothing else
    name, uid = os.environ.get("JOB_NAME"), os.environ.get("JOB_UID")
    owner = Owner(name, uid) if name and uid else None
    api = Api.of_pod(options.server)
    moment = due(owner, dt.datetime.now(dt.UTC))
    date = moment.astimezone(zoneinfo.ZoneInfo(options.dates_in)).date() if options.dates_in else None
    launch = Launch(api, lambda text: print(text, flush=True), float(options.deadline), date)
    code = launch.run(options.rayjob, tonight(options.rayjob, moment, options.time_zone), owner, options.retries)
    if code:
        print(f"relabel: the night ended with exit code {code}; the README's runbook says what to do", file=sys.stderr)
    return code


def seconds(text: str) -> int:
    if not (found := re.fullmatch(r"(\d{1,6})([smhd])", text)) or not int(found[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 90m or 8h, got {text!r}")
    return int(found[1]) * SECONDS[found[2]]


def count(text: str) -> int:
    if not re.fullmatch(r"\d{1,2}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 99, got {text!r}")
    return int(text)


def retries(text: str) -> int:
    """One digit, for which a RayJob's name has room."""
    if not re.fullmatch(r"\d", text):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 9, got {text!r}")
    return int(text)


def schedule(text: str) -> str:
    if len(text.split()) != 5 or not re.fullmatch(r"[0-9A-Za-z*/,\- ]+", text):
        raise argparse.ArgumentTypeError(
            f"expected five fields such as '0 2 * * *' (minute, hour, day, month, weekday), got {text!r}"
        )
    return text


def time_zone(text: str) -> str:
    try:
        return zoneinfo.ZoneInfo(text).key
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected a time zone such as Europe/Berlin, got {text!r}") from error


def workers(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,4}))?", text)) or int(found[2] or found[1]) < int(
        found[1]
    ):
        raise argparse.ArgumentTypeError(f"expected a number of workers or LEAST:MOST, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def memory(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,8}[MG]i?", text):
        raise argparse.ArgumentTypeError(f"expected a size such as 16Gi, got {text!r}")
    return text


def submit_command(options: argparse.Namespace) -> int:
    from .following import follow
    from .jobs import Jobs
    from .shipping import pack
    from .submitting import base_id, entrypoint, find_job, submit

    shipment = pack(options.recipe, options.overrides, options.wheels)
    line = entrypoint(shipment, options.program, passed_on(options), options.overrides)
    jobs = Jobs(options.address)
    if options.stop:
        job, _ = find_job(jobs, base_id(shipment, line))
        if job is None:
            raise UsageError(
                "no job of this recipe, with these files and arguments, is at work there. `ray job list` names what "
                "is; `relabel stop STORE` ends whatever run holds the store."
            )
        jobs.stop(job)
        told = {"job": job, "stopped": True}
        emit(told) if options.json else say(f"asked the job {job} to stop; it finishes what is in flight")
        return 0
    submitted = submit(jobs, shipment, line)
    tell = {"job": submitted.id, "attached": submitted.attached, "files": list(shipment.files), "entrypoint": line,
            "variables": list(shipment.variables)}  # fmt: skip
    if not options.json:
        say(*describe(tell, options))
    if not options.follow:
        if options.json:
            emit(tell)
        return 0
    ended = follow(jobs, submitted.id, write_to(sys.stderr if options.json else sys.stdout), options.patience)
    if options.json:
        emit({**tell, **dataclasses.asdict(ended)})
    elif ended.exit_code:
        print(f"relabel: the job {submitted.id} ended: {ended.status}. {ended.message}", file=sys.stderr)
    return ended.exit_code


def write_to(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write


def describe(told: dict[str, object], options: argparse.Namespace) -> list[str]:
    """What was sent, for people."""
    files, variables = told["files"], told["variables"]
    assert isinstance(files, list)
    assert isinstance(variables, list)
    shown = [*files[:8], *([f"and {len(files) - 8} more"] if len(files) > 8 else [])]
    lines = [f"at work   the job {told['job']} runs this very recipe already"] if told["attached"] else [
        f"submitted {told['job']}", f"files     {', '.join(shown)}"
    ]  # fmt: skip
    if variables:
        lines.append(f"needs     {', '.join(map(str, variables))} in the environment of the cluster's nodes")
    if not options.follow:
        lines.append(f"follow    the same command with --follow, or: ray job logs {told['job']} --follow")
    return lines
