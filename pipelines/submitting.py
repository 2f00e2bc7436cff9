"""Submitting: a recipe as a job of a Ray cluster, by the job server of its head.

A job's id is made of what it runs: the same recipe, files and arguments have the same id, and a second submission
attaches to the first while that is at work.
"""

import dataclasses
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.about import __version__
from relabel.digests import digest

from .jobs import Jobs, SubmittedBefore
from .shipping import Shipment

STOP_SECONDS = 60
"""What a job that is asked to stop may take, before Ray kills it; Ray's own 3 s are too few for a run."""


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A job on the cluster."""

    id: str
    attached: bool
    """Whether it was there already."""
    entrypoint: str


def entrypoint(shipment: Shipment, command: str, arguments: Sequence[str], overrides: Sequence[str]) -> str:
    """The shell's line that the head runs: where the job starts, then the program, whose exit code is the job's."""
    settings = [word for each in overrides for word in ("--set", each)]
    program = ["python", "-m", "relabel.pipelines", command, shipment.path, "--address", "auto", *settings, *arguments]
    start = "" if shipment.folder == "." else f"cd {shlex.quote(shipment.folder)} && "
    return f"{start}exec {shlex.join(program)}"


def base_id(shipment: Shipment, line: str) -> str:
    """`relabel-imagenet-maps-0123456789abcdef`: of equal content for equal content."""
    name = re.sub(r"[^a-z0-9]+", "-", shipment.recipe.name.lower()).strip("-")
    return f"relabel-{name}-{digest([shipment.digest, line])[:16]}"


def find_job(jobs: Jobs, base: str) -> tuple[str | None, int]:
    """The job of this content that is at work, if one is, and how often it was submitted on this cluster."""
    tries = {each.submission_id: each for each in jobs.all() if is_try(str(each.submission_id), base)}
    at_work = [str(name) for name, each in tries.items() if not each.status.is_terminal()]
    return (at_work[0] if at_work else None), max((number_of(str(name), base) for name in tries), default=0)


def is_try(name: str, base: str) -> bool:
    return name == base or re.fullmatch(re.escape(base) + r"-\d+", name) is not None


def number_of(name: str, base: str) -> int:
    return 1 if name == base else int(name.removeprefix(f"{base}-"))


def submit(jobs: Jobs, shipment: Shipment, line: str) -> Submitted:
    """The job that runs this, new or at work already. Raises RelabelError."""
    base = base_id(shipment, line)
    at_work, tries = find_job(jobs, base)
    if at_work is not None:
        return Submitted(at_work, True, line)
    name = base if tries == 0 else f"{base}-{tries + 1}"
    with tempfile.TemporaryDirectory(prefix="relabel-") as folder:
        shipment.write(Path(folder))
        environment: dict[str, Any] = {
            "working_dir": folder,
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        try:
            jobs.submit(entrypoint=line, submission_id=name, runtime_env=environment, metadata=metadata(shipment))
        except SubmittedBefore:
            other, _ = find_job(jobs, base)
            return Submitted(other or name, True, line)
    return Submitted(name, False, line)


def metadata(shipment: Shipment) -> Mapping[str, str]:
    """What the dashboard shows of the job; of the owner's, too, where the recipe names one."""
    meta = getattr(shipment.recipe, "meta", None)
    owner = (
        {} if meta is None else {f"relabel/{name}": str(value) for name, value in meta.model_dump().items() if value}
    )
    return {"relabel": __version__, "recipe": shipment.recipe.name, "store": shipment.recipe.store.url, **owner}
