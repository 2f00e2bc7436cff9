"""Prompt log-probabilities: how probable a text is after a prompt, from a server that echoes prompts with theirs.

`/v1/completions` with `echo` and `logprobs`: vLLM's server does so, llama-cpp-python's with `--logits_all true`. Others
leave `echo` out without a word, and are found out by their answer.
"""

import math
from typing import Any

from ...digests import Json
from ...errors import UsageError
from .dialects import Unreadable, choice_of, usage_of
from .protocol import Request, Scored

PATH = "/completions"


def score_body(request: Request, text: str, model: str) -> dict[str, Json]:
    """Raises UsageError for a chat or images: what a server makes of them, only it knows."""
    if not isinstance(request.prompt, str) or request.images:
        raise UsageError("an endpoint scores texts after plain prompts only: say `chat: false`, without images.")
    asked = {"model": model, "prompt": request.prompt + text, "max_tokens": 1, "temperature": 0.0}
    return {**asked, "echo": True, "logprobs": 1}


def scored_of(answer: Json, text: str, url: str) -> Scored:
    """The end of the prompt, taken from the back until it is `text`.

    Raises UsageError where the server echoes nothing, or where a token spans prompt and text; Unreadable.
    """
    told: Any = choice_of(answer).get("logprobs")
    usage = usage_of(answer)
    tokens, logprobs = ((told or {}).get(name) or [] for name in ("tokens", "token_logprobs"))
    if usage is None or not len(tokens) == len(logprobs) >= usage[0] > 1:
        raise UsageError(
            f"{url} gives no log-probabilities of prompts (`echo` with `logprobs` in /v1/completions), which "
            "`how: score` needs. Serve the model by vLLM, run it in process (`kind: transformers`), or say "
            "`how: choose`."
        )
    count, said = 0, ""
    while len(said) < len(text) and count < usage[0] - 1:
        count += 1
        said = str(tokens[usage[0] - count]) + said
    if said != text:
        raise UsageError(
            f"{url} has no border between tokens before {text!r}: it sees {said!r}. End the prompt without a space and "
            "begin labels with one."
        )
    given = logprobs[usage[0] - count : usage[0]]
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in given):
        raise Unreadable("log-probabilities of a prompt that are no numbers")
    return Scored(math.fsum(given), count, usage[0] - count)
