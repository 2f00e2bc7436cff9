"""Dialects: what servers of the OpenAI kind take beyond what all of them take, and how their answers are read.

`openai`: the service that gave the interface its name, and those that follow it to the letter. `vllm`: its server
(0.12 or newer: `structured_outputs`). `llama_cpp`: llama.cpp's own server, and llama-cpp-python's.

Whatever a server would otherwise fill in by itself (vLLM from the model's generation_config.json, llama.cpp with top_k
40 and min_p 0.05) is always sent.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...digests import Json
from ...errors import UsageError
from ...redaction import redacted
from .protocol import SEPARATOR, Decoding, FinishReason, Message, Reply, Request

Dialect = Literal["openai", "vllm", "llama_cpp"]

SEEDS = {"openai": 2**63, "vllm": 2**63, "llama_cpp": 2**31 - 1}
"""Seeds are taken modulo this: llama.cpp has 32 bits, and calls its largest number `random`."""
CHOICE = "answer"
"""The field in which an `openai` server gives one of several texts."""
MAX_TOKENS = 2**31 - 1
"""No model answers more."""
SAID_CHARACTERS = 200
FINISHED: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


class Unreadable(ValueError):
    """An answer that lacks what every answer has."""


def path_of(request: Request) -> str:
    return "/completions" if isinstance(request.prompt, str) else "/chat/completions"


def body_of(request: Request, model: str, dialect: Dialect, logprobs: bool, urls: Sequence[str]) -> dict[str, Json]:
    """The JSON of a request; `urls` are those of its images, in order. Raises UsageError where the dialect cannot say
    it.
    """
    decoding, chat = request.decoding, not isinstance(request.prompt, str)
    return {
        "model": model,
        **prompt_of(request, urls),
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": request.seed % SEEDS[dialect],
        **({"stop": list(decoding.stop)} if decoding.stop else {}),
        **sampling(decoding, dialect),
        **(asked_logprobs(dialect, chat) if logprobs else {}),
        **structure(request, dialect),
    }


def prompt_of(request: Request, urls: Sequence[str]) -> dict[str, Json]:
    if isinstance(request.prompt, str):
        if urls:
            raise UsageError(
                "an endpoint takes images only in a chat, got a plain prompt with images. Ask by messages, or use "
                "`kind: transformers`."
            )
        return {"prompt": request.prompt}
    rest = list(urls)
    return {"messages": [message_of(message, [rest.pop(0) for _ in message.images]) for message in request.prompt]}


def message_of(message: Message, urls: Sequence[str]) -> dict[str, Json]:
    if not urls:
        return {"role": message.role, "content": message.text}
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def sampling(decoding: Decoding, dialect: Dialect) -> dict[str, Json]:
    """What not every server has a word for."""
    if dialect == "vllm":
        return {"top_k": decoding.top_k, "repetition_penalty": decoding.repetition_penalty, "min_p": 0.0}
    if dialect == "llama_cpp":
        return {"top_k": decoding.top_k, "repeat_penalty": decoding.repetition_penalty, "min_p": 0.0}
    if decoding.top_k or decoding.repetition_penalty != 1:
        raise UsageError(
            f"top_k and repetition_penalty are no part of `dialect: openai`, got {decoding.top_k} and "
            f"{decoding.repetition_penalty}. Leave them at 0 and 1, or name the server's dialect (vllm, llama_cpp)."
        )
    return {}


def asked_logprobs(dialect: Dialect, chat: bool) -> dict[str, Json]:
    if not chat:
        return {"logprobs": 1}
    return {"logprobs": True, **({"top_logprobs": 1} if dialect == "llama_cpp" else {})}


def structure(request: Request, dialect: Dialect) -> dict[str, Json]:
    """How the answer is held to a schema or to one of some texts."""
    if request.schema is None and request.choices is None:
        return {}
    schema = None if request.schema is None else dict(request.schema)
    if request.most > 1 and request.choices is not None:
        schema = some_of(request.choices, request.most)
    if dialect == "vllm":
        return {"structured_outputs": {"choice": list(request.choices or ())} if schema is None else {"json": schema}}
    if dialect == "llama_cpp":
        if schema is None:
            return {"grammar": grammar(request.choices or ())}
        if isinstance(request.prompt, str):
            return {"json_schema": schema}
        return {"response_format": {"type": "json_object", "schema": schema}}
    if isinstance(request.prompt, str):
        raise UsageError("`dialect: openai` holds only chats to a schema or choices, got a plain prompt.")
    schema = schema or one_of(request.choices or ())
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": CHOICE, "strict": True, "schema": schema}}
    }


def one_of(choices: Sequence[str]) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": {CHOICE: {"type": "string", "enum": list(choices)}},
        "required": [CHOICE],
        "additionalProperties": False,
    }


def some_of(choices: Sequence[str], most: int) -> dict[str, Json]:
    """Several; that none comes twice is more than servers hold an answer to."""
    given = {"type": "array", "items": {"type": "string", "enum": list(choices)}, "minItems": 1, "maxItems": most}
    return {"type": "object", "properties": {CHOICE: given}, "required": [CHOICE], "additionalProperties": False}


def grammar(choices: Sequence[str]) -> str:
    """In llama.cpp's notation (GBNF)."""
    return "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def usage_of(answer: Json) -> tuple[int, int] | None:
    """Tokens of prompt and answer, where the server tells."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    return (counts[0], counts[1]) if all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts) else None


def reply_of(answer: Json, request: Request, dialect: Dialect) -> Reply:
    """What a server's answer says. Raises Unreadable."""
    choice = choice_of(answer)
    text = text_of(choice)
    logprobs = logprobs_of(choice.get("logprobs"))
    given = None
    if request.choices is not None and (dialect == "openai" or request.most > 1):
        given, logprobs = chosen(text, choice), None  # those were the tokens of the JSON around it
        text = f"{SEPARATOR} ".join(given)
    elif request.choices is not None:
        given = (text,)
    if given is not None and (not given or not {*given} <= {*(request.choices or ())}):
        raise Unreadable(f"none of the choices (finish_reason: {choice.get('finish_reason')}): {excerpt(text)}")
    prompt_tokens, completion_tokens = usage_of(answer) or (0, 0)
    return Reply(
        text=text,
        finish_reason=FINISHED.get(str(choice.get("finish_reason")), "other"),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        logprobs=logprobs,
        chosen=given,
    )


