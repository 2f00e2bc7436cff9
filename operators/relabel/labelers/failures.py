"""Failures: what somebody's own code raised, as one sentence with its file and line."""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

from ..errors import RelabelError

OWN_CODE_ERRORS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, NameError,
                   OSError, RuntimeError, SyntaxError, SystemExit, TypeError, ValueError)  # fmt: skip
"""What somebody's code may raise."""


def place_of(error: BaseException, module: str) -> str:
    """`brightness.py:28`: the innermost line of the module's package that raised; empty where none did."""
    package = module.partition(".")[0]
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return f"{frames[-1][0].replace(chr(92), '/').rpartition('/')[2]}:{frames[-1][1]}" if frames else ""


def described(error: BaseException, module: str) -> str:
    """`KeyError: 'img' (brightness.py:28)`."""
    place = place_of(error, module)
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device or of the machine; without importing torch, whose CPU allocator raises a RuntimeError."""
    return (
        isinstance(error, MemoryError) or "OutOfMemoryError" in names_of(error) or "can't allocate memory" in str(error)
    )


def is_device_failure(error: BaseException) -> bool:
    """Whether torch says that the accelerator is at fault, and every later call will fail; without importing torch."""
    return "AcceleratorError" in names_of(error) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def names_of(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


@contextlib.contextmanager
def calling(cls: type[Any], method: str) -> Iterator[None]:
    """Raises RelabelError, naming operator, method and line, for whatever an operator's own code did not foresee."""
    try:
        yield
    except RelabelError:
        raise
    except OWN_CODE_ERRORS as error:
        raise RelabelError(
            f"{cls.__name__}.{method} of the operator {cls.name!r} raised {described(error, cls.__module__)}. Mend the "
            "operator; relabel.testing.check_labeler tells which rule it breaks, RELABEL_DEBUG=1 shows the traceback."
        ) from error
