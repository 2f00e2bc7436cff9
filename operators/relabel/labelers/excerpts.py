"""Excerpts: as much of a long text as a prompt has room for: its beginning and its end.

Tokens are estimated, so that an excerpt is a function of the text alone, whatever model reads it.
"""

import dataclasses
import re

from ..shards.shard import Value

PIECES = re.compile(r"[A-Za-z]{1,8}|[^\W\d_]{1,2}|\d|[^\s\w]{1,3}|_{1,8}")
"""About a token each: a word of up to eight ASCII letters, two other letters, a digit, a run of signs. Of the BBC's
articles these are as many as SmolLM2's tokens within 6 %."""
GAP = " … "
MOST_CHARACTERS = 24
"""Per token, of what is looked at on either side: more is blank or hidden."""


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A text, or what is left of it."""

    text: str
    truncated: bool


def text_of(value: Value) -> str:
    """A field as text; bytes that are not UTF-8, and halves of characters, become U+FFFD or a question mark."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    return text.encode("utf-8", "replace").decode()


def both_ends(text: str, tokens: int) -> Excerpt:
    """What is looked at of a very long text, before anything else is done with it."""
    room = MOST_CHARACTERS * tokens
    if len(text) <= 2 * room:
        return Excerpt(text, False)
    return Excerpt(text[:room] + " " + text[-room:], True)


def excerpt(text: str, tokens: int, head: float) -> Excerpt:
    """At most so many tokens: `head` of them from the beginning, the others from the end, cut between words."""
    spans = [match.span() for match in PIECES.finditer(text)]
    if len(spans) <= tokens:
        return Excerpt(text, False)
    first = round(tokens * head)
    parts = [before(text, spans[first - 1][1])] if first else []
    if rest := tokens - first:
        parts.append(after(text, spans[len(spans) - rest][0]))
    return Excerpt(GAP.join(parts) if len(parts) > 1 else f"{parts[0]} …" if first else f"… {parts[0]}", True)


def before(text: str, end: int) -> str:
    """Up to `end`, or to the word before it."""
    kept = text[:end]
    inside = end < len(text) and not text[end].isspace() and " " in kept
    return (kept.rpartition(" ")[0] if inside else kept).rstrip()


def after(text: str, start: int) -> str:
    """From `start`, or from the next word."""
    kept = text[start:]
    inside = start > 0 and not text[start - 1].isspace() and " " in kept
    return (kept.partition(" ")[2] if inside else kept).lstrip()