def choice_of(answer: Json) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise Unreadable(f"an answer without choices: {excerpt(answer)}")
    if choices[0].get("finish_reason") == "abort":
        raise Unreadable("the server broke off its answer (finish_reason: abort)")
    return choices[0]


def text_of(choice: Mapping[str, Any]) -> str:
    """Of a chat or a plain completion; a refusal is text, and nothing (all tokens went into thinking) is empty."""
    said = choice.get("message", choice)
    if not isinstance(said, dict) or not {"content", "text"} & said.keys():
        raise Unreadable(f"a choice without text: {excerpt(choice)}")
    text = said.get("content", said.get("text")) or said.get("refusal") or ""
    if not isinstance(text, str):
        raise Unreadable(f"a text that is {type(text).__name__}")
    return text


def excerpt(content: Json) -> str:
    return redacted(json.dumps(content))[:SAID_CHARACTERS]  # in this order: half a secret is not found


def chosen(text: str, choice: Mapping[str, Any]) -> tuple[str, ...]:
    """The text that `one_of` asked for, or those of `some_of`, each once."""
    try:
        given = json.loads(text)[CHOICE]
        return tuple(dict.fromkeys(map(str, given))) if isinstance(given, list) else (str(given),)
    except (ValueError, LookupError, TypeError) as error:
        raise Unreadable(f"no JSON with {CHOICE!r} in it (finish_reason: {choice.get('finish_reason')})") from error


def logprobs_of(told: Json) -> tuple[float, ...] | None:
    """Of a chat (`content`) or a plain completion (`token_logprobs`). Raises Unreadable where one is no number."""
    if not isinstance(told, dict):
        return None
    try:
        found = [each.get("logprob") for each in told.get("content") or ()] or list(told.get("token_logprobs") or ())
        logprobs = tuple(map(float, found)) if found and None not in found else None
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise Unreadable(f"log-probabilities that are none: {type(error).__name__}") from error
    if logprobs and not all(map(math.isfinite, logprobs)):
        raise Unreadable("log-probabilities that are not finite")
    return logprobs
