"""Endpoint engine against a real server that misbehaves: every request is answered, fails for itself, or waits."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel.errors import AccessDenied, BadSample, EngineUnreachable, UsageError
from relabel.labelers.engines import endpoint_client, presence
from relabel.labelers.engines.endpoint import EndpointConfig
from relabel.labelers.engines.endpoint_client import Endpoint
from relabel.labelers.engines.protocol import Decoding, Message, Reply, Request
from relabel.reasons import Reason
from relabel.testing.chat_server import ChatServer, chat_server
from relabel.testing.servers import free_ports

Serve = Callable[..., ChatServer]
Outcome = Reply | BaseException


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(**behaviour)`: one server for the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **behaviour: stack.enter_context(chat_server(tmp_path / "server", **behaviour))


def ask(text: str, seed: int = 0, **fields: Any) -> Request:
    return Request(prompt=(Message("user", text),), decoding=Decoding(), seed=seed, **fields)


def asked(url: str, requests: list[Request], waiting: int = 10**6, **config: Any) -> tuple[list[Outcome], Endpoint]:
    """What became of requests that are all asked at once, or `waiting` at a time."""

    async def all_of_them() -> tuple[list[Outcome], Endpoint]:
        engine = EndpointConfig(url=url, model="m", **config).open({}, "cpu", compute_batch=1, threads=1)
        assert isinstance(engine, Endpoint)
        room = asyncio.Semaphore(waiting)

        async def one(request: Request) -> Reply:
            async with room:
                return await engine.generate(request)

        try:
            found = await asyncio.gather(*map(one, requests), return_exceptions=True)
        finally:
            await engine.close()
        return list(found), engine

    return asyncio.run(all_of_them())


def texts(outcomes: list[Outcome]) -> list[Any]:
    return [each.text if isinstance(each, Reply) else each for each in outcomes]


def test_each_gets_its_own_answer_over_as_many_connections_as_asked(serve: Serve) -> None:
    server = serve(latency_seconds=0.02)
    outcomes, engine = asked(server.url, [ask(f"word{row}", row) for row in range(60)], at_once=6)
    assert texts(outcomes) == [f"WORD{row}#{row}" for row in range(60)]
    assert server.account().peak == 6
    assert engine.spent()["requests"] == engine.spent()["attempts"] == 60


def test_an_answer_tells_all_that_it_knows(serve: Serve) -> None:
    server = serve()
    image = np.zeros((8, 8, 3), np.uint8)
    chat = Request(prompt=(Message("user", "two words", (image, image)),), decoding=Decoding(), seed=5)
    plain = Request(prompt="once upon", decoding=Decoding())
    price = {"prompt": 1_000_000, "completion": 2_000_000}
    outcomes, _ = asked(server.url, [chat, plain], ask_logprobs=True, price=price)
    one, other = outcomes
    assert isinstance(one, Reply)
    assert isinstance(other, Reply)
    assert (one.text, one.finish_reason, one.logprobs) == ("TWO WORDS#5+2", "stop", (-0.5, -0.5))
    assert (one.prompt_tokens, one.completion_tokens, one.attempts, one.cost) == (9, 13, 1, 35.0)
    assert (other.text, other.finish_reason, other.logprobs) == ("ONCE UPON#0", "length", (-0.25, -0.25))
    assert 0 < one.seconds < 30


@pytest.mark.parametrize("trouble", ["error", "malformed", "empty", "half", "reset", "timeout", "unavailable"])
def test_a_request_that_fails_every_time_is_a_dead_letter_and_costs_nobody_else(serve: Serve, trouble: str) -> None:
    server = serve(latency_seconds=0.01, words={"poison": trouble}, retry_after="0")
    requests = [ask("poison" if row == 3 else f"word{row}") for row in range(20)]
    outcomes, _ = asked(server.url, requests, at_once=4, attempts=2, timeout_seconds=0.4)
    failed = outcomes.pop(3)
    assert isinstance(failed, BadSample)
    assert failed.reason == Reason.ENGINE_ERROR
    assert "2 attempts failed while others were answered" in failed.detail
    assert all(isinstance(each, Reply) for each in outcomes)


def test_the_last_one_that_fails_is_a_dead_letter_though_nobody_else_is_left(serve: Serve) -> None:
    server = serve(words={"poison": "error"})
    outcomes, _ = asked(server.url, [ask("poison")], attempts=2)
    assert isinstance(outcomes[0], BadSample)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("400 This model's maximum context length is 4096 tokens", Reason.PROMPT_TOO_LONG),
        ("400 the request exceeds the available context size", Reason.PROMPT_TOO_LONG),
        ("400 no such field", Reason.ENGINE_ERROR),
        ("413 too large", Reason.ENGINE_ERROR),
        ("422 what is this", Reason.ENGINE_ERROR),
    ],
)
def test_what_a_server_refuses_is_not_asked_again(serve: Serve, said: str, reason: Reason) -> None:
    server = serve(words={"poison": said})
    outcomes, engine = asked(server.url, [ask("poison")])
    assert isinstance(outcomes[0], BadSample)
    assert outcomes[0].reason == reason
    assert engine.spent()["attempts"] == 1


def test_a_proxy_that_asks_for_a_password_is_nobodys_dead_letter(serve: Serve) -> None:
    server = serve(words={"word": "407 Proxy Authentication Required"})
    [refused], _ = asked(server.url, [ask("word")])
    assert isinstance(refused, AccessDenied)
    assert "HTTPS_PROXY" in str(refused)


def test_a_key_is_sent_and_never_said(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNOCENT_NAME", "pl4nted-endpoint-k3y")
    server = serve(key="pl4nted-endpoint-k3y")
    right, _ = asked(server.url, [ask("a")], api_key_env="INNOCENT_NAME")
    assert texts(right) == ["A#0"]
    monkeypatch.setenv("INNOCENT_NAME", "pl4nted-wrong-k3y")
    [refused], engine = asked(server.url, [ask("a")], api_key_env="INNOCENT_NAME")
    assert isinstance(refused, AccessDenied)
    assert "environment variable INNOCENT_NAME" in str(refused)
    assert "Incorrect API key provided: Bearer ***" in str(refused)
    assert "k3y" not in f"{refused!r} {engine.config.model_dump()} {engine.config.identity()}"
    [unnamed], _ = asked(server.url, [ask("a")])
    assert "engine.api_key_env" in str(unnamed)


def test_a_model_that_is_not_there_ends_the_run(serve: Serve) -> None:
    server = serve(words={"a": "404 no such model"})
    [outcome], _ = asked(server.url, [ask("a")])
    assert isinstance(outcome, UsageError)
    assert "GET /v1/models" in str(outcome)


def test_who_asks_to_wait_is_waited_for(serve: Serve) -> None:
    server = serve(troubles={"throttle": 0.15}, retry_after="1", seed=3)
    outcomes, _ = asked(server.url, [ask(f"w{row}") for row in range(20)], at_once=20, attempts=1)
    assert all(isinstance(each, Reply) for each in outcomes)
    lines = [line for line in server.lines() if line["event"] == "done"]
    first = {line["number"] for line in lines if line["trouble"] == "throttle"}
    assert first
    slow = [each.seconds for each in outcomes if isinstance(each, Reply) and each.attempts > 1]
    assert slow
    assert min(slow) >= 1


def test_who_asks_to_wait_for_too_long_ends_the_run(serve: Serve) -> None:
    server = serve(troubles={"throttle": 1.0}, retry_after="86400")
    [outcome], _ = asked(server.url, [ask("a")], patience_seconds=5.0)
    assert isinstance(outcome, EngineUnreachable)
    assert "asks for fewer requests" in str(outcome)


def test_crashes_cost_no_sample_and_only_probes_go_out_while_it_is_away(serve: Serve) -> None:
    server = serve(latency_seconds=0.02, crash_at=(50, 120), down_seconds=0.7)
    outcomes, engine = asked(server.url, [ask(f"w{row}", row) for row in range(200)], 12, at_once=8, attempts=1)
    assert texts(outcomes) == [f"W{row}#{row}" for row in range(200)]
    account, spent = server.account(), engine.spent()
    assert server.lives == 3
    assert account.down_seconds > 1.4
    # Beyond those that it took: 12 that knocked at a closed door at once, twice, and some probes.
    assert int(spent["attempts"]) - account.requests < 60


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_PROBE_SECONDS", 0.1)
    url = f"http://127.0.0.1:{free_ports(1)[0]}/v1"
    begun = time.monotonic()
    outcomes, _ = asked(url, [ask(f"w{row}") for row in range(30)], patience_seconds=1.0, at_once=8)
    assert all(isinstance(each, EngineUnreachable) for each in outcomes)
    assert "has not answered for" in str(outcomes[0])
    assert 1 <= time.monotonic() - begun < 8


def test_a_server_that_fails_for_everyone_is_away_and_kills_nobody(serve: Serve) -> None:
    """It answers, but with 500 alone, for longer than any request's attempts would last."""
    server = serve(troubles={"error": 1.0})
    outcomes, _ = asked(server.url, [ask(f"w{row}") for row in range(10)], attempts=1, patience_seconds=2.0)
    assert all(isinstance(each, EngineUnreachable) for each in outcomes)


