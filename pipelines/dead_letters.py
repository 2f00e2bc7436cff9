"""Dead letters: the one place where any exception becomes a reason, so that a bad sample costs one sample."""

from collections.abc import Callable
from typing import TypeVar

from relabel.errors import BadSample, DeviceFailed, RelabelError
from relabel.reasons import Reason

Result = TypeVar("Result")

DETAIL_CHARACTERS = 500


def attempt(work: Callable[[], Result]) -> Result | BadSample:
    """What `work` returns, or why it cannot.

    relabel's own errors other than BadSample (the store, the recipe, a broken contract), a failing device and a full
    memory are nobody's sample: they pass through and stop the run.
    """
    try:
        return work()
    except BadSample as error:
        return error
    except (RelabelError, MemoryError):
        raise
    except Exception as error:
        if is_device_failure(error):
            raise DeviceFailed(
                f"the device failed: {str(error).partition(chr(10))[0]} Lower resources.compute_batch if it is out of "
                "memory; finished shards are kept, run again to go on."
            ) from error
        detail = f"{type(error).__name__}: {error}"
        return BadSample(Reason.OPERATOR_ERROR, detail[:DETAIL_CHARACTERS])


def is_device_failure(error: Exception) -> bool:
    """Whether torch says that the accelerator, not the sample, is at fault; without importing torch."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "AcceleratorError"}) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )
