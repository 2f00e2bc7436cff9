"""Guards: what is wrong with a generated text, if anything. Pure functions of the text, and of what it answers.

Every guard rejects (the engine is asked again, see `styles.Rung`), flags (the text stays, and says so) or is off.

| flag | the rule |
|---|---|
| empty | no letter and no digit; always rejected |
| cut | the finish reason is not `stop`: the tokens ran out, or a filter stepped in |
| over_budget | more tokens than the text encoder reads, its marks included (`text_tokens`) |
| repetition | a phrase follows itself, a sentence or a run of characters comes again and again (`loops`) |
| refusal | declines or apologises in the first person, or asks for an image; not in quotes (`refusals`) |
| prompt_echo | six words of the instructions in a row, or a preamble ("Sure, here is a caption:") (`phrases`) |
| markup | tags, entities, chat tokens, turns, markdown, links, JSON, escapes, invisible characters (`phrases`) |
| language | another script, or another language that the detector is sure of; never by words if there are but three |
| copies_old | the words of the old caption, 85 % of both in one order; of an old caption of four words or more |
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ..labels.caption import Flag
from .labeler import Parameters
from .languages import other_language
from .loops import loop_in
from .phrases import echo_in, markup_in, words_of
from .refusals import refusal_in
from .text_tokens import Count, estimated

Action = Literal["reject", "flag", "off"]

ALIKE = 0.85
"""Of the words of old and new caption together, those that stand in both in one order."""
FEW_WORDS = 3
"""An old caption of so few words is copied by chance."""
MAX_COMPARED = 512
"""Words: comparing takes time that grows with their square."""


class Guards(Parameters):
    """What becomes of a text with each flag: `reject`, `flag` or `off`."""

    empty: Literal["reject"] = "reject"
    cut: Action = "reject"
    over_budget: Action = "flag"
    repetition: Action = "reject"
    refusal: Action = "reject"
    prompt_echo: Action = "reject"
    markup: Action = "reject"
    language: Action = "reject"
    copies_old: Action = "flag"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A generated text, and what guards may know of it."""

    text: str
    """Tidied (see `tidied`)."""
    raw: str = ""
    """As the engine gave it; empty: as `text`."""
    finish_reason: str = "stop"
    instructions: Sequence[str] = ()
    """The fixed words of the prompt."""
    old: str = ""
    """The old caption; empty where there is none."""
    language: str | None = None
    """That was asked for; None: any."""
    budget: int | None = None
    """Tokens that a text encoder reads; None: any number."""
    count: Count = estimated
    """How tokens are counted."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one guard found."""

    flag: Flag
    reason: str
    """In a few words, for people."""
    rejects: bool


def tidied(raw: str) -> str:
    """All that is done to a text: space around it is taken off, runs of space and line breaks become one space."""
    return " ".join(raw.split())


def examine(guards: Mapping[Flag, Action], answer: Answer) -> list[Finding]:
    """What the guards that are not off find, in their order; an empty text is nothing else."""
    found = []
    for flag, action in guards.items():
        reason = RULES[flag](answer) if action != "off" else None
        if reason is not None:
            found.append(Finding(flag, reason, action == "reject"))
        if found and found[0].flag is Flag.EMPTY:
            break
    return found


def actions_of(guards: Guards) -> dict[Flag, Action]:
    return {flag: getattr(guards, flag.value) for flag in RULES}


def empty(answer: Answer) -> str | None:
    return None if any(map(str.isalnum, answer.text)) else "has no letter and no digit"


def cut(answer: Answer) -> str | None:
    ends = {"stop": None, "length": "was cut off where its tokens were used up"}
    return ends.get(answer.finish_reason, "was ended by something other than the model")


def over_budget(answer: Answer) -> str | None:
    if answer.budget is None or (tokens := answer.count(answer.text)) <= answer.budget:
        return None
    return f"takes {tokens} tokens of a text encoder that reads {answer.budget}"


def repetition(answer: Answer) -> str | None:
    return loop_in(answer.text)


def refusal(answer: Answer) -> str | None:
    return refusal_in(answer.text)


def prompt_echo(answer: Answer) -> str | None:
    return echo_in(answer.text, answer.instructions)


def markup(answer: Answer) -> str | None:
    return markup_in(answer.raw or answer.text)


def language(answer: Answer) -> str | None:
    return None if answer.language is None else other_language(answer.text, answer.language)


def copies_old(answer: Answer) -> str | None:
    old, new = (words_of(each)[:MAX_COMPARED] for each in (answer.old, answer.text))
    if len(old) <= FEW_WORDS:
        return None
    share = difflib.SequenceMatcher(None, old, new, autojunk=False).ratio()
    return f"has {share:.0%} of its words in common with the old caption" if share >= ALIKE else None


RULES: Mapping[Flag, Callable[[Answer], str | None]] = {
    Flag.EMPTY: empty,
    Flag.CUT: cut,
    Flag.OVER_BUDGET: over_budget,
    Flag.REPETITION: repetition,
    Flag.REFUSAL: refusal,
    Flag.PROMPT_ECHO: prompt_echo,
    Flag.MARKUP: markup,
    Flag.LANGUAGE: language,
    Flag.COPIES_OLD: copies_old,
}
"""By flag; each gives a reason, or None."""


def told(findings: Iterable[Finding]) -> str:
    """`refusal (says "I'm sorry"), cut (...)`."""
    return ", ".join(f"{each.flag} ({each.reason})" for each in findings)