def test_a_server_that_comes_back_late_is_waited_for(serve: Serve) -> None:
    server = serve()
    server.pause(away=True)
    threading.Timer(2.0, server.pause, [False]).start()
    outcomes, engine = asked(server.url, [ask(f"w{row}") for row in range(30)], attempts=1, at_once=8)
    assert all(isinstance(each, Reply) for each in outcomes)
    assert engine._presence.outages == 1


def test_a_request_that_ends_the_server_each_time_ends_the_run(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_client, "MAX_OUTAGES", 3)
    server = serve(words={"poison": "crash"}, down_seconds=0.5)
    [outcome], _ = asked(server.url, [ask("poison")], attempts=1)
    assert isinstance(outcome, EngineUnreachable)
    assert "went away 3 times while one request was open" in str(outcome)
    assert server.lives >= 3


def test_a_probe_asks_as_everybody_does(serve: Serve) -> None:
    """A server of plain completions knows no chat; that says nothing of whether it is there."""
    server = serve(words={"messages": "404 no such path", "poison": "error"})
    plain = [Request(prompt=text, decoding=Decoding()) for text in ("a", "poison")]
    outcomes, _ = asked(server.url, plain, waiting=1, attempts=2, patience_seconds=3.0)
    assert texts(outcomes[:1]) == ["A#0"]
    assert isinstance(outcomes[1], BadSample)


