"""The cluster: a local Ray for one machine, or a running one; and what of it a run will use."""

import contextlib
import dataclasses
import importlib
import logging
import os
import pickle
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig

from relabel.digests import Json
from relabel.errors import UsageError
from relabel.labelers.labeler import Labeler
from relabel.labelers.provenance import SCRIPT, digests

from .fullness import failed_start, require_room
from .recipe import ActorRange, Resources

# Large activations are mmap'ed and unmapped per operation by default, which halves the rate of CPU models. Ray calls a
# model in a thread, whose own arena gives back every 64 MiB heap that is empty: one arena for all is 13 % faster.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# A local Ray ends every worker above one per CPU that was idle for a second, and its successor imports all again.
LASTING = {"RAY_idle_worker_killing_time_threshold_ms": "600000"}
CLIENT = "ray://"
NUM_READERS = 2
"""For which a local Ray has room beside the actors."""


class Session:
    """The Ray of one run: the one that this process already has, a running cluster, or a fresh local one."""

    def __init__(
        self,
        resources: Resources,
        num_pools: int,
        address: str | None = None,
        plugins: Sequence[str] = (),
        meta: Mapping[str, str] | None = None,
    ) -> None:
        """`num_pools` is the number of actor pools; workers import `plugins` as this process does; `meta` says whose
        the job is. Raises UsageError where `address` is one for Ray's client.
        """
        if address is not None and address.startswith(CLIENT):
            raise UsageError(
                f"Ray Data does not work through Ray's client ({address}). Submit the recipe as a job of that cluster "
                "(`relabel submit RECIPE --address http://HEAD:8265 --follow`), or run it on one of its machines with "
                "--address auto."
            )
        self.meta = dict(meta or {})
        self.resources, self.num_pools, self.address, self.plugins = resources, num_pools, address, plugins
        # What starts Ray must live as long: the kernel ends Ray's processes with the thread that started them.
        self._thread = ThreadPoolExecutor(1, "ray")
        self._ahead: Future[None] | None = None
        self._started = False
        self._hushed = contextlib.ExitStack()

    def start_ahead(self, imports: Callable[[], None]) -> None:
        """Begin to start beside other work, workers and their `imports` too; `connected` waits, `close` ends it."""
        if not ray.is_initialized():
            self._hush()
            self._ahead = self._thread.submit(self._start_warm, imports)

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Inside, there is a Ray; what was started for it is shut down afterwards."""
        if ray.is_initialized() and self._ahead is None:
            require_plugins(self.plugins)
            yield
            return
        with contextlib.closing(self):
            if self._ahead is None:
                self._hush()
                self._start()
            else:
                self._ahead.result()
            yield

    def close(self) -> None:
        """Shut down what was started here, if anything was."""
        if self._ahead is not None:
            wait([self._ahead])
        if self._started:
            ray.shutdown()
            self._started = False
        self._thread.shutdown()
        self._hushed.close()

    def _hush(self) -> None:
        """Ray prints what it thinks of lost nodes on standard output, where our answer goes."""
        self._hushed.enter_context(contextlib.redirect_stdout(sys.stderr))

    def _start(self) -> None:
        self._started = True
        os.environ.update({name: value for name, value in {**QUIET, **LASTING}.items() if name not in os.environ})
        if not os.environ.get("RELABEL_DEBUG"):
            # Ray logs a failed task's traceback before it raises it; the error that is raised says it once.
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        if self.address is not None:
            join(self.address, self.plugins, self.meta)
            return
        require_room()
        try:
            start_local(self.resources, self.num_pools, self.plugins, self.meta)
        except (OSError, RayError) as error:
            raise failed_start(error) from error

    def _start_warm(self, imports: Callable[[], None]) -> None:
        self._start()
        warm = ray.remote(num_cpus=0)(imports)
        for _ in range(self.num_pools + NUM_READERS):
            warm.remote()


def start_local(
    resources: Resources, pools: int, plugins: Sequence[str] = (), meta: Mapping[str, str] | None = None
) -> None:
    """One machine; enough logical CPUs for the actors and two readers even where cores are few."""
    needed = pools * (resources.actors.max if resources.actors else 1) * resources.threads + NUM_READERS
    far = [name for name in plugins if name != SCRIPT and not nearby(name)]
    with inherited({**ALLOCATOR, "PYTHONPATH": os.pathsep.join(import_roots())}):
        ray.init(
            "local",
            num_cpus=max(len(os.sched_getaffinity(0)), needed),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": modules(far)} if far else None,
            job_config=JobConfig(metadata=dict(meta or {})),
        )


def nearby(name: str) -> bool:
    """Whether every Python that is started here imports this module as this process did: it lies where they look."""
    module = modules([name])[0]
    file = Path(str(module.__file__)).resolve()
    folder = file.parent.parent if hasattr(module, "__path__") else file.parent
    looked = [*import_roots(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return folder in {Path(each).resolve() for each in looked}


@contextlib.contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started inside have these variables, and so have all that they start.

    A runtime environment would do the same, but Ray starts some workers ahead, without one: they would never be used,
    and each that is would start Python twice.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def join(address: str, plugins: Sequence[str] = (), meta: Mapping[str, str] | None = None) -> None:
    """A running cluster; its workers get this code and the plugins, whatever is installed there."""
    try:
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": ALLOCATOR, "py_modules": places([*shipped_modules(), *plugins])},
            job_config=JobConfig(metadata=dict(meta or {})),
        )
    except ConnectionError as error:
        raise UsageError(
            f"no Ray cluster answers at {address!r} ({error}); start one with `ray start --head`."
        ) from None


def require_travels(labelers: Sequence[Labeler[Any]]) -> None:
    """Raises UsageError where an operator of the user's own cannot be sent to an actor."""
    for labeler in labelers:
        try:
            ray.cloudpickle.dumps(labeler)  # type: ignore[no-untyped-call]
        except (AttributeError, TypeError, ValueError, pickle.PickleError) as error:
            raise UsageError(
                f"the labeler {labeler.name!r} cannot travel to its actors ({str(error).partition(chr(10))[0]}). Keep "
                "locks, open files and models out of __init__: `load` is their place."
            ) from error


