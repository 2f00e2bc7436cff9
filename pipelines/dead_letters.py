"""Dead letters: the one place where any exception becomes a reason, so that a bad sample costs one sample."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from relabel.errors import BadSample, DeviceFailed, DeviceFull, RelabelError
from relabel.labelers.failures import described, is_device_failure, is_out_of_memory
from relabel.reasons import Reason

Result = TypeVar("Result")


def attempt(work: Callable[[], Result], module: str = "") -> Result | BadSample:
    """What `work` returns, or why it cannot; with the line of `module` (an operator of the user's own) that raised.

    An operator that would leave the process (SystemExit) has raised, too.

    relabel's own errors other than BadSample (the store, the recipe, a broken contract), a failing device and a full
    memory are nobody's sample: they pass through.
    """
    try:
        return work()
    except (Exception, SystemExit) as error:
        return blamed(error, module)


async def attempt_async(work: Awaitable[Result], module: str = "") -> Result | BadSample:
    """As `attempt`, of what is awaited."""
    try:
        return await work
    except (Exception, SystemExit) as error:
        return blamed(error, module)


def blamed(error: Exception | SystemExit, module: str) -> BadSample:
    """Why a sample has no label; raises what is nobody's sample."""
    if isinstance(error, BadSample):
        return error
    if isinstance(error, RelabelError):
        raise error
    first = str(error).partition("\n")[0]
    if is_out_of_memory(error):
        raise DeviceFull(
            f"out of memory: {first or 'MemoryError'} Lower resources.compute_batch or part_rows; finished shards "
            "are kept, run again to go on."
        ) from error
    if is_device_failure(error):
        raise DeviceFailed(f"the accelerator failed: {first}") from error
    return BadSample(Reason.OPERATOR_ERROR, described(error, module))
