"""Dialects: what each server is sent, how its answers are read, and what of an engine makes a fingerprint."""

import base64
import io
import json
from email.utils import formatdate
from typing import Any

import numpy as np
import PIL.Image
import pydantic
import pytest

from relabel.errors import UsageError
from relabel.labelers.engines.data_urls import data_url
from relabel.labelers.engines.dialects import Dialect, Unreadable, body_of, reply_of, usage_of
from relabel.labelers.engines.endpoint import EndpointConfig
from relabel.labelers.engines.protocol import Decoding, Message, Request
from relabel.labelers.engines.wire import message_of, retry_after

GREEDY = Decoding(max_tokens=8)
CHAT = Request(prompt=(Message("system", "Be brief."), Message("user", "Hello")), decoding=GREEDY, seed=7)
PLAIN = Request(prompt="Once", decoding=GREEDY)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def body(request: Request, dialect: Dialect = "openai", logprobs: bool = False) -> dict[str, Any]:
    return body_of(request, "m", dialect, logprobs, [])


def changed(request: Request, **fields: Any) -> Request:
    return Request(prompt=request.prompt, decoding=fields.pop("decoding", GREEDY), **fields)


def test_what_all_servers_take() -> None:
    assert body(CHAT) == {
        "model": "m", "max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "seed": 7,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    }  # fmt: skip
    assert body(PLAIN)["prompt"] == "Once"
    assert body(changed(CHAT, decoding=Decoding(stop=("\n",))))["stop"] == ["\n"]


def test_what_a_server_would_fill_in_by_itself_is_sent() -> None:
    assert {"top_k": 0, "repetition_penalty": 1.0, "min_p": 0.0}.items() <= body(CHAT, "vllm").items()
    assert {"top_k": 0, "repeat_penalty": 1.0, "min_p": 0.0}.items() <= body(CHAT, "llama_cpp").items()


def test_a_dialect_without_a_word_for_it_refuses() -> None:
    with pytest.raises(UsageError, match="top_k and repetition_penalty are no part"):
        body(changed(CHAT, decoding=Decoding(top_k=5)))
    with pytest.raises(UsageError, match="holds only chats"):
        body(changed(PLAIN, choices=("a",)))
    with pytest.raises(UsageError, match="images only in a chat"):
        body_of(PLAIN, "m", "vllm", False, ["data:..."])


def test_seeds_fit_the_server() -> None:
    large = changed(CHAT, seed=2**63 - 1)
    assert body(large)["seed"] == 2**63 - 1
    assert body(large, "llama_cpp")["seed"] < 2**31 - 1


def test_structure_in_every_dialect() -> None:
    schema, choices = changed(CHAT, schema=SCHEMA), changed(CHAT, choices=('say "no"', "ja"))
    assert body(schema)["response_format"]["json_schema"]["schema"] == SCHEMA
    assert body(schema, "vllm")["structured_outputs"] == {"json": SCHEMA}
    assert body(schema, "llama_cpp")["response_format"] == {"type": "json_object", "schema": SCHEMA}
    assert body(changed(PLAIN, schema=SCHEMA), "llama_cpp")["json_schema"] == SCHEMA
    assert body(choices, "vllm")["structured_outputs"] == {"choice": ['say "no"', "ja"]}
    assert body(choices, "llama_cpp")["grammar"] == 'root ::= "say \\"no\\"" | "ja"'
    wrapped = body(choices)["response_format"]["json_schema"]["schema"]
    assert wrapped["properties"]["answer"]["enum"] == ['say "no"', "ja"]


def test_logprobs_are_asked_for_in_every_dialect() -> None:
    assert body(CHAT, logprobs=True)["logprobs"] is True
    assert body(CHAT, "llama_cpp", logprobs=True)["top_logprobs"] == 1
    assert body(PLAIN, logprobs=True)["logprobs"] == 1
    assert "logprobs" not in body(CHAT)


def answer(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "stop", **choice}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def said(text: Any, **choice: Any) -> dict[str, Any]:
    return answer(message={"role": "assistant", "content": text}, **choice)


def test_answers_are_read() -> None:
    reply = reply_of(said("Hi", logprobs={"content": [{"logprob": -0.5}, {"logprob": -1}]}), CHAT, "openai")
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("Hi", "stop", 3, 2)
    assert reply.logprobs == (-0.5, -1.0)
    assert reply.mean_logprob == -0.75
    plain = reply_of(answer(text="upon", logprobs={"token_logprobs": [-0.25]}), PLAIN, "openai")
    assert (plain.text, plain.logprobs) == ("upon", (-0.25,))
    assert reply_of(said("x", finish_reason="length"), CHAT, "vllm").finish_reason == "length"
    assert reply_of(said("x", finish_reason="content_filter"), CHAT, "vllm").finish_reason == "other"
    assert reply_of(said(None, finish_reason="length"), CHAT, "vllm").text == ""
    assert reply_of(answer(message={"content": None, "refusal": "I can't"}), CHAT, "openai").text == "I can't"


def test_a_choice_is_taken_out_of_its_wrapping() -> None:
    request = changed(CHAT, choices=("yes", "no"))
    assert reply_of(said('{"answer": "no"}', logprobs={"content": [{"logprob": -1}]}), request, "openai").text == "no"
    assert reply_of(said("no"), request, "vllm").text == "no"


@pytest.mark.parametrize(
    "content",
    [
        [], {}, {"choices": []}, {"choices": [3]}, {"choices": [{}]}, {"choices": [{"message": {}}]},
        {"error": "overloaded"}, said("x", finish_reason="abort"), said([1]),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_unreadable(content: Any) -> None:
    with pytest.raises(Unreadable):
        reply_of(content, CHAT, "openai")


@pytest.mark.parametrize("logprob", [float("nan"), float("inf"), float("-inf"), "much", [], 10**400])
def test_log_probabilities_that_are_none_are_unreadable(logprob: Any) -> None:
    for told in ({"content": [{"logprob": logprob}]}, {"token_logprobs": [-1.0, logprob]}):
        with pytest.raises(Unreadable, match="log-probabilities"):
            reply_of(said("x", logprobs=told), CHAT, "openai")


@pytest.mark.parametrize("told", [{"content": 3}, {"content": [3]}, {"token_logprobs": 3}])
def test_log_probabilities_of_no_shape_are_unreadable(told: Any) -> None:
    with pytest.raises(Unreadable, match="log-probabilities"):
        reply_of(said("x", logprobs=told), CHAT, "openai")


@pytest.mark.parametrize("count", [-1, 10**300, True, 1.5, "7", float("nan")])
def test_a_usage_that_cannot_be_is_none(count: Any) -> None:
    assert usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": count}}) is None


@pytest.mark.parametrize(
    ("dialect", "text"), [("openai", '{"answer": "maybe"}'), ("vllm", "maybe"), ("llama_cpp", "n")]
)
def test_what_is_none_of_the_choices_is_unreadable(dialect: Any, text: str) -> None:
    with pytest.raises(Unreadable, match="none of the choices"):
        reply_of(said(text), changed(CHAT, choices=("yes", "no")), dialect)


def test_no_half_of_a_key_is_in_what_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", "pl4nted-" + "k3y" * 20)
    with pytest.raises(Unreadable) as unreadable:
        reply_of({"error": "x" * 150 + "pl4nted-" + "k3y" * 20}, CHAT, "openai")
    assert "k3y" not in str(unreadable.value)


def test_a_choice_that_was_cut_off_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="length"):
        reply_of(said('{"ans', finish_reason="length"), changed(CHAT, choices=("a", "b")), "openai")


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_images_travel_upright_and_whole(image_format: Any) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :, 0] = 250
    head, _, data = data_url(image, image_format, 95).partition(",")
    assert head == f"data:image/{image_format};base64"
    back = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data))))
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).max() <= (0 if image_format == "png" else 24)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0.5", 0.5), (None, None), ("soon", None), (formatdate(1_000_030, usegmt=True), 30.0),
     (formatdate(999_000, usegmt=True), 0.0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, 1_000_000.0) == seconds


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, "too long · context_length_exceeded"),
        ({"error": "busy"}, "busy"),
        ({"detail": "Not Found"}, "Not Found"),
        (None, "<html> bad gateway"),
    ],
)
def test_errors_in_every_shape_have_a_message(content: Any, words: str) -> None:
    assert message_of(content, b"<html>\n bad gateway") == words


