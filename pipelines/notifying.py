"""Notifying: one POST to a webhook, tried again, which never makes a night fail."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from relabel.digests import Json
from relabel.redaction import redacted

TIMEOUT_SECONDS = 10.0
PAUSES: Sequence[float] = (1.0, 5.0, 20.0)
"""Between the tries."""
AGAIN = frozenset({408, 425, 429, *range(500, 600)})
"""Answers after which another try may help."""


def notify(variable: str, body: Json) -> str | None:
    """POST to the URL that an environment variable holds; returns what went wrong, or None. The URL is never told."""
    url = os.environ.get(variable, "").strip()
    if not url:
        return f"nobody was told: the environment variable {variable} is not set"
    if urlsplit(url).scheme not in ("http", "https"):
        return f"nobody was told: {variable} holds no http:// or https:// URL"
    data, problem = json.dumps(body, default=str).encode(), ""
    for pause in (*PAUSES, None):
        try:
            post(url, data)
        except urllib.error.HTTPError as error:
            with error:
                moved = ", another address: give that one" if 300 <= error.code < 400 else ""
                problem = f"status {error.code}{moved}"
            if error.code not in AGAIN:
                break
        except OSError as error:
            problem = redacted(str(getattr(error, "reason", error)))
        except (ValueError, http.client.HTTPException) as error:
            problem = type(error).__name__  # its message may hold a part of the URL
        else:
            return None
        if pause is not None:
            time.sleep(pause)
    return f"nobody was told: the webhook in {variable} failed ({problem})"


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a POST that is sent on arrives as a GET without its body, and its answer looks like success."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(url: str, data: bytes) -> None:
    """Raises OSError, of it HTTPError for every status but those of success. What the answer says is not read."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    urllib.request.build_opener(_Unmoved).open(request, timeout=TIMEOUT_SECONDS).close()
