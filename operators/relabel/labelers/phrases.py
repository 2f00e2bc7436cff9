"""Phrases: what is left of prompts and markup in a text. Rules for `guards.prompt_echo` and `guards.markup`."""

import json
import re
from collections.abc import Sequence

from .loops import WORD
from .prompts import is_hidden

KIND = r"(?:captions?|descriptions?|alt texts?|summar(?:y|ies)|answers?|responses?|rewrites?|sentences?|versions?)"
MANNER = r"(?:short|long|brief|detailed|new|old|image|alt|one-sentence|final|fused|merged|possible|suggested|requested)"
ASK = r"(?:describe|caption|write|summari[sz]e|generate|rewrite|answer|reply with|give|merge|combine|use)"
WHOM = r"(?:(?:me|us|only|the|this|an?|one|in|both|your)\b\s*)+"
PICTURE = r"(?:images?|pictures?|photo\w*|words?)"

PREAMBLES = re.compile(
    "|".join(
        (
            r"^\W*(?:sure|certainly|of course|absolutely|okay|ok|great|gladly)\b(?:\s*[,!.:;—]|\s[-–]\s)",
            rf"^\W*here(?:'s| is| are)? (?:(?:the|a|an|your|my|one|some) )?(?:[\w-]+ ){{0,4}}?{KIND}\b",
            rf"^\W*(?:{MANNER} )*(?:{KIND}|outputs?|prompts?|instructions?|questions?|tasks?|results?)(?: \d+)?\s*[:=]",
            rf"^\W*the (?:{MANNER} )?(?:caption|alt text|description) (?:is|reads?|should be|could be|would be|must)\b",
            r"\b(?:the|this|your|my) (?:prompt|instructions?)\b.{0,20}\b(?:asks?|says?|is|was|requires?|above|below)\b",
            r"\b(?:as|like) (?:you )?(?:requested|instructed|asked)\b",
            r"\bas per (?:your|the) (?:request|instructions?)\b",
            rf"^\W*{ASK} {WHOM}(?:[\w-]+ ){{0,4}}?(?:{PICTURE}|{KIND})\b",
        )
    ),
    re.IGNORECASE,
)
"""Talk about the task, mostly at the beginning: "Sure! Here is a caption:", "Describe this image"."""
RUN = 6
"""Words of the instructions in a row that no caption has by chance."""
WHOLE = 4
"""Words from which an instruction that comes back whole is an echo, though it is shorter than that."""

TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<!--|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});", re.IGNORECASE)
CHAT = re.compile(
    r"<\|[^|<>]{0,60}\|?>|<｜|\[/?INST\]|<</?SYS>>|\[(?:SEP|CLS|MASK|PAD|UNK|EOS|BOS|IMG|IMAGE)\]"
    r"|#{2,}\s*(?i:instruction|response|human|assistant|user|input|system)"
    r"|(?:^|\n)[^\S\n]*(?:[Uu]ser|[Aa]ssistant|[Ss]ystem|[Hh]uman|USER|ASSISTANT|SYSTEM|HUMAN)\s*:"
)
MARKDOWN = re.compile(
    r"```|(?:^|\n)\s{0,3}#{1,6} \S|\*\*[^*\n]+\*\*|__[^_\n]+__|!?\[[^\]\n]*\]\([^)\n]*\)"
    r"|(?:^|\n)[^\S\n]*[-*•] .*\n\s*[-*•] |(?:^|\n)[^\S\n]*\|.*\|.*\||(?:^|\n)[^\S\n]*1[.)] .*\n\s*2[.)] "
)
LINK = re.compile(
    r"\bhttps?://|\bwww\.\w|\b\w+\.(?:jpe?g|png|gif|webp|bmp|tiff?|html?|php)\b|[\w.]@\w+\.\w{2,}", re.IGNORECASE
)
ESCAPE = re.compile(r"\\(?:[ntr\"]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
STRUCTURE = re.compile(
    r"\{\s*[\"']?\w+[\"']?\s*:|\[\s*[\"'{\[]|[\"']\s*:\s*[\"'\[{]|\}\s*[,\]}]|^\s*[{\[].*[}\]]\s*$", re.DOTALL
)
MARKS = {
    "a chat token or a turn": CHAT,
    "a tag or an entity": TAG,
    "markdown": MARKDOWN,
    "a link or a file name": LINK,
    "an escape sequence": ESCAPE,
    "JSON or code": STRUCTURE,
}
REPLACEMENT = "\ufffd"
"""What stands for bytes that are not UTF-8."""


def echo_in(text: str, instructions: Sequence[str]) -> str | None:
    """What of the task came back, as a reason: its words, or talk about it. None where nothing did."""
    if found := PREAMBLES.search(text.replace("’", "'")):
        return f"speaks of its task: {found[0].strip()!r}"
    said = words_of(text)
    runs = {tuple(said[start : start + RUN]) for start in range(len(said) - RUN + 1)}
    for instruction in instructions:
        own = words_of(instruction)
        whole = " ".join(own)
        if WHOLE <= len(own) < RUN and f" {whole} " in f" {' '.join(said)} " and len(said) < 2 * len(own):
            return f"repeats {whole!r}"
        for start in range(len(own) - RUN + 1):
            if tuple(own[start : start + RUN]) in runs:
                return f"repeats {' '.join(own[start : start + RUN])!r}"
    return None


def words_of(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]


def markup_in(raw: str) -> str | None:
    """What is no language, of a text as the engine gave it, as a reason; None where all of it is."""
    for character in raw:
        if character == REPLACEMENT or (is_hidden(character) and character not in "\n\r\t"):
            return f"holds the character U+{ord(character):04X}"
    for name, pattern in MARKS.items():
        if found := pattern.search(raw):
            return f"holds {name}: {found[0].strip()[:40]!r}"
    return "is JSON" if is_json(raw) else None


def is_json(raw: str) -> bool:
    """An object or an array; a bare number, word or quoted text is none."""
    stripped = raw.strip()
    if stripped[:1] not in ("{", "["):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return False
    return True