def config(**fields: Any) -> EndpointConfig:
    return EndpointConfig(**{"url": "http://127.0.0.1:1/v1", "model": "m", **fields})


def test_what_cannot_change_an_answer_is_no_part_of_the_identity() -> None:
    same = config(
        url="https://elsewhere/v1/", at_once=3, timeout_seconds=9, attempts=2, patience_seconds=1, api_key_env="KEY",
        requests_per_minute=5, tokens_per_minute=5, price={"prompt": 0.15, "completion": 0.6},
    )  # fmt: skip
    assert same.identity() == config().identity()
    assert config().identity()["weights"] == "unpinned"


@pytest.mark.parametrize(
    "fields",
    [{"model": "n"}, {"revision": "2026-11"}, {"dialect": "vllm"}, {"jpeg_quality": 80}, {"image_format": "png"},
     {"extra": {"reasoning_effort": "low"}}],
)  # fmt: skip
def test_what_can_change_an_answer_is(fields: dict[str, Any]) -> None:
    assert config(**fields).identity() != config().identity()


def test_an_identity_is_json_and_a_config_comes_back_from_it() -> None:
    one = config(price={"prompt": 0.15}, extra={"a": [1]})
    json.dumps(one.identity())
    assert EndpointConfig(**json.loads(json.dumps(one.model_dump(mode="json")))) == one


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://me:secret@host/v1", "https://host/v1?api_key=abcdefgh"])
def test_a_url_is_plain(url: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="expected"):
        config(url=url)


@pytest.mark.parametrize("name", ["api_key", "Authorization", "client_secret"])
def test_no_secret_is_published_with_the_extra_fields(name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="use api_key_env"):
        config(extra={name: "x"})
    assert config(extra={"max_completion_tokens": 9, "top_k": None}).extra


def test_a_key_that_is_not_set_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UsageError, match="environment variable NOWHERE"):
        config(api_key_env="NOWHERE").headers()
    monkeypatch.setenv("NOWHERE", "pl4nted\nk3y")
    with pytest.raises(UsageError, match="no header may have") as refused:
        config(api_key_env="NOWHERE").headers()
    assert "k3y" not in str(refused.value)
    monkeypatch.setenv("NOWHERE", "  k\n")
    assert config(api_key_env="NOWHERE").headers()["Authorization"] == "Bearer k"
