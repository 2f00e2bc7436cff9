"""Keys: opaque names of samples, and the mark of those that nobody can carry safely."""

BAD_KEY = "__bad_key__"
"""The field, True, of a sample whose key is not UTF-8, holds control characters or is missing."""


def decode_key(raw: bytes) -> tuple[str, bool]:
    r"""The key, and whether it is UTF-8; other bytes are shown as `\xNN`."""
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode(errors="backslashreplace"), False


def is_good_key(key: str) -> bool:
    """Whether it holds no control characters and no lone surrogates."""
    if key.isprintable():
        return bool(key)
    return not any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in key)
