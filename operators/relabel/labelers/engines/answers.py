"""Answers: what one request has got so far, token by token, and when that is enough."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from .protocol import SEPARATOR, FinishReason, Reply, Request
from .tries import Choices, Path

MANTISSA_BITS = 53


def uniforms(seed: int, count: int) -> Float64[np.ndarray, "steps"]:
    """Numbers in [0, 1), one per token: entry i is a function of (seed, i) alone (Philox, Salmon et al. 2011)."""
    raw = np.random.Philox(key=seed).random_raw(count)
    return np.asarray(raw >> np.uint64(64 - MANTISSA_BITS), np.float64) * 2.0**-MANTISSA_BITS


class Answer:
    """One answer as it grows."""

    def __init__(
        self, request: Request, prompt: Sequence[int], tokenizer: Any, end_ids: frozenset[int], choices: Choices | None
    ) -> None:
        self.request, self.prompt = request, prompt
        self.path = None if choices is None else Path(choices)
        self.tokens: list[int] = []
        """Without the one that ended it."""
        self.logprobs: list[float] = []
        """The end token's included."""
        self.finish_reason: FinishReason | None = None
        """None while it grows."""
        self._tokenizer, self._end_ids, self._choices = tokenizer, end_ids, choices
        self._text: str | None = None

    def anew(self) -> "Answer":
        """The same, with nothing given yet."""
        return Answer(self.request, self.prompt, self._tokenizer, self._end_ids, self._choices)

    @property
    def is_done(self) -> bool:
        return self.finish_reason is not None

    def allowed(self) -> list[int] | None:
        """The next tokens that lead to a choice; None where every one is allowed."""
        return None if self.path is None else self.path.allowed()

    def take(self, token: int, logprob: float) -> bool:
        """The next token; whether the answer is done with it."""
        self.logprobs.append(logprob)
        if self.path is not None:
            return self._step(self.path, token)
        if token in self._end_ids:
            self.finish_reason = "stop"
            return True
        self.tokens.append(token)
        if self.request.decoding.stop and (cut := self._cut()) is not None:
            self.finish_reason, self._text = "stop", cut
        elif len(self.logprobs) >= self.request.decoding.max_tokens:
            self.finish_reason = "length"
        return self.is_done

    def _step(self, path: Path, token: int) -> bool:
        """The next token towards a choice."""
        if token not in path.choices.end_ids:
            self.tokens.append(token)
        if path.take(token):
            self.finish_reason = "stop"
        elif len(self.logprobs) >= self.request.decoding.max_tokens:
            path.close()
            self.finish_reason = "length"
        self._text = f"{SEPARATOR} ".join(path.chosen)
        return self.is_done

    def _cut(self) -> str | None:
        """The text before the first stop text; None where there is none."""
        text = self._decoded()
        places = [place for stop in self.request.decoding.stop if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else None

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self.tokens, skip_special_tokens=True))

    def reply(self, seconds: float) -> Reply:
        """Of an answer that is done. A stop text's tokens are among the ids, for they were given."""
        assert self.finish_reason is not None
        return Reply(
            text=self._decoded() if self._text is None else self._text,
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=len(self.logprobs),
            token_ids=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            chosen=None if self.path is None else tuple(self.path.chosen),
            seconds=seconds,
        )
