"""Wire against servers that mean harm: what they send is bounded, and what they say twists no figure and no label."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from relabel.errors import BadSample, EngineUnreachable
from relabel.labelers.engines import wire
from relabel.labelers.engines.endpoint import EndpointConfig
from relabel.labelers.engines.endpoint_client import Endpoint
from relabel.labelers.engines.protocol import Decoding, Message, Request
from relabel.labelers.engines.wire import Answer, Failure, Wire, message_of, retry_after
from relabel.reasons import Reason

REQUEST = Request(prompt=(Message("user", "a"),), decoding=Decoding())


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def serve(said: bytes, endless: bool) -> asyncio.Server:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
                writer.write(said)
                while endless:
                    writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(connection, "127.0.0.1", 0)


def asked(said: bytes, endless: bool = False, engine: bool = False, **config: Any) -> Any:
    """What one attempt brings, or (`engine`) the whole engine's answer."""

    async def ask() -> Any:
        server = await serve(said, endless)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        one = Endpoint(EndpointConfig(url=url, model="m", **config)) if engine else Wire(url, {}, 20.0, None)
        try:
            return await (one.generate(REQUEST) if isinstance(one, Endpoint) else one.post("/chat/completions", {}))
        finally:
            await one.close()
            server.close()

    return asyncio.run(asyncio.wait_for(ask(), 30))


def test_an_endless_answer_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 2**20)
    got = asked(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", endless=True)
    assert got == Failure("more than 1048576 bytes")


def test_an_answer_that_grows_when_it_is_unpacked_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 2**20)
    bomb = gzip.compress(json.dumps({"text": "x" * 2**25}).encode())
    assert asked(response(bomb, "200 OK", "Content-Encoding: gzip")) == Failure("more than 1048576 bytes")
    small = gzip.compress(b'{"a": 1}')
    assert asked(response(small, "200 OK", "Content-Encoding: gzip")) == Answer({"a": 1})


def test_an_error_of_any_size_is_still_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 2**10)
    got = asked(response(b"busy " * 10_000, "503 Service Unavailable"))
    assert (got.away, got.detail[:19]) == (True, "HTTP 503: busy busy")


def test_what_an_error_says_costs_no_time() -> None:
    assert len(message_of(None, b"a-" * 2_000_000 + b"://")) == wire.DETAIL_CHARACTERS


@pytest.mark.parametrize("status", ["500 Oops", "503 Service Unavailable"])
def test_a_server_that_says_come_back_tomorrow_ends_the_run(status: str) -> None:
    with pytest.raises(EngineUnreachable, match="come back in 86400 s"):
        asked(response(b"{}", status, "Retry-After: 86400"), engine=True, patience_seconds=5.0)


def test_who_asks_for_more_than_a_minute_may_have_is_not_asked_again_for_ever() -> None:
    said = b'{"error": {"message": "Request too large for m on tokens per min (TPM): Limit 10, Requested 12."}}'
    with pytest.raises(BadSample) as bad:
        asked(response(said, "429 Too Many Requests"), engine=True, patience_seconds=5.0)
    assert bad.value.reason == Reason.PROMPT_TOO_LONG


@pytest.mark.parametrize("zone", ["+99999999999999999999", "+9999"])
def test_a_date_that_is_none_is_no_date(zone: str) -> None:
    assert retry_after(f"Mon, 01 Jan 2024 00:00:00 {zone}", 0.0) is None
