"""Proper nouns: the names that an old caption gives, and which of them a new one has lost.

A model that merges captions keeps what it understands and drops what it cannot know: who, where, which make. The rule
sees names by their capitals, so it needs a script that has them; it is for checking what survived, not for finding all.
"""

import re
import unicodedata
from collections.abc import Sequence

TOKEN = re.compile(r"[^\W_]+(?:[.&'’-][^\W_]+)*\.?")
CLAUSE_ENDS = frozenset('.!?:;|–—"“”()')
SMALL = frozenset({
    "a", "an", "the", "of", "and", "or", "in", "on", "at", "to", "for", "from", "by", "with", "without", "as",
    "is", "are", "was", "were", "be", "it", "its", "this", "that", "these", "those", "de", "la", "le", "les",
    "el", "los", "las", "da", "do", "di", "del", "der", "die", "das", "den", "van", "von", "und", "et", "y", "e",
})  # fmt: skip
"""Words that join the parts of a name, and never are one."""
COMMON = frozenset({
    "i", "i'm", "my", "we", "our", "you", "your", "he", "she", "they", "his", "her", "their", "here", "there",
    "when", "where", "what", "who", "why", "how", "old", "free", "best", "sale", "buy", "photo", "image",
    "picture", "stock", "vector", "illustration", "close-up", "view", "top", "front", "back", "side", "black",
    "white", "red", "blue", "green", "yellow", "brown", "grey", "gray", "orange", "pink", "purple", "two",
    "three", "four", "five", "six", "seven", "eight", "nine", "ten", "one", "man", "woman", "boy", "girl",
    "people", "group", "young", "beautiful", "happy", "small", "large", "big", "little", "jpg", "jpeg", "png",
    "img", "dsc", "hd", "page", "home", "file", "untitled", "no", "not", "all", "some", "many", "several",
    "each", "every",
})  # fmt: skip
"""Words that alt texts write with a capital and that name nothing."""
TELLS = 2
"""So many joining or common words with a capital inside a text make a headline, whose capitals tell nothing."""
LONGEST_NAME = 4
"""Words; a longer run of capitals makes a headline, too."""
MAX_NAMES = 16


def names_in(text: str) -> list[str]:
    """Runs of words with capitals, in order, each once, at most 16: `New York`, `Boeing 747`, `NASA`.

    The first word of a sentence counts only as part of a longer run, or where it has a capital or a digit inside. In a
    headline ("Two Dogs On The Beach") only acronyms, and words with digits or inner capitals, count.
    """
    runs = runs_of(text)
    words = [(word, first) for run in runs for word, first in run]
    tells = sum(word.casefold() in SMALL | COMMON and not first for word, first in words)
    headline = tells >= TELLS or any(len(run) > LONGEST_NAME for run in runs)
    found = [name for run in runs for name in kept(run, headline)]
    return list(dict.fromkeys(name for name in found if name))[:MAX_NAMES]


def runs_of(text: str) -> list[list[tuple[str, bool]]]:
    """Words with capitals that follow each other, and whether each is the first of a sentence."""
    runs: list[list[tuple[str, bool]]] = [[]]
    last = 0
    for match in TOKEN.finditer(text):
        gap, word = text[last : match.start()], match[0].rstrip(".")
        first = not last or text[last - 1] == "." or ends_a_clause(gap)
        owned = bool(runs[-1]) and runs[-1][-1][0].endswith(("'s", "’s"))
        if runs[-1] and (gap.strip() or owned or not belongs(word)):
            runs.append([])
        if is_capital(word) or is_marked(word) or (runs[-1] and belongs(word)):
            runs[-1].append((word, first))
        last = match.end()
    return [run for run in runs if run]


def ends_a_clause(gap: str) -> bool:
    """Whether what stands before a word ends a clause: a mark, a line break, and space behind it."""
    marks = gap.rstrip()
    return marks[-1:] in CLAUSE_ENDS or "\n" in gap[len(marks) :]


def is_capital(word: str) -> bool:
    return word[0].isupper()


def belongs(word: str) -> bool:
    """Whether a word can go on with a name: by a capital, or as a number behind it."""
    return is_capital(word) or word[0].isdigit()


def kept(run: Sequence[tuple[str, bool]], headline: bool) -> list[str]:
    """The names of a run."""
    if headline:
        return [word for word, _ in run if is_marked(word)]
    while run and (run[0][0].casefold() in SMALL | COMMON):
        run = run[1:]
    if len(run) == 1 and run[0][1] and not is_marked(run[0][0]):
        return []
    return [" ".join(word.removesuffix("'s").removesuffix("’s") for word, _ in run)]


def is_marked(word: str) -> bool:
    """An acronym, or a word with a capital or a digit inside: a name wherever it stands."""
    inner = word[1:]
    mixed = any(each.isupper() or each.isdigit() for each in inner) and word[0].isalpha()
    return mixed and len(word) >= 2 and word.casefold() not in COMMON


def lost_names(old: str, new: str) -> list[str]:
    """The names of `old` that `new` has not: a name is there where each of its words is, whatever case and accents."""
    said = {folded(match[0].rstrip(".")) for match in TOKEN.finditer(new)}
    said |= {part for word in said for part in re.split(r"[.&'’-]", word)}
    return [name for name in names_in(old) if not all(folded(word) in said for word in name.split())]


def folded(word: str) -> str:
    plain = unicodedata.normalize("NFKD", word.casefold().replace("’", "'").removesuffix("'s"))
    return "".join(character for character in plain if not unicodedata.combining(character))
