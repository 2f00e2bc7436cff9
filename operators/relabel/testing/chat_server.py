"""Chat server: an OpenAI-compatible service on loopback, in a process of its own, that misbehaves as it is told.

It starts again by itself after every crash, until the block ends, and accounts for all of its lives (see
`chat_service`, which is the process).
"""

import collections
import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..digests import Json
from ..errors import StorageError
from . import chat_service
from .chat_service import Behaviour
from .servers import free_ports

READY_SECONDS = 20.0
USAGE_COMES_WITH = {"", "empty"}
"""Answers and troubles with 200 that carry a readable usage."""


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
    wall_seconds: float
    """From the first request's arrival to the last one's end."""
    troubles: Mapping[str, int]


class ChatServer:
    """A running server; `lines` and `account` may be asked at any time."""

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
        """So far; waits for the lines of answers that have left, which come a moment after them."""
        deadline, lines = time.monotonic() + READY_SECONDS, self.lines()
        while open_requests(lines) and time.monotonic() < deadline:
            time.sleep(0.01)
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
            busy_seconds=float(sum(line["seconds"] for line in done) + sum(line.get("cut", 0) for line in lines)),
            down_seconds=float(sum(back - gone for gone, back in zip(crashes, returns, strict=False))),
            wall_seconds=max((line["at"] for line in done), default=0.0)
            - min((line["at"] for line in lines if line["event"] == "take"), default=0.0),
            troubles=collections.Counter(line["trouble"] for line in done if line["trouble"]),
        )

    def _live(self) -> None:
        self.lives += 1
        # By its path and without site-packages: it needs neither, and is there at once.
        command = [sys.executable, "-S", str(chat_service.__file__), str(self.folder), str(self.port)]
        with (self.folder / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(command, stderr=errors)

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


def open_requests(lines: list[Json]) -> set[int]:
    """Numbers of those that were taken and have no end yet; a crash ends all."""
    taken: set[int] = set()
    for line in lines:
        if line["event"] == "take":
            taken.add(line["number"])
        elif line["event"] == "done":
            taken.discard(line["number"])
        else:
            taken.clear()
    return taken


@contextlib.contextmanager
def chat_server(folder: Path, **behaviour: Json) -> Iterator[ChatServer]:
    """`with chat_server(folder, latency_seconds=0.1) as server:`; see `Behaviour`."""
    server = ChatServer(folder, Behaviour(**behaviour))
    server.start()
    try:
        yield server
    finally:
        server.stop()
