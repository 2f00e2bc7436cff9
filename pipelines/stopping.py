"""Stopping: SIGTERM (a spot node that goes, a cluster that shuts down, `kill`) or `relabel stop` ends a run between two
events.

No new work is begun, what is about to be finished is finished, and running again goes on from there.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

from relabel.errors import RelabelError

GRACE_SECONDS = 20.0
"""For what is in flight. Clusters give 30 s between SIGTERM and SIGKILL."""

T = TypeVar("T")


class Stopped(RelabelError):
    """The run was asked to stop; the message says what is kept."""


class _Requested(BaseException):
    """Breaks a wait for the next event."""


class StopRequest:
    """Whether this run was asked to stop; a wait inside `until_stopped` is broken, nothing else is."""

    def __init__(self) -> None:
        self.made = False
        self.by = "SIGTERM"
        """Who asked."""
        self.error: RelabelError | None = None
        """Why the run may not even publish what is finished."""
        self._waiting = False

    def make(self, by: str, error: RelabelError | None = None) -> None:
        """Ask from another thread of this process."""
        self.by, self.error, self.made = by, error, True
        self._signal()

    def require_none_forbids(self) -> None:
        """Raises the error for which the run may not go on, where there is one."""
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def heard(self) -> Iterator["StopRequest"]:
        """SIGTERM is a request from now on; in a thread other than the main one nothing can be heard.

        Ray's start replaces whatever handler there is by one that aborts: listen after it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before, hook = signal.signal(signal.SIGTERM, self._hear), sys.unraisablehook
        sys.unraisablehook = lambda lost: self._raise_again() if lost.exc_type is _Requested else hook(lost)
        try:
            yield self
        finally:
            sys.unraisablehook = hook
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: something that is not Python's

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.made = True
        if self._waiting:
            self._waiting = False
            raise _Requested

    def _raise_again(self) -> None:
        """Where the signal came in a callback of the interpreter, which lets no exception out: in a moment."""
        self._waiting = True
        threading.Timer(0.01, self._signal).start()

    def _signal(self) -> None:
        main = threading.main_thread().ident
        if main is not None and signal.getsignal(signal.SIGTERM) == self._hear:
            signal.pthread_kill(main, signal.SIGTERM)

    def until_stopped(self, events: Iterator[T]) -> Iterator[T]:
        """The events, up to the request."""
        while not self.made:
            try:
                self._waiting = True
                event = next(events)
                self._waiting = False
            except (StopIteration, _Requested):
                return
            finally:
                self._waiting = False
            yield event
