"""Chat service: the process behind `chat_server`; needs nothing but Python.

Which request fails and how is a function of the seed and of how many came before; so is when the process ends. What it
did is a line per request in a file, written in the same breath as the answer, so that a crash loses no account: what
it says it answered did leave.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TROUBLES = ("throttle", "error", "unavailable", "malformed", "half", "timeout", "reset", "empty", "crash")
"""429 with Retry-After, 500, 503, no JSON, half a body, no answer for a long time, a cut connection, no choices,
and the end of the process."""
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Content Too Large",
           422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What the server does."""

    latency_seconds: float = 0.0
    troubles: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Name in `TROUBLES` -> share of the requests."""
    retry_after: str = "1"
    """Of a throttled request."""
    hang_seconds: float = 30.0
    """How long a request that times out is held."""
    crash_at: tuple[int, ...] = ()
    """The process ends when it has taken so many requests in all, at each of these counts."""
    down_seconds: float = 1.0
    """Before it starts again."""
    seed: int = 0
    key: str = ""
    """Requests without this bearer token get 401."""
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """A text in the request -> the trouble that it always gets, or a status code and message (`400 too long`)."""


class Service:
    """The process that answers."""

    def __init__(self, folder: Path, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.log = os.open(folder / "requests.jsonl", os.O_WRONLY | os.O_APPEND)
        self.taken = sum(b'"event": "take"' in line for line in (folder / "requests.jsonl").read_bytes().split(b"\n"))
        self.open: dict[int, float] = {}

    def write(self, **line: Any) -> None:
        os.write(self.log, json.dumps(line).encode() + b"\n")

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other, until the client leaves or a trouble ends it."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.request(reader, writer):
                pass
        writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        names = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(names.get("content-length", "0")))
        number, self.taken = self.taken, self.taken + 1
        self.open[number] = time.monotonic()
        self.write(event="take", at=time.time(), number=number, open=len(self.open))
        if self.taken in self.behaviour.crash_at or self.trouble(number, body) == "crash":
            now = time.monotonic()
            self.write(event="crash", at=time.time(), cut=sum(now - begun for begun in self.open.values()))
            os._exit(1)
        try:
            return await self.answer(number, head, body, reader, writer)
        finally:
            self.open.pop(number, None)

    async def answer(
        self, number: int, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        trouble = self.trouble(number, body)
        if trouble == "timeout":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), self.behaviour.hang_seconds)  # the client hangs up
        else:
            await asyncio.sleep(self.behaviour.latency_seconds)
        if self.behaviour.key and f"authorization: bearer {self.behaviour.key}".lower() not in head.lower():
            trouble = f"401 Incorrect API key provided: {names_key(head)}"
        status, content = self.content(trouble, json.loads(body) if body else {}, head)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        usage = content.get("usage", {}) if isinstance(content, dict) else {}
        tokens = {name: usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
        if trouble in ("timeout", "reset"):
            data = b""
            writer.transport.abort()
        else:
            after = f"Retry-After: {self.behaviour.retry_after}\r\n" if status in (429, 503) else ""
            first = f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\nContent-Length: {len(data)}\r\n{after}\r\n"
            writer.write(first.encode() + (data[: len(data) // 2] if trouble == "half" else data))
        seconds = time.monotonic() - self.open.pop(number)
        self.write(
            event="done", at=time.time(), number=number, trouble=trouble, status=status, seconds=seconds, **tokens
        )
        return trouble not in ("timeout", "reset", "half")

    def trouble(self, number: int, body: bytes) -> str:
        """What becomes of request `number`: the empty text is an answer."""
        for word, trouble in self.behaviour.words.items():
            if word.encode() in body:
                return trouble
        drawn = int.from_bytes(hashlib.sha256(f"{self.behaviour.seed}/{number}".encode()).digest()[:6]) / 2**48
        for name, share in self.behaviour.troubles.items():
            if (drawn := drawn - share) < 0:
                return name
        return ""

    def content(self, trouble: str, asked: Any, head: str) -> tuple[int, Any]:
        if trouble[:3].isdecimal():
            return int(trouble[:3]), {"error": {"message": trouble[4:], "type": "planted"}}
        if trouble in ("throttle", "error", "unavailable"):
            status = {"throttle": 429, "error": 500, "unavailable": 503}[trouble]
            return status, {"error": {"message": f"planted {trouble}"}}
        if trouble == "malformed":
            return 200, b'{"choices": [{"mess'
        answered = completion(asked) if "/chat/" not in head.split(" ")[1] else chat(asked)
        return 200, {**answered, "choices": []} if trouble == "empty" else answered


def names_key(head: str) -> str:
    """What some services do: they say again what was sent."""
    return next((line.split(" ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("authorization")), "")


def chat(asked: Any) -> Any:
    """The last message in capitals, `#`, the seed, and how many images came along."""
    content = asked["messages"][-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    images = [part for part in parts if part["type"] == "image_url"]
    said = " ".join(part["text"] for part in parts if part["type"] == "text")
    text = f"{said.upper()}#{asked['seed']}" + (f"+{len(images)}" if images else "")
    if held := asked.get("response_format", {}).get("json_schema"):
        text = structured(held["schema"], said)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if asked.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": word, "logprob": -0.5} for word in text.split()]}
    return {"choices": [choice], "usage": usage(said, text)}


def structured(schema: Any, said: str) -> str:
    """JSON that fits: of every enumeration what the text says most often, of an array as many as it may hold."""
    found = {}
    for name, held in schema["properties"].items():
        names = sorted(held.get("items", held)["enum"], key=lambda each: -said.count(each))
        found[name] = names[: held["maxItems"]] if held["type"] == "array" else names[0]
    return json.dumps(found)


def echoed(asked: Any) -> Any:
    """Prompt and one token more, with what the service says of its tokens: a word and the space before it is one."""
    tokens = [*re.findall(r" ?\w+|\W", asked["prompt"]), "!"]
    logprobs = [None, *(-(sum(token.encode()) % 97) / 16 for token in tokens[1:])]
    choice = {"index": 0, "text": "".join(tokens), "finish_reason": "length"}
    choice["logprobs"] = {"tokens": tokens, "token_logprobs": logprobs}
    return {"choices": [choice], "usage": {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}}


def completion(asked: Any) -> Any:
    if asked.get("echo"):
        return echoed(asked)
    text = f"{asked['prompt'].upper()}#{asked['seed']}"
    choice = {"index": 0, "text": text, "finish_reason": "length"}
    if asked.get("logprobs"):
        choice["logprobs"] = {"token_logprobs": [-0.25 for _ in text.split()]}
    return {"choices": [choice], "usage": usage(asked["prompt"], text)}


def usage(prompt: str, text: str) -> Any:
    return {"prompt_tokens": len(prompt), "completion_tokens": len(text)}


async def serve(folder: Path, port: int) -> None:
    behaviour = json.loads((folder / "behaviour.json").read_text())
    service = Service(folder, Behaviour(**{**behaviour, "crash_at": tuple(behaviour["crash_at"])}))
    server = await asyncio.start_server(service.connection, "127.0.0.1", port, limit=2**26, backlog=1024)
    service.write(event="ready", at=time.time())
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
