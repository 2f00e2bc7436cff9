"""Text tokens: how many tokens a text takes of a text encoder's context, such as CLIP's 77.

Counted by a tokenizer where a folder is given; else estimated by CLIP's own way of cutting text into words, and by how
its 49,408 byte pairs are spread: exact for common words, high for rare ones.
"""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path

from ..digests import Json, digest, sha256
from ..errors import UsageError

Count = Callable[[str], int]

PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\s\w]+|_+", re.IGNORECASE)
"""As CLIP cuts: a word without its digits, one digit, a run of punctuation."""
WHOLE_LETTERS = 8
"""A word of so many letters is usually one token."""
LETTERS_PER_TOKEN = 5
"""Of what a longer word has beyond that."""
SPECIAL = 2
"""The marks at the beginning and the end."""
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
)


def estimated(text: str) -> int:
    """About as many as CLIP's tokenizer gives, its two marks included."""
    return SPECIAL + sum(map(piece_tokens, PIECES.findall(text.lower())))


def piece_tokens(piece: str) -> int:
    if not piece.isascii():
        return max(1, math.ceil(len(piece.encode()) / 2))
    if not piece[0].isalpha():
        return 1
    return 1 + math.ceil(max(0, len(piece) - WHOLE_LETTERS) / LETTERS_PER_TOKEN)


def counter(folder: str | None) -> Count:
    """What counts tokens; raises UsageError where the folder holds no tokenizer."""
    return estimated if folder is None else _loaded(folder)


@functools.lru_cache(maxsize=4)
def _loaded(folder: str) -> Count:
    try:
        import transformers
    except ImportError as error:
        raise UsageError("text_tokenizer needs transformers: `pip install 'relabel-ray[transformers]'`.") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"text_tokenizer expects a folder that transformers saved a tokenizer in: {error}") from error

    def count(text: str) -> int:
        return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])

    return count


def tokenizer_files(folder: str | None) -> tuple[Path, ...]:
    return () if folder is None else tuple(path for name in FILES if (path := Path(folder) / name).is_file())


def tokenizer_digest(folder: str | None) -> Json:
    """Of the tokenizer's files, whatever the folder is called; of the estimate, its name."""
    if folder is None:
        return "estimated"
    found = tokenizer_files(folder)
    if not found:
        raise UsageError(f"text_tokenizer expects a folder with one of {', '.join(FILES)}, got {folder!r}.")
    return digest({path.name: sha256(path.read_bytes()) for path in found})
