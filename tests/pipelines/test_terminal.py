"""The terminal: what captions, reasons and messages hold is seen there, and does nothing."""

import argparse

import pytest

from pipelines.command_line import report
from pipelines.logs import tell
from pipelines.terminal import say, table
from relabel.errors import UsageError

HOSTILE = "\x1b[2J\x1b]0;owned\x07 a\u202eb \x9b31m"
SEEN = "\\u001b[2J\\u001b]0;owned\\u0007 a\\u202eb \\u009b31m"


def test_no_text_works_the_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELABEL_LOG", "text")
    say("a\tb", HOSTILE)
    table([("key", "why"), ("1", HOSTILE)])
    tell("event", [HOSTILE], {})
    report(argparse.Namespace(json=False), UsageError(HOSTILE))
    out, err = capfd.readouterr()
    assert out.startswith(f"a\tb\n{SEEN}\n")
    assert (out + err).count(SEEN) == 4
    assert not set(out + err) & set("\x1b\x07\x9b\u202e")
