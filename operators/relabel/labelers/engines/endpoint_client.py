"""Endpoint client: requests to a service that fails now and then: each is answered, or fails for itself, or waits.

Nobody's sample dies of an outage: a failed attempt counts against its request only where others are answered after it.
"""

import asyncio
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

from ...digests import Json, digest
from ...errors import BadSample, EngineUnreachable
from ...reasons import Reason
from .data_urls import data_url
from .dialects import Unreadable, body_of, path_of, reply_of, usage_of
from .endpoint import EndpointConfig
from .pacing import Pace
from .presence import Presence
from .prompt_logprobs import PATH, score_body, scored_of
from .protocol import Decoding, Engine, Message, Reply, Request, Scored
from .spending import Spending, Spent
from .wire import Answer, Failure, Wire

T = TypeVar("T")

BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 30.0
"""The n-th failure waits for up to twice as long as the one before."""
MAX_OUTAGES = 10
"""A request during which the server went away so often is suspected to be why."""
CHARACTERS_PER_TOKEN = 3
TOKENS_PER_IMAGE = 500
"""Of a budget until the answer tells."""
PLAIN_HELLO = Request(prompt="Hello", decoding=Decoding(max_tokens=1))
HELLO = Request(prompt=(Message("user", "Hello"),), decoding=Decoding(max_tokens=1))
"""What a probe asks, in the way in which the server is asked anyway: it may know no other."""


@dataclasses.dataclass(slots=True)
class Course:
    """One request on its way to an answer."""

    number: int
    attempts: int = 0
    own: int = 0
    """Failures that are its own."""
    broken_off: int = 0
    """Failures that were the server's absence."""
    throttled: int = 0
    """Times that it was asked to come back later."""
    cost: Decimal = Decimal(0)
    begun: float = dataclasses.field(default_factory=time.monotonic)
    outages_before: int = 0
    """That the engine had seen when this was sent last."""

    def backoff(self, failures: int) -> float:
        """Anything up to a bound that doubles: requests that failed together do not come back together."""
        bound = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(failures, 16))
        return bound * (int(digest([os.getpid(), self.number, self.attempts])[:12], 16) / float(16**12))