def test_a_probe_that_is_asked_to_wait_blames_nobody(serve: Serve) -> None:
    server = serve(words={"Hello": "throttle", "poison": "error"}, retry_after="0")
    [outcome], _ = asked(server.url, [ask("poison")], attempts=1, patience_seconds=1.5)
    assert isinstance(outcome, EngineUnreachable)


def test_budgets_are_kept_and_spread(serve: Serve) -> None:
    server = serve()
    begun = time.monotonic()
    asked(server.url, [ask(f"w{row}") for row in range(11)], requests_per_minute=600.0)
    assert time.monotonic() - begun >= 1.0
    begun = time.monotonic()
    # The server tells of 12 tokens and 14 of answer for each, whatever was booked before: 0.5 s.
    asked(server.url, [ask("twelve chars") for _ in range(5)], at_once=1, tokens_per_minute=3120.0)
    assert 1.0 <= time.monotonic() - begun < 12


def test_the_price_is_what_the_server_told_to_the_last_digit(serve: Serve) -> None:
    troubles = {"throttle": 0.05, "error": 0.05, "malformed": 0.05, "empty": 0.1, "half": 0.03}
    # No crash here: on a busy machine the server may die between an answer and its own account of it.
    server = serve(latency_seconds=0.005, troubles=troubles, retry_after="0")
    requests = [ask(f"word number {row}", row) for row in range(120)]
    outcomes, engine = asked(server.url, requests, 30, at_once=10, price={"prompt": 0.15, "completion": 0.6})
    assert texts(outcomes) == [f"WORD NUMBER {row}#{row}" for row in range(120)]
    account, spent = server.account(), engine.spent()
    assert account.troubles["empty"]
    told = account.prompt_tokens, account.completion_tokens
    assert (spent["prompt_tokens"], spent["completion_tokens"]) == told
    expected = (told[0] * Decimal("0.15") + told[1] * Decimal("0.6")) / 10**6
    assert Decimal(spent["cost"]) == expected
    replies = [each for each in outcomes if isinstance(each, Reply)]
    assert max(reply.attempts for reply in replies) > 1
    # Of what was told, only probes belong to no request.
    assert sum(reply.cost for reply in replies) == pytest.approx(float(expected), rel=0.02)


def test_extra_fields_go_along_and_null_takes_one_away(serve: Serve) -> None:
    server = serve(words={"planted-field": "400 seen", '"top_p"': "400 not taken away"})
    [seen], _ = asked(server.url, [ask("a")], extra={"top_p": None, "user": "planted-field"})
    assert isinstance(seen, BadSample)
    assert "seen" in seen.detail
    [plain], _ = asked(server.url, [ask("a")], extra={"top_p": None})
    assert texts([plain]) == ["A#0"]


def test_what_is_not_sent_to_a_server_that_is_away_uses_no_budget() -> None:
    """One is refused; one waits for its two seconds of the budget, the others for room, until patience ends."""
    url, begun = f"http://127.0.0.1:{free_ports(1)[0]}/v1", time.monotonic()
    requests = [ask(f"w{row}") for row in range(6)]
    outcomes, engine = asked(url, requests, at_once=2, requests_per_minute=30.0, patience_seconds=3.0)
    assert all(isinstance(each, EngineUnreachable) for each in outcomes)
    meter = engine._pace._requests
    assert meter is not None
    assert meter._free_at - begun < 5, "the one that was sent has two seconds"