def modules(names: Sequence[str]) -> list[ModuleType]:
    """As this process has imported them, whole packages; a class of a script travels by value."""
    return [importlib.import_module(name.partition(".")[0]) for name in names if name != SCRIPT]


def places(names: Sequence[str]) -> list[str]:
    """Their files or folders. In a job Ray copies what it is given, and no module can be copied."""
    found = modules(names)
    return [str(module.__path__[0] if hasattr(module, "__path__") else module.__file__) for module in found]


def require_plugins(names: Sequence[str]) -> None:
    """Raises UsageError where a Ray that was started before has workers without these modules, or with other ones."""
    names = [name for name in names if name != SCRIPT]
    if not names:
        return
    probe = ray.remote(num_cpus=0)(sources)
    here, there = sources(names), ray.get(probe.remote(names))
    if wrong := [name for name in names if here[name] != there[name]]:
        what = "cannot import" if there[wrong[0]] is None else "imports another"
        raise UsageError(
            f"the Ray of this process was started without the plugins of the recipe, and {what} {wrong[0]!r}. Let "
            f"`run` start it, or call ray.init(runtime_env={{'py_modules': [{', '.join(wrong)}]}})."
        )


def sources(names: Sequence[str]) -> dict[str, Json]:
    """Module -> its files' digests as this process would import it, None where it cannot."""
    found: dict[str, Json] = {}
    for name in names:
        try:
            found[name] = digests(importlib.import_module(name))
        except ImportError:
            found[name] = None
    return found


def shipped_modules() -> list[str]:
    """The library, and the programs where they are a package of their own (the checkout)."""
    programs = __package__ or "pipelines"
    return ["relabel"] if programs.startswith("relabel.") else ["relabel", programs]


def import_roots() -> list[str]:
    """The folders from which this process imports the library and the programs; local workers use the same."""
    roots = [str(Path(str(sys.modules[name].__file__)).resolve().parent.parent) for name in shipped_modules()]
    return list(dict.fromkeys([*roots, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))


@dataclasses.dataclass(frozen=True)
class Pool:
    """The actors of one step."""

    least: int
    most: int
    gpus: float
    """Per actor."""
    readers: int = 1
    """Shards read at a time, where there are as many."""


def actor_pool(resources: Resources, pools: int, shards: int) -> Pool:
    """What each of so many pools may have on the connected cluster, and no more actors than there are shards.

    Raises UsageError where the cluster cannot hold the least of them beside one reader.
    """
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_gpus, num_cpus = total.get("GPU", 0.0), total.get("CPU", 0.0)
    gpus = resources.gpus if resources.gpus is not None else float(num_gpus > 0)
    fitting = max(1, int(num_gpus / gpus / pools)) if gpus else 1
    wanted = resources.actors or ActorRange(min=fitting, max=fitting)
    actors, most = min(wanted.min, shards), min(wanted.max, shards)  # more would load weights and wait
    if gpus and pools * actors * gpus > num_gpus:
        raise UsageError(
            f"{pools} pools x {actors} actors x {gpus:g} GPUs need {pools * actors * gpus:g}, "
            f"the cluster has {num_gpus:g}: lower resources.actors or resources.gpus."
        )
    needed = (0 if gpus else pools * actors * resources.threads) + 1
    if needed > num_cpus:
        raise UsageError(
            f"{pools} pools x {actors} actors x {resources.threads} threads and a reader need {needed:g} "
            f"CPUs, the cluster has {num_cpus:g}: lower resources.actors or resources.threads."
        )
    return Pool(actors, most, gpus, resources.readers or max(1, int(num_cpus - needed) + 1))
