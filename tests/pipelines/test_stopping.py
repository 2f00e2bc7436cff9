"""Stopping: a request breaks the wait for the next event, wherever the signal comes."""

import time
import weakref
from collections.abc import Iterator

from pipelines.stopping import StopRequest

WAIT_SECONDS = 30.0


class Thing:
    """What has callbacks."""


def test_a_request_breaks_the_wait_for_an_event() -> None:
    stop, begun = StopRequest(), time.monotonic()

    def events() -> Iterator[int]:
        yield 1
        stop.make("a test")
        time.sleep(WAIT_SECONDS)
        yield 2

    with stop.heard():
        assert list(stop.until_stopped(events())) == [1]
    assert time.monotonic() - begun < WAIT_SECONDS


def test_a_request_in_a_callback_of_the_interpreter_is_not_lost() -> None:
    stop, begun = StopRequest(), time.monotonic()

    def called_back(_: object) -> None:
        stop.make("a test")
        time.sleep(0.01)  # here the handler runs, and raises what no callback lets out

    def events() -> Iterator[int]:
        yield 1
        thing = Thing()
        held = weakref.ref(thing, called_back)
        del thing
        assert held() is None
        time.sleep(WAIT_SECONDS)
        yield 2

    with stop.heard():
        assert list(stop.until_stopped(events())) == [1]
    assert time.monotonic() - begun < WAIT_SECONDS
    assert stop.by == "a test"
