"""Proxy: a real S3 server behind a network that fails, and behind the habits of worse servers.

It speaks HTTP on loopback, forwards each request, and does to one of them (or to some in a row) what a fault says.
"""

import contextlib
import dataclasses
import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from .profiles import CORRECT, Profile, kind_of
from .servers import S3Server

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
HELD_BACK_SECONDS = 60.0
PER_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    kind: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclasses.dataclass
class Proxy:
    """Where it listens, what it was asked, and which request it fails."""

    server: S3Server
    upstream: S3Server
    profile: Profile
    seen: list[Request] = dataclasses.field(default_factory=list)
    fault: "WireFault | None" = None
    at: int = -1
    times: int = 1
    released: threading.Event = dataclasses.field(default_factory=threading.Event)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def arm(self, fault: "WireFault", at: int, times: int = 1) -> None:
        """Fail the request numbered `at` from now on, and those after it up to `times`."""
        with self.lock:
            self.seen, self.fault, self.at, self.times = [], fault, at, times

    def disarm(self) -> None:
        with self.lock:
            self.seen, self.fault = [], None
            self.released.set()
            self.released = threading.Event()

    def note(self, request: Request) -> "WireFault | None":
        """Count a request; the fault that strikes it."""
        with self.lock:
            number = len(self.seen)
            self.seen.append(request)
            return self.fault if self.at <= number < self.at + self.times else None

    def forward(self, request: Request) -> Answer:
        """The upstream's answer to the request as this profile's server understands it."""
        ignored = self.profile.ignored(request.kind, request.headers)
        if self.profile.refuses({name: value for name, value in request.headers.items() if name not in ignored}):
            return error(412, "PreconditionFailed")
        headers = {name: value for name, value in request.headers.items() if name not in {*ignored, *PER_CONNECTION}}
        if ignored:
            headers = self.signed(request, headers)
        host, port = self.upstream.endpoint.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=HELD_BACK_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in {**headers, "content-length": str(len(request.body))}.items():
                connection.putheader(name, value)
            connection.endheaders(request.body)
            got = connection.getresponse()
            body = self.profile.answer(got.status, got.read())
            kept = [(name, value) for name, value in got.getheaders() if name.lower() not in PER_CONNECTION]
            if request.method == "HEAD":
                kept.append(("Content-Length", got.getheader("content-length", "0")))
            return Answer(got.status, kept, body)

    def signed(self, request: Request, headers: dict[str, str]) -> dict[str, str]:
        """The same request signed anew: the client's signature covers what was taken away."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        mine = {name: value for name, value in headers.items() if name not in ("authorization", "x-amz-date", "host")}
        asked = AWSRequest(request.method, self.upstream.endpoint + request.target, mine, request.body)
        S3SigV4Auth(Credentials(self.upstream.access_key, self.upstream.secret_key), "s3", "us-east-1").add_auth(asked)
        return {**dict(asked.headers.items()), "host": urlsplit(self.upstream.endpoint).netloc}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_any(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, self.path, headers, body, kind_of(self.command, self.path, headers))
        fault = self.proxy.note(request)
        (fault.strike if fault is not None else answer_plainly)(self, request)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def send(self, answer: Answer, part: float = 1.0) -> None:
        """The answer, or its head and the first part of its body."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(len(answer.body) * part)])
        self.wfile.flush()

    def hang_up(self, reset: bool = False) -> None:
        """End the connection, orderly or by a reset."""
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class named it
        return


def error(status: int, code: str) -> Answer:
    return Answer(status, [("Content-Type", "application/xml")], ERROR.format(code=code).encode())


def answer_plainly(handler: Handler, request: Request) -> None:
    handler.send(handler.proxy.forward(request))


def lose_acknowledgement(handler: Handler, request: Request) -> None:
    handler.proxy.forward(request)
    handler.hang_up()


def fail_after_applying(handler: Handler, request: Request) -> None:
    handler.proxy.forward(request)
    handler.send(error(500, "InternalError"))


def slow_down(handler: Handler, request: Request) -> None:
    handler.send(error(503, "SlowDown"))


def reset_in_body(handler: Handler, request: Request) -> None:
    handler.send(handler.proxy.forward(request), part=0.5)
    handler.hang_up(reset=True)


def truncate_body(handler: Handler, request: Request) -> None:
    handler.send(handler.proxy.forward(request), part=0.5)
    handler.hang_up()


def answer_too_late(handler: Handler, request: Request) -> None:
    released = handler.proxy.released
    handler.proxy.forward(request)
    released.wait(HELD_BACK_SECONDS)
    handler.hang_up()


@dataclasses.dataclass(frozen=True)
class WireFault:
    """What happens to a request on its way."""

    name: str
    strike: Callable[[Handler, Request], None]

    def __repr__(self) -> str:
        return self.name


WIRE_FAULTS = (
    WireFault("lost acknowledgement", lose_acknowledgement),
    WireFault("500 after applying", fail_after_applying),
    WireFault("503 SlowDown", slow_down),
    WireFault("reset in mid body", reset_in_body),
    WireFault("truncated body", truncate_body),
    WireFault("answer after the time-out", answer_too_late),
)


class Listener(http.server.ThreadingHTTPServer):
    """A connection that a client or a fault has ended is no error."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        return


@contextlib.contextmanager
def faulty_proxy(upstream: S3Server, profile: Profile = CORRECT) -> Iterator[Proxy]:
    """A proxy before this server; it ends with the block."""

    class BoundHandler(Handler):
        """Of this proxy."""

    listener = Listener(("127.0.0.1", 0), BoundHandler)
    here = dataclasses.replace(upstream, endpoint=f"http://127.0.0.1:{listener.server_address[1]}")
    BoundHandler.proxy = proxy = Proxy(here, upstream, profile)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.disarm()
        listener.shutdown()
        listener.server_close()
        thread.join()
