"""Wire: one attempt over HTTP, and what became of it: an answer, a failure that may pass, or an end.

An attempt raises BadSample where the server refuses this request for what it is, and AccessDenied, UsageError or
EngineUnreachable where it would refuse every one.
"""

import dataclasses
import datetime
import email.utils
import json
import re
import time
from collections.abc import Mapping

import aiohttp

from ...digests import Json
from ...errors import AccessDenied, BadSample, EngineUnreachable, UsageError
from ...reasons import Reason
from ...redaction import redacted

IDLE_SECONDS = 3.0
"""A connection that idled for longer is not used again: servers close theirs after 5 s, and what was sent is lost."""
DETAIL_CHARACTERS = 300
MAX_ANSWER_BYTES = 8 * 2**20
"""More is no answer; every open request may hold so much."""
MAX_SAID = 100_000
"""Characters of an error's text that are looked at."""
OWN_FAULT = {400, 413, 414, 415, 422, 431}
TOO_LONG = re.compile(
    r"context.{0,3}(length|size|window)|maximum (model|input|prompt) length|max_model_len|(prompt|input) is too long",
    re.IGNORECASE,
)
TOO_LARGE = re.compile(r"request too large", re.IGNORECASE)
"""With 429: more tokens than the account may use in a whole minute, however long one waits."""
AWAY = {502, 503, 504, 521, 522, 523, 524, 529}
"""What stands before the service says that it is not there, or it says so itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The server answered; JSON."""

    content: Json


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """No answer, this time."""

    detail: str
    away: bool = False
    """The connection broke, or somebody says that the service is not there."""
    refused: bool = False
    """Nobody listens."""
    throttled: bool = False
    """The server asks for fewer requests: it is there, and the request is not to blame."""
    after: float | None = None
    """Seconds after which to come back, where the server says so."""
    content: Json = None
    """What it said, where that was JSON: it may tell of usage."""


class Wire:
    """A server's address, with connections that are kept. Belongs to one event loop from its first `post` on."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_seconds: float, key_name: str | None) -> None:
        self.url, self._headers, self._key_name = url.rstrip("/"), dict(headers), key_name
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._known = False
        """It answered once: where it then knows neither path nor model, its servers are being replaced."""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, path: str, body: Mapping[str, Json]) -> Answer | Failure:
        """One attempt, whatever comes of it."""
        if self._session is None:
            # Bounded by the engine, which opens no more requests than it may.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=self._timeout)
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        try:
            async with self._session.post(self.url + path, data=data, allow_redirects=False) as response:
                data = await read(response)
                if len(data) > MAX_ANSWER_BYTES and response.ok:
                    return Failure(f"more than {MAX_ANSWER_BYTES} bytes")
                return self._outcome(response.status, response.headers, data)
        except TimeoutError:
            return Failure(f"no answer within timeout_seconds: {self._timeout.total:g}")
        except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
            raise UsageError(f"engine.url {self.url}: {error or type(error).__name__}") from error
        except (aiohttp.ClientError, OSError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError)
            return Failure(f"{type(error).__name__}: {error}", away=True, refused=refused)

    def _outcome(self, status: int, headers: Mapping[str, str], data: bytes) -> Answer | Failure:
        try:
            content: Json = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        if 200 <= status < 300:
            self._known = self._known or content is not None
            return Failure(f"no JSON in {len(data)} bytes") if content is None else Answer(content)
        said = f"HTTP {status}: {message_of(content, data)}"
        after = retry_after(headers.get("Retry-After"), time.time())
        if status == 429 and TOO_LARGE.search(said):
            raise BadSample(Reason.PROMPT_TOO_LONG, said)
        if status == 429 and "insufficient_quota" not in said:
            return Failure(said, throttled=True, after=after, content=content)
        if status >= 500 or status in (408, 409, 425):
            return Failure(said, away=status in AWAY, after=after, content=content)
        if status == 404 and self._known:
            return Failure(said, away=True)
        raise self._refusal(status, said)

    def _refusal(self, status: int, said: str) -> BadSample | AccessDenied | UsageError | EngineUnreachable:
        """What will be said again, however often one asks."""
        if status in OWN_FAULT:
            return BadSample(Reason.PROMPT_TOO_LONG if TOO_LONG.search(said) else Reason.ENGINE_ERROR, said)
        if status in (401, 403):
            have = (
                f"The key came from the environment variable {self._key_name}: check what it holds."
                if self._key_name
                else "No key was sent: name the environment variable that holds it by engine.api_key_env."
            )
            return AccessDenied(f"{self.url} gave no access ({said}). {have}")
        if status == 407:
            return AccessDenied(f"the proxy before {self.url} asks for a password ({said}). Correct HTTPS_PROXY.")
        if status in (402, 429):
            return EngineUnreachable(f"{self.url}: what the account may spend is spent ({said}). Run again to go on.")
        if status in (404, 405) or 300 <= status < 400:
            return UsageError(
                f"{self.url} does not have this model, or is no such interface ({said}). engine.url goes up to and "
                "includes /v1; engine.model is the name that GET /v1/models lists."
            )
        return BadSample(Reason.ENGINE_ERROR, said)


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body, or a little more than MAX_ANSWER_BYTES of it."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            break
    return bytes(data)


def message_of(content: Json, data: bytes) -> str:
    """What an error says, for a person: `{"error": {"message": ...}}` in one of its shapes, or the bytes."""
    error = content.get("error", content) if isinstance(content, dict) else None
    if isinstance(error, dict):
        words = [str(error[name]) for name in ("message", "detail", "type", "code") if error.get(name)]
        text = " · ".join(words) or json.dumps(error)
    else:
        text = error if isinstance(error, str) else data.decode(errors="replace")
    return redacted(" ".join(text.split())[:MAX_SAID])[:DETAIL_CHARACTERS]  # in this order: half a secret is not found


def retry_after(text: str | None, now: float) -> float | None:
    """Seconds from `now` (Unix time), of a number of seconds or an HTTP date; None where it is neither."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, moment.timestamp() - now)
