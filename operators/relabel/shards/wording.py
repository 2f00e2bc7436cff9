"""Wording: what a caption looks like from outside: how long it is, and whether it is a file's name or a link instead.

Nothing is guessed from a single word: `sunset`, `B-52` and `black/white` are captions, if poor ones.
"""

import re

VERSION = 1
"""Raised whenever a rule below changes what it says of any text: part of what a condition means."""
MAX_NAME = 500
"""Characters; what is longer is no file name, and looking at it would take time. Links may be of any length."""
EXTENSIONS = (
    "jpe?g|jfif|png|gif|webp|tiff?|bmp|heic|heif|avif|svg|ico|psd|ai|eps|raw|arw|cr[23]|nef|dng|orf|rw2|mp4|mov|avi|"
    "webm|pdf|html?|php|aspx?"
)
NUMBERED = (
    "img|image|imag|cimg|hpim|dsc[nf]?|pict?|picture|photo|mvc|sam|gopr|dji|pxl|vid|mov|mvi|screen ?shot|"
    "whatsapp image|received|scan|file|download|frame|untitled|unnamed|thumb(?:nail)?|slide|fig(?:ure)?"
)
"""What cameras and programs number."""
TAIL = r"(?:[-_]\w+| ?copy| ?edit(?:ed)?)?(?: ?\(\d+\))?"
LINK = re.compile(r"[a-z][a-z0-9+.-]{0,30}://|www\.|data:[a-z]+/", re.IGNORECASE)
"""The beginning of one; it holds no space."""
FILE_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"[^\n]+\.(?:{EXTENSIONS})(?:[?#]\S*)?",  # a name with its ending, be it of words
        # IMG_1234, DSC00012, image (3), Screenshot 2021-03-04 at 10.15.22, IMG_1234 copy
        rf"(?:{NUMBERED})[-_ .]?\(?\d[\d_\-.: ()]*(?:at [\d.: ]+)?(?:[ap]m)?{TAIL}",
        r"(?=(?:\D*\d){5})[\d\s._:()x+-]+",  # 20190714_153022, 800x600
        r"(?=.*\d)[0-9a-f]{12,}",  # a digest
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # a UUID
        r"(?:[a-z]:\\|\\\\|~?/|\.{1,2}/)\S+",  # a path
        r"[^\s/]*/[^\s/]*/\S*",
        r"(?=\S*[^\W_])\S*_\S*",  # one word with an underscore: red_car_01
        r"(?=(?:\D*\d){4})(?=\S*[^\W\d_])[\w.-]+",  # one word of letters and four digits and more: photo-1526778548
    )
)


def num_words(text: str) -> int:
    """Runs between spaces that hold a letter or a digit; a text without spaces, as Chinese ones are, is one word."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def num_characters(text: str) -> int:
    """Code points, without spaces at the ends."""
    return len(text.strip())


def looks_like_file_name(text: str) -> bool:
    """Whether a text is no caption but the name of a file, a path, a link, a digest or a number."""
    name = text.strip().strip("\"'<>")
    if LINK.match(name):
        return len(name.split()) == 1
    return len(name) <= MAX_NAME and any(pattern.fullmatch(name) for pattern in FILE_NAMES)
