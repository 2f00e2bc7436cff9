"""Redaction: no message of ours carries a secret, whatever a client, an operator or a recipe put into it.

Hidden are the values of environment variables whose names sound secret, those that storage options named, user and
password of a URL, the query of a presigned one, and AWS's access keys.
"""

import os
import re
from urllib.parse import quote, quote_plus

SECRET_NAME = re.compile(
    r"key|secret|token|passw|credential|signature|private|sas\b|auth\b|authoriz|cookie|connection_?string|\bsig\b",
    re.IGNORECASE,
)
NOT_SECRET_NAME = re.compile(r"_(FILE|PATH|SOCK|URL|URI|DIR|MODE|SOURCE)$|^XKB|KEYBOARD", re.IGNORECASE)
"""What says where a secret lies, not what it is."""
MIN_CHARACTERS = 8
"""Shorter values occur in innocent words."""
MARK = "***"

USER_IN_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s'\"<>]*@", re.IGNORECASE)
QUERY = re.compile(r"(?<=\?)[^\s'\"<>?]*=[^\s'\"<>]*")
SECRET_PARAMETER = re.compile(r"(^|[&;])[^=&;]*(key|secret|token|passw|credential|sig|auth)[^=&;]*=", re.IGNORECASE)
ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")

_named: set[str] = set()
"""Values that storage options took from variables of any name."""


def redacted(text: str) -> str:
    """`text` with every secret that this process knows or can recognise replaced by ***."""
    for value in secret_values():
        if value in text:
            text = text.replace(value, MARK)
    if "://" in text:
        text = USER_IN_URL.sub(rf"\1{MARK}@", text)
    text = QUERY.sub(lambda match: MARK if SECRET_PARAMETER.search(match[0]) else match[0], text)
    return ACCESS_KEY.sub(MARK, text)


def carries_secret(url: str) -> bool:
    """Whether a URL holds a user, a password or a signature, which would be written wherever the URL is."""
    return redacted(url) != url


def remember(value: str) -> None:
    """`value` is a secret, whatever its variable is called."""
    if len(value) >= MIN_CHARACTERS:
        _named.add(value)


def secret_values() -> list[str]:
    """The longest first, as they are and as a URL spells them."""
    values = {value for name, value in os.environ.items() if is_secret_variable(name) and len(value) >= MIN_CHARACTERS}
    plain = values | _named
    spelled = plain | {quote(value, safe="") for value in plain} | {quote_plus(value) for value in plain}
    return sorted(spelled, key=len, reverse=True)


def is_secret_variable(name: str) -> bool:
    return SECRET_NAME.search(name) is not None and NOT_SECRET_NAME.search(name) is None
