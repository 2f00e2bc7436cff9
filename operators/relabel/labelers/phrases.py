"""Phrases: what models say when they do not answer, and what is left of prompts and markup. Rules for `guards`.

A caption may speak of anybody's words ("a sign that reads 'Sorry, we are closed'"): what stands in quotes is looked at
by no rule about refusals.
"""

import json
import re
from collections.abc import Sequence

from .loops import WORD
from .prompts import is_hidden

QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|‘[^’]*’|(?<!\w)'[^']*'(?!\w)")
SEE = r"(?:see|view|describe|caption|identify|determine|assist|help|provide|process|access|analy[sz]e|generate|comply|fulfil\w*|create|answer|recogni[sz]e|tell|do that|make out|display|discuss|write|open|interpret|comment)"  # fmt: skip
REFUSALS = re.compile(
    "|".join(
        [
            r"^\W*(?:i(?:'|’)?m|i am|we(?:'|’)re|we are) (?:so |very |really |truly |terribly |deeply )?(?:sorry|afraid)\b",
            r"^\W*(?:sorry|apologies|my apologies|unfortunately)\b\W*(?:but|,|i\b|we\b|the image|this image|there is no|no\b)",
            r"\b(?:i|we) apologi[sz]e\b",
            rf"\bi(?:'|’)?(?:m| am)? (?:(?:can|could|do|may|must|will|would)(?:\s?not|n['’]?t)|unable to|not able to|not allowed to|not permitted to|not comfortable|refuse to|decline to|have to decline)\b",  # fmt: skip
            rf"\b(?:unable|not able|not possible|impossible) (?:for me )?to (?:{SEE})\b.{{0,40}}\b(?:image|picture|photo\w*|content|request|scene|file)\b",  # fmt: skip
            rf"\b(?:cannot|can['’]?t|could not|couldn['’]?t) (?:be (?:described|displayed|determined|processed|loaded|identified|provided)|{SEE})\b.{{0,40}}\b(?:image|picture|photo\w*|request|content)\b",  # fmt: skip
            rf"\b(?:image|picture|photo\w*|request|content) (?:cannot|can['’]?t|could not|couldn['’]?t) be (?:described|displayed|processed|loaded|opened|fulfilled)",
            r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|assistant|text-based)\b",
            r"\bi(?:'|’)m (?:just |only )?an? (?:ai|language model|virtual|text-based)\b|\bi am an? (?:ai|language model)\b",
            r"\b(?:no|any) (?:image|picture|photo\w*|attachment)s? (?:was|were|is|has been|have been|seems? to be|appears? to be)? ?(?:provided|attached|uploaded|included|given|shared|visible to me|available)\b",  # fmt: skip
            r"\b(?:please|could you|can you|kindly)\b.{0,30}\b(?:provide|upload|share|attach|send|resend|re-upload)\b.{0,40}\b(?:image|picture|photo\w*|details|context|information|it)\b",  # fmt: skip
            r"\b(?:don['’]?t|do not|didn['’]?t|did not) (?:see|have|receive|find) (?:access to )?(?:an?|any|the|your) (?:image|picture|photo\w*|attachment|visual)",  # fmt: skip
            r"\b(?:violates?|against|goes against|not in line with) (?:my|our|the|its) (?:guidelines|polic\w+|content polic\w+|usage polic\w+|safety|programming|terms)",  # fmt: skip
            r"\b(?:content|usage|safety) polic(?:y|ies)\b",
            r"\bi(?:'|’)d be happy to help\b|\bhow (?:can|may) i (?:help|assist) you\b|\blet me know if you\b",
            # The same in languages that captions are often asked for in.
            r"^\W*es tut mir leid|^\W*(?:tut mir leid|entschuldigung)|\bals (?:ki|sprachmodell)\b|\bich kann (?:das bild|dieses bild|dir|ihnen)\b.*\bnicht\b",  # fmt: skip
            r"^\W*(?:je suis|nous sommes) (?:vraiment )?désolée?s?|^\W*désolée?\b|\ben tant qu['’](?:ia|assistant)\b|\bje ne peux pas\b",
            r"^\W*(?:lo siento|lo lamento|perdón|disculp\w+)\b|\bcomo (?:una )?(?:ia|modelo de lenguaje)\b|\bno puedo (?:ver|describir|ayudar)\w*\b",
            r"^\W*(?:desculp\w+|lamento|sinto muito)\b|\bnão (?:posso|consigo) (?:ver|descrever|ajudar)\b",
            r"^\W*mi (?:dispiace|scuso)\b|\bnon (?:posso|riesco a) (?:vedere|descrivere|aiutar\w+)\b",
            r"^\W*(?:извините|простите|к сожалению)\b|\bя не могу\b",
            r"^\W*(?:对不起|抱歉|很抱歉|對不起)|作为(?:一个)?(?:ai|人工智能)|我无法|^\W*(?:申し訳|すみません)|できません。?$|^\W*죄송합니다",
        ]
    ),
    re.IGNORECASE,
)
PREAMBLES = re.compile(
    r"^\W*(?:sure|certainly|of course|absolutely|okay|ok|great|gladly|no problem)\b(?:\s*[,!.:;—]|\s[-–]\s)"
    r"|^\W*here(?:'|’)?s? (?:is |are )?(?:the |a |an |your |my |one |some )?(?:\w+[ -]){0,4}?(?:caption|description|summary|answer|rewrite|sentence|version|response)s?\b"
    r"|^\W*(?:(?:short|long|brief|detailed|new|image|alt|one-sentence|final|fused|merged|english|possible|suggested) )*(?:caption|description|answer|output|response|alt text|prompt|instruction|question|task|rewritten|result)s?(?: \d+)?\s*[:=]"
    r"|^\W*the (?:short|long|new|old|merged|fused|final|requested|rewritten|original|given)? ?(?:caption|alt text|description)s? (?:is|are|reads?|should be|could be|would be|must)\b"
    r"|\b(?:the|this|your|my) (?:prompt|instructions?)\b.{0,20}\b(?:asks?|says?|is|was|requires?|given|above|below)\b"
    r"|\b(?:as|like) (?:you )?(?:requested|instructed|asked)\b|\bas per (?:your|the) (?:request|instructions?)\b"
    r"|^\W*(?:describe|caption|write|summari[sz]e|generate|rewrite|answer|reply with|give|merge|combine|use) (?:(?:me|us|only|the|this|an?|one|in|both|at most|exactly|your)\b\s*)+(?:\w+[ -]){0,4}?(?:images?|pictures?|photo\w*|captions?|sentences?|descriptions?|words?|alt texts?)\b",
    re.IGNORECASE,
)
RUN = 6
"""Words of the instructions in a row that no caption has by chance."""
WHOLE = 4
"""Words from which an instruction that comes back whole is an echo, though it is shorter than that."""

TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<!--|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});", re.IGNORECASE)
CHAT = re.compile(
    r"<\|[^|<>]{0,60}\|?>|<｜|\[/?INST\]|<</?SYS>>|</?s>|\[(?:SEP|CLS|MASK|PAD|UNK|EOS|BOS|IMG|IMAGE)\]|<(?:image|img|pad|eos|bos|unk|think|start_of_turn|end_of_turn)>"
    r"|#{2,}\s*(?:instruction|response|human|assistant|user|input|system)|(?:^|\n)\s*(?:user|assistant|system|human|USER|ASSISTANT|SYSTEM|Human|Assistant|User|System)\s*:"
)
MARKDOWN = re.compile(
    r"```|(?:^|\n)\s{0,3}#{1,6} \S|\*\*[^*\n]+\*\*|__[^_\n]+__|!?\[[^\]\n]*\]\([^)\n]*\)|(?:^|\n)\s*[-*•] .*\n\s*[-*•] |(?:^|\n)\s*\|.*\|.*\||(?:^|\n)\s*1[.)] .*\n\s*2[.)] "
)
LINK = re.compile(r"\bhttps?://|\bwww\.\w|\b\w+\.(?:jpe?g|png|gif|webp|bmp|tiff?|html?|php)\b|\S@\S+\.\w{2,}", re.IGNORECASE)
ESCAPE = re.compile(r"\\(?:[ntr\"]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
STRUCTURE = re.compile(r"\{\s*[\"']?\w+[\"']?\s*:|\[\s*[\"'{\[]|[\"']\s*:\s*[\"'\[{]|\}\s*[,\]}]|^\s*[{\[].*[}\]]\s*$", re.DOTALL)
NAMES = (("a chat token or a turn", CHAT), ("a tag or an entity", TAG), ("markdown", MARKDOWN), ("a link or a file name", LINK),
         ("an escape sequence", ESCAPE), ("JSON or code", STRUCTURE))  # fmt: skip
REPLACEMENT = "�"
"""What stands for bytes that are not UTF-8."""


def refusal_in(text: str) -> str | None:
    """The words that decline, as a reason; None where none do."""
    found = REFUSALS.search(QUOTED.sub("''", text.strip()))
    return f"says {found[0].strip()!r}" if found else None


def echo_in(text: str, instructions: Sequence[str]) -> str | None:
    """What of the task came back: its words, or talk about it."""
    if found := PREAMBLES.search(text):
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
    """What is no language, of a text as the engine gave it."""
    for character in raw:
        if character == REPLACEMENT or (is_hidden(character) and character not in "\n\r\t"):
            return f"holds the character U+{ord(character):04X}"
    for name, pattern in NAMES:
        if found := pattern.search(raw):
            return f"holds {name}: {found[0].strip()[:40]!r}"
    return "is JSON" if is_json(raw) else None


def is_json(raw: str) -> bool:
    """An object, an array or a quoted text; a bare number or word is none."""
    stripped = raw.strip()
    if stripped[:1] not in ("{", "[") and not (stripped[:1] == '"' and "\n" in stripped):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return False
    return True
