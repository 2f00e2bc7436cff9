"""Dead letters: the one place where any exception becomes a reason, so that a bad sample costs one sample."""

from collections.abc import Callable
from typing import TypeVar

from relabel.errors import BadSample, StorageError, UsageError
from relabel.reasons import Reason

Result = TypeVar("Result")

DETAIL_CHARACTERS = 500


def attempt(work: Callable[[], Result]) -> Result | BadSample:
    """What `work` returns, or why it cannot; errors of the store or the recipe are nobody's sample and pass through."""
    try:
        return work()
    except BadSample as error:
        return error
    except (StorageError, UsageError, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        return BadSample(Reason.OPERATOR_ERROR, detail[:DETAIL_CHARACTERS])
