"""The programs: recipe, plan, graph, run, command line. `run(recipe)` is the way in from Python and notebooks."""

import atexit
import gc
from typing import Any

# The interpreter of a process that ends looks through every object for cycles, 0.1 s of a command's and up to 0.8 s of
# a model actor's CPU time, for memory that the system takes back anyway.
atexit.register(gc.freeze)


def __getattr__(name: str) -> Any:
    """`run` and `load`, imported when asked for, so that `--help` does not wait for Ray."""
    if name == "run":
        from .running import run

        return run
    if name == "load":
        from .loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
