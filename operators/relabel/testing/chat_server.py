"""Chat server: an OpenAI-compatible service on loopback, in a process of its own, that misbehaves as it is told.

Which request fails and how is a function of the seed and of how many came before; so is when the server crashes. What
it did is a line per request in a file, written in the same breath as the answer, so that a crash loses no account:
whatever it says it answered did leave. It starts again by itself after every crash, until the block ends.
"""

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..digests import Json
from ..errors import StorageError
from .servers import free_ports

READY_SECONDS = 20.0
TROUBLES = ("throttle", "error", "unavailable", "malformed", "half", "timeout", "reset", "empty")
"""429 with Retry-After, 500, 503, no JSON, half a body, no answer for a long time, a cut connection, no choices."""
USAGE_COMES_WITH = {"", "empty"}
REASONS = {200: "OK", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error",
           400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}  # fmt: skip


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


@dataclasses.dataclass(frozen=True)
class Account:
    """What the server did, summed over its lives."""

    requests: int
    answered: int
    prompt_tokens: int
    completion_tokens: int
    """Of every answer that left and told of usage."""
    peak: int
    """Requests that were open at a time, at most."""
    busy_seconds: float
    """Summed time from a request's arrival to its end, whatever end it was."""
    down_seconds: float
    """From a crash until it listened again, summed."""
    troubles: Mapping[str, int]


class ChatServer:
    """A running server; `account` may be asked at any time."""

    def __init__(self, folder: Path, behaviour: Behaviour) -> None:
        self.folder, self.behaviour = folder, behaviour
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = folder / "requests.jsonl"
        self.lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True, name="chat server")

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "behaviour.json").write_text(json.dumps(dataclasses.asdict(self.behaviour)))
        self.log.touch()
        self._live()
        deadline = time.monotonic() + READY_SECONDS
        while not any(line["event"] == "ready" for line in self.lines()):
            if time.monotonic() > deadline:
                raise StorageError(f"the chat server did not get ready; its log is {self.folder / 'stderr'}")
            time.sleep(0.02)
        self._keeper.start()

    def stop(self) -> None:
        self._ended.set()
        if self._process is not None:
            self._process.kill()
        self._keeper.join()

    def pause(self, away: bool) -> None:
        """Kill it and keep it down, or let it come back."""
        (self.folder / "away").touch() if away else (self.folder / "away").unlink()
        if away and self._process is not None:
            self._process.kill()
            self._process.wait()

    def lines(self) -> list[Json]:
        """Whole lines only: one may be half written."""
        return [json.loads(line) for line in self.log.read_bytes().split(b"\n")[:-1]]

    def account(self) -> Account:
        lines = self.lines()
        done = [line for line in lines if line["event"] == "done"]
        told = [line for line in done if line["trouble"] in USAGE_COMES_WITH and line["status"] == 200]
        crashes = [line["at"] for line in lines if line["event"] == "crash"]
        returns = [line["at"] for line in lines if line["event"] == "ready"][1:]
        return Account(
            requests=sum(line["event"] == "take" for line in lines),
            answered=sum(not line["trouble"] for line in told),
            prompt_tokens=sum(line["prompt_tokens"] for line in told),
            completion_tokens=sum(line["completion_tokens"] for line in told),
            peak=max((line["open"] for line in lines if line["event"] == "take"), default=0),
            busy_seconds=sum(line["seconds"] for line in done) + sum(line["cut"] for line in lines if "cut" in line),
            down_seconds=sum(back - gone for gone, back in zip(crashes, returns, strict=False)),
            troubles=collections.Counter(line["trouble"] for line in done if line["trouble"]),
        )

    def _live(self) -> None:
        self.lives += 1
        command = [sys.executable, "-m", __name__, str(self.folder), str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with (self.folder / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(command, stderr=errors, env=environment)

    def _keep(self) -> None:
        """Start it again after every end; a wait that is a whole life long."""
        while not self._ended.is_set():
            assert self._process is not None
            self._process.wait()
            while not self._ended.wait(self.behaviour.down_seconds) and (self.folder / "away").exists():
                pass
            if not self._ended.is_set():
                self._live()
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def chat_server(folder: Path, **behaviour: Json) -> Iterator[ChatServer]:
    """`with chat_server(folder, latency_seconds=0.1) as server:`; see `Behaviour`."""
    server = ChatServer(folder, Behaviour(**behaviour))
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Service:
    """The process that answers."""

    def __init__(self, folder: Path, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.log = os.open(folder / "requests.jsonl", os.O_WRONLY | os.O_APPEND)
        self.taken = sum(b'"event": "take"' in line for line in (folder / "requests.jsonl").read_bytes().split(b"\n"))
        self.open: dict[int, float] = {}

    def write(self, **line: Json) -> None:
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
        self.write(event="take", number=number, open=len(self.open))
        if self.taken in self.behaviour.crash_at:
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
        self.write(event="done", number=number, trouble=trouble, status=status, seconds=seconds, **tokens)
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

    def content(self, trouble: str, asked: Json, head: str) -> tuple[int, Json]:
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


def chat(asked: Json) -> Json:
    """The last message in capitals, `#`, the seed, and how many images came along."""
    content = asked["messages"][-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    images = [part for part in parts if part["type"] == "image_url"]
    said = " ".join(part["text"] for part in parts if part["type"] == "text")
    text = f"{said.upper()}#{asked['seed']}" + (f"+{len(images)}" if images else "")
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if asked.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": word, "logprob": -0.5} for word in text.split()]}
    return {"choices": [choice], "usage": usage(said, text)}


def completion(asked: Json) -> Json:
    text = f"{asked['prompt'].upper()}#{asked['seed']}"
    choice = {"index": 0, "text": text, "finish_reason": "length"}
    if asked.get("logprobs"):
        choice["logprobs"] = {"token_logprobs": [-0.25 for _ in text.split()]}
    return {"choices": [choice], "usage": usage(asked["prompt"], text)}


def usage(prompt: str, text: str) -> Json:
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
