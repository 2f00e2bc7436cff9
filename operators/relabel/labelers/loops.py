"""Loops: text that goes round in circles, as a language model does when it is stuck. Rules for `guards.repetition`.

People repeat themselves, too ("a very, very big dog", "a cat and a dog and a bird"): what counts is the same thing
again at once, more often than anybody says it, or a long text that has little to say.
"""

import re
from collections import Counter

WORD = re.compile(r"\w+(?:['’]\w+)*")
SENTENCE_END = re.compile(r"[.!?;。！？]+\s*")
CHARACTER_LOOPS = (re.compile(r"([^\s\d])\1{6,}"), re.compile(r"(\S{2,12}?)\1{4,}"))
"""One character seven times running, or two to twelve of them five times."""
MOST_IN_A_ROW = {1: 3, 2: 2, 3: 2}
"""Words of a phrase -> how often it may follow itself at once; a longer phrase may not be said twice running."""
LONGEST_PHRASE = 16
LONG_SENTENCE = 5
"""Words from which a sentence that is said again is a loop; shorter ones may come twice."""
LONG_TEXT = 24
"""Words from which phrases are counted over the whole text."""
PHRASE = 4
MOST_SHARE = 0.3
"""Of a long text's words, those that lie in phrases of four words which it has at least three times."""


def loop_in(text: str) -> str | None:
    """What goes round in a circle, as a reason; None where nothing does."""
    for pattern in CHARACTER_LOOPS:
        if found := pattern.search(text):
            return f"{found[1]!r} comes {len(found[0]) // len(found[1])} times running"
    words = [word.casefold() for word in WORD.findall(text)]
    return phrase_loop(words) or sentence_loop(text) or poor_text(words)


def phrase_loop(words: list[str]) -> str | None:
    """A phrase that follows itself at once, too often."""
    for length in range(1, min(LONGEST_PHRASE, len(words) // 2) + 1):
        same = 0
        for place in range(length, len(words)):
            same = same + 1 if words[place] == words[place - length] else 0
            times = 1 + same // length
            if times > MOST_IN_A_ROW.get(length, 1):
                return f"{' '.join(words[place - length + 1 : place + 1])!r} comes {times} times running"
    return None


def sentence_loop(text: str) -> str | None:
    sentences = Counter(" ".join(WORD.findall(each.casefold())) for each in SENTENCE_END.split(text))
    for sentence, times in sentences.items():
        words = len(sentence.split())  # one word is judged as a phrase; "e.g." is none
        if words > 1 and times > (1 if words >= LONG_SENTENCE else 2):
            return f"the sentence {sentence!r} comes {times} times"
    return None


def poor_text(words: list[str]) -> str | None:
    """Much of a long text is a few phrases, wherever they stand."""
    if len(words) < LONG_TEXT:
        return None
    places: dict[tuple[str, ...], list[int]] = {}
    for start in range(len(words) - PHRASE + 1):
        places.setdefault(tuple(words[start : start + PHRASE]), []).append(start)
    covered = {
        start + step for starts in places.values() if len(starts) >= 3 for start in starts for step in range(PHRASE)
    }
    share = len(covered) / len(words)
    return f"{share:.0%} of its words are phrases that it has three times" if share > MOST_SHARE else None