class Endpoint(Engine):
    """A service behind a URL. All of its requests run in one event loop."""

    in_process = False
    reproducible = False

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._wire = Wire(config.url, config.headers(), config.timeout_seconds, config.api_key_env)
        self._presence = Presence(config.url, self._probe, config.patience_seconds)
        self._pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self._room = asyncio.Semaphore(config.at_once)
        self._spending = Spending(config.price.prompt, config.price.completion)
        self._numbers = itertools.count()
        self._hello = HELLO

    def spent(self) -> Spent:
        return self._spending.to_json()

    def numerics(self) -> dict[str, Json]:
        return {"engine": f"endpoint, {self.config.dialect}"}

    async def close(self) -> None:
        await self._presence.close()
        await self._wire.close()

    async def generate(self, request: Request) -> Reply:
        self._hello = PLAIN_HELLO if isinstance(request.prompt, str) else HELLO
        body = self._body(request, await self._urls(request))

        def read(content: Json) -> Reply:
            return reply_of(content, request, self.config.dialect)

        reply, course = await self._asked(path_of(request), body, booked_tokens(request), read)
        seconds = time.monotonic() - course.begun
        return dataclasses.replace(reply, seconds=seconds, attempts=course.attempts, cost=float(course.cost))

    async def score(self, request: Request, texts: Sequence[str]) -> list[Scored]:
        """By the log-probabilities of prompts: one request for every text; the server keeps what they share."""
        self._hello = PLAIN_HELLO

        async def one(text: str) -> Scored:
            body = self._extended(score_body(request, text, self.config.model))
            booked = booked_tokens(request) + len(text)
            found, _ = await self._asked(PATH, body, booked, lambda content: scored_of(content, text, self.config.url))
            return found

        return list(await asyncio.gather(*map(one, texts)))

    async def _asked(
        self, path: str, body: Mapping[str, Json], booked: int, read: Callable[[Json], T]
    ) -> tuple[T, Course]:
        """What `read` makes of the answer, which it raises Unreadable for where it is none."""
        course = Course(next(self._numbers))
        while True:
            got = await self._attempt(course, path, body, booked)
            if isinstance(got, Answer):
                try:
                    found = read(got.content)
                except Unreadable as error:
                    got = Failure(str(error))
                else:
                    self._presence.answered()
                    self._spending.requests += 1
                    return found, course
            if got.throttled:
                await self._slow_down(course, got)
            else:
                await self._judge(course, got)

    def _body(self, request: Request, urls: list[str]) -> Mapping[str, Json]:
        return self._extended(body_of(request, self.config.model, self.config.dialect, self.config.ask_logprobs, urls))

    def _extended(self, body: Mapping[str, Json]) -> Mapping[str, Json]:
        return {name: value for name, value in {**body, **self.config.extra}.items() if value is not None}

    async def _urls(self, request: Request) -> list[str]:
        """Encoded beside the loop: a large image takes as long as many answers."""
        form, quality = self.config.image_format, self.config.jpeg_quality
        return [await asyncio.to_thread(data_url, image, form, quality) for image in request.all_images]

    async def _attempt(self, course: Course, path: str, body: Mapping[str, Json], booked: int) -> Answer | Failure:
        """Sends a request once nobody doubts that the server is there, and there is room."""
        while True:
            await self._presence.require()
            async with self._room:
                if not self._presence.away and await self._booked(booked):
                    return await self._send(course, path, body, booked)

    async def _booked(self, tokens: int) -> bool:
        """Waits for the budget; False, and nothing of it is used, where the server went away meanwhile."""
        await self._pace.wait(tokens)
        if self._presence.away:
            self._pace.give_back(tokens)
        return not self._presence.away

    async def _send(self, course: Course, path: str, body: Mapping[str, Json], booked: int) -> Answer | Failure:
        course.attempts, course.outages_before = course.attempts + 1, self._presence.outages
        self._spending.attempts += 1
        try:
            got = await self._wire.post(path, body)
        except BadSample:
            self._presence.answered()
            raise
        if (usage := usage_of(got.content)) is not None:
            course.cost += self._spending.use(*usage)
            self._pace.used(sum(usage), booked)
        return got

    async def _slow_down(self, course: Course, failure: Failure) -> None:
        """Comes back when the server said, not before; raises EngineUnreachable where that takes too long."""
        course.throttled += 1
        wait = (failure.after or 0.0) + course.backoff(course.throttled - 1)
        patience = self.config.patience_seconds
        quiet = time.monotonic() - max(self._presence.last_answer, course.begun)
        if max(failure.after or 0.0, quiet) > patience:
            raise EngineUnreachable(
                f"{self.config.url} asks for fewer requests ({failure.detail}) and has answered none for "
                f"{quiet:.0f} s; patience_seconds is {patience:g}. Lower at_once, or set requests_per_minute; run "
                "again to go on."
            )
        await asyncio.sleep(wait)

    async def _judge(self, course: Course, failure: Failure) -> None:
        """Returns when the request may be sent again. Raises BadSample where it failed for itself too often, and
        EngineUnreachable where the server stays away.
        """
        answers = self._presence.answers
        if (failure.after or 0.0) > self.config.patience_seconds:
            raise EngineUnreachable(
                f"{self.config.url} asks to come back in {failure.after:.0f} s ({failure.detail}); patience_seconds is "
                f"{self.config.patience_seconds:g}. Run again to go on."
            )
        if failure.away:
            self._presence.doubt(broken=True, refused=failure.refused)
        await asyncio.sleep(max(failure.after or 0.0, course.backoff(course.own)))
        await self._presence.judge(answers)
        if self._presence.outages == course.outages_before:
            course.own += 1
        else:
            course.broken_off += 1
        if course.own >= self.config.attempts:
            raise BadSample(
                Reason.ENGINE_ERROR, f"{course.own} attempts failed while others were answered: {failure.detail}"
            )
        if course.broken_off >= MAX_OUTAGES:
            raise EngineUnreachable(
                f"{self.config.url} went away {course.broken_off} times while one request was open ({failure.detail}): "
                "it may be what ends the server. Look into the server's log; run again to go on."
            )

    async def _probe(self) -> Failure | None:
        """Asks a few words: None where the server answers them or refuses them."""
        hello = self._hello
        async with self._room:
            try:
                got = await self._send(Course(next(self._numbers)), path_of(hello), self._body(hello, []), 0)
                if isinstance(got, Answer):
                    reply_of(got.content, hello, self.config.dialect)
            except BadSample:
                return None
            except Unreadable as error:
                return Failure(str(error))
        return got if isinstance(got, Failure) else None


def booked_tokens(request: Request) -> int:
    """What a request may take, of a budget; the answer will tell."""
    prompt = request.prompt if isinstance(request.prompt, str) else " ".join(each.text for each in request.prompt)
    images = TOKENS_PER_IMAGE * len(request.all_images)
    return len(prompt) // CHARACTERS_PER_TOKEN + images + request.decoding.max_tokens
