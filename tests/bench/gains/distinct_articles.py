"""Distinct articles: BBC's without their copies, split into training and test by a hash of what they say.

BBC News prints an article again with another headline or some more lines. Of articles that share a passage one stays,
so that nothing in the test was trained on.
"""

import dataclasses
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np

from pipelines.articles import Article, articles

RUN = 8
"""Words in a row that count as a passage."""
COPIED = 0.1
"""Articles are copies where so large a share of the passages of the shorter one is in the other."""
TEST = 0.3
FACTORS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, RUN + 1, dtype=np.uint64)
"""Of a run's words: odd, so that none is lost in 64 bits."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Of the articles that have no copies."""

    train: Sequence[Article]
    test: Sequence[Article]
    copies: int
    """Articles that were left out."""


def split() -> Split:
    """The same on every machine: by the hash of the words, whatever files are called."""
    found = articles()
    kept = distinct(found)
    ordered = sorted(kept, key=lambda article: digest(article.text))
    in_test = {article.key for article in ordered if int(digest(article.text)[:8], 16) < TEST * 2**32}
    return Split(
        train=[article for article in ordered if article.key not in in_test],
        test=[article for article in ordered if article.key in in_test],
        copies=len(found) - len(kept),
    )


def words(text: str) -> list[str]:
    """Without case, width and marks."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def digest(text: str) -> str:
    """Of its words."""
    return hashlib.sha256(" ".join(words(text)).encode()).hexdigest()


def passages(text: str) -> set[int]:
    """Hashes of all runs of RUN words; of a shorter text, of all its words."""
    said = np.array([zlib.crc32(word.encode()) for word in words(text)], np.uint64)
    size = min(RUN, len(said))
    runs = np.lib.stride_tricks.sliding_window_view(said, size)
    return set((runs * FACTORS[:size]).sum(axis=1).tolist())


def distinct(found: Sequence[Article]) -> list[Article]:
    """Those that are no copies of one before them, in the order of their words' hashes."""
    kept: list[Article] = []
    of_kept: list[int] = []
    holders: dict[int, list[int]] = {}
    for article in sorted(found, key=lambda each: digest(each.text)):
        mine, shared = passages(article.text), dict[int, int]()
        for passage in mine:
            for place in holders.get(passage, ()):
                shared[place] = shared.get(place, 0) + 1
        if any(count > COPIED * min(len(mine), of_kept[place]) for place, count in shared.items()):
            continue
        for passage in mine:
            holders.setdefault(passage, []).append(len(kept))
        kept.append(article)
        of_kept.append(len(mine))
    return kept
