"""The programs: recipe, plan, graph, run, command line. `run(recipe)` is the way in from Python and notebooks."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`run` and `load`, imported when asked for, so that `--help` does not wait for Ray."""
    if name == "run":
        from .running import run

        return run
    if name == "load":
        from .loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
