"""Tuning devices: one alone in this process, or several: a process for each, which Ray Train starts, that tune as one.

What one of them refuses is raised here as if it were alone. Where one dies all end, and the same command goes on.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.queue import Empty, Queue

from relabel.errors import DeviceFailed, RelabelError, UsageError

from .cluster import Session
from .recipe import ActorRange, Resources
from .stopping import Stopped, StopRequest
from .tuning import Tuned, check_output, tune
from .tuning_group import TorchGroup
from .tuning_loop import Say
from .tuning_recipe import Training, TuningRecipe

POLL_SECONDS = 1.0
"""Between two looks whether the processes have ended."""
ENDING_SECONDS = 10.0
"""For processes that were told to end; Ray's shutdown ends what is left."""
COLLECTIVE_SECONDS = 24 * 3600
"""The longest that devices wait for each other, as for the first one's look. Ray Train sees sooner that one is dead."""
NUM_STARTS = 5
"""How often a cluster that is busy is asked for its devices, a minute each."""
SAID_CHARACTERS = 300
GO_ON = "The same command goes on from the last checkpoint."


def tune_on_devices(recipe: TuningRecipe, say: Say = lambda line: None, address: str | None = None) -> Tuned:
    """As `tune`, on the devices of this machine or of the cluster at `address`; one device here needs no Ray.

    Also raises UsageError where there are fewer than the recipe says, DeviceFailed where a process died or failed
    without a reason of ours, and Stopped after SIGTERM.
    """
    size = recipe.train.devices or max(1, torch.cuda.device_count())
    if size == 1 and address is None:
        return tune(recipe, say)
    check_output(Path(recipe.output))
    resources = Resources(actors=ActorRange(min=size, max=size), threads=recipe.train.threads)
    with Session(resources, 1, address).connected():
        return tune_together(recipe, say)


def tune_together(recipe: TuningRecipe, say: Say) -> Tuned:
    """On the connected cluster."""
    tuned: Tuned | None = None
    events = Queue(actor_options={"num_cpus": 0})
    workers: list[Any] = []
    with StopRequest().heard() as request, begun(recipe, events, workers) as fitting:
        for event in request.until_stopped(heard(events, fitting)):
            if isinstance(event, RelabelError):
                raise event
            if isinstance(event, Tuned):
                tuned = event
            elif isinstance(event, str):
                say(event)
            else:
                workers.append(event)
        if request.made:
            raise Stopped(f"the tuning was ended by {request.by}. {GO_ON}")
        raise_failure(fitting)
    assert tuned is not None
    return tuned


@contextlib.contextmanager
def begun(recipe: TuningRecipe, events: Queue, workers: list[Any]) -> Iterator[Future[Any]]:
    """Inside, the processes tune; afterwards they have ended, whatever ends it."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    thread = ThreadPoolExecutor(1, "train")
    with tempfile.TemporaryDirectory(prefix="relabel-train-") as folder:
        trainer = TorchTrainer(
            work,
            train_loop_config={"recipe": recipe.model_dump_json(), "folder": str(Path.cwd()), "events": events},
            torch_config=TorchConfig(timeout_s=COLLECTIVE_SECONDS),
            scaling_config=scaling(recipe.train),
            run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees those of version 1
                name="tuning",
                storage_path=folder,
                failure_config=FailureConfig(controller_failure_limit=NUM_STARTS),  # type: ignore[call-arg]
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
        )
        fitting = thread.submit(trainer.fit)
        try:
            yield fitting
        finally:
            events.shutdown(force=True)
            for worker in workers:
                ray.kill(worker)
            wait([fitting], ENDING_SECONDS)
            thread.shutdown(wait=False)


def scaling(train: Training) -> Any:
    """Raises UsageError where the connected cluster has too few devices."""
    from ray.train import ScalingConfig

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_gpus = int(total.get("GPU", 0))
    size = train.devices or max(1, num_gpus)
    kind, each = ("GPU", 1) if num_gpus else ("CPU", train.threads)
    if size * each > total.get(kind, 0):
        raise UsageError(
            f"train.devices: {size} processes need {size * each} {kind}s, the cluster has {total.get(kind, 0):g}: "
            "lower train.devices" + ("." if num_gpus else " or train.threads.")
        )
    return ScalingConfig(num_workers=size, use_gpu=num_gpus > 0, resources_per_worker={kind: each})


def work(config: dict[str, Any]) -> None:
    """What each process does; `events` hears of its actor, of what is said, and of how it ended."""
    events = config["events"]
    events.put(ray.get_runtime_context().current_actor)
    # A recipe's relative paths are those of the command; Ray Train begins elsewhere.
    with contextlib.suppress(FileNotFoundError):
        os.chdir(config["folder"])
    group = TorchGroup()
    try:
        recipe = TuningRecipe.model_validate_json(config["recipe"])
        tuned = tune(recipe, events.put if group.rank == 0 else lambda line: None, group)
    except RelabelError as error:
        events.put(error)
        raise
    if group.rank == 0:
        events.put(tuned)


def heard(events: Queue, fitting: Future[Any]) -> Iterator[Any]:
    """What the processes put there, until they have ended and nothing is left."""
    while True:
        ended = fitting.done()
        try:
            yield events.get(timeout=0.01 if ended else POLL_SECONDS)
        except Empty:
            if ended:
                return


def raise_failure(fitting: Future[Any]) -> None:
    """Raises DeviceFailed where the processes did not end well."""
    from ray.train import TrainingFailedError

    try:
        fitting.result()
    except TrainingFailedError as error:
        raise DeviceFailed(f"the tuning failed: {told(error)}. {GO_ON}") from error


def told(error: Exception) -> str:
    """Of the processes that died, else of all that failed, what happened: others fail because these do."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", None) or {}
    if dead := sorted(rank for rank, failure in failures.items() if type(failure).__module__.startswith("ray.")):
        devices = ", ".join(str(rank + 1) for rank in dead)
        return f"the process of device {devices} died (killed, or out of memory)"
    if failures:
        return "; ".join(f"device {rank + 1}: {first_line(failure)}" for rank, failure in sorted(failures.items()))
    return first_line(getattr(error, "controller_failure", error))


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:SAID_CHARACTERS]}"
