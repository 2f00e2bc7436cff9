"""Ray's errors: what a worker raised, as this package says it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.exceptions import RayError

from relabel.errors import RelabelError

from .fullness import out_of_room

RAY_ADVICE = "\nFailed to apply UDF transform"


@contextlib.contextmanager
def ray_errors() -> Iterator[None]:
    """Turns Ray's errors into ours: the RelabelError that a worker raised, else what failed and what to do."""
    try:
        yield
    except RayError as error:
        root = root_cause(error)
        if isinstance(root, RelabelError):
            root.args = tuple(without_advice(each) for each in root.args)
            raise root from error
        if (full := out_of_room(root)) is not None:
            raise full from error
        what = (str(root).strip().splitlines() or [""])[0]
        raise RelabelError(
            f"the run stopped: {type(root).__name__}: {what} Finished shards are kept; run again to go on. "
            "(RELABEL_DEBUG=1 shows the traceback.)"
        ) from error


def without_advice(argument: Any) -> Any:
    """A message without what Ray Data appends to it about its own retries."""
    return argument.partition(RAY_ADVICE)[0] if isinstance(argument, str) else argument


def root_cause(error: BaseException) -> BaseException:
    """What a worker raised, below the wrappers that Ray puts around it."""
    while True:
        below = getattr(error, "cause", None) or error.__cause__
        if not isinstance(below, BaseException):
            return error
        error = below
