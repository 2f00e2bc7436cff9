"""Answers: what one request has got so far, token by token, and when that is enough."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ...errors import UsageError
from .protocol import FinishReason, Reply, Request

MANTISSA_BITS = 53


@dataclasses.dataclass
class Trie:
    """Texts as paths of token ids; a text may begin another one."""

    children: dict[int, "Trie"] = dataclasses.field(default_factory=dict)
    text: str | None = None
    """The text that ends here."""

    def add(self, ids: Sequence[int], text: str) -> None:
        node = self
        for each in ids:
            node = node.children.setdefault(each, Trie())
        if node.text is not None:
            raise UsageError(f"the choices {node.text!r} and {text!r} are the same tokens to this model. Drop one.")
        node.text = text


def trie_of(choices: Sequence[str], tokenizer: Any, end_ids: Collection[int], max_tokens: int) -> Trie:
    """The choices as the tokenizer cuts them; raises UsageError where one could not be given as an answer."""
    root = Trie()
    for text in choices:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or len(ids) > max_tokens:
            raise UsageError(
                f"the choice {text!r} has {len(ids)} tokens, expected 1 to max_tokens ({max_tokens}). Change it, or "
                "raise max_tokens."
            )
        root.add(ids, text)
    if not root.children or (not end_ids and _has_prefix(root)):
        raise UsageError("expected at least one choice, none the beginning of another where the model has no end token")
    return root


def _has_prefix(node: Trie) -> bool:
    return any((child.text is not None and child.children) or _has_prefix(child) for child in node.children.values())


def uniforms(seed: int, count: int) -> Float64[np.ndarray, "steps"]:
    """Numbers in [0, 1), one per token: entry i is a function of (seed, i) alone (Philox, Salmon et al. 2011)."""
    raw = np.random.Philox(key=seed).random_raw(count)
    return np.asarray(raw >> np.uint64(64 - MANTISSA_BITS), np.float64) * 2.0**-MANTISSA_BITS


class Answer:
    """One answer as it grows."""

    def __init__(
        self, request: Request, prompt: Sequence[int], tokenizer: Any, end_ids: frozenset[int], trie: Trie | None
    ) -> None:
        self.request, self.prompt, self.node = request, prompt, trie
        self.tokens: list[int] = []
        """Without the one that ended it."""
        self.logprobs: list[float] = []
        """The end token's included."""
        self.finish_reason: FinishReason | None = None
        """None while it grows."""
        self._tokenizer, self._end_ids, self._trie = tokenizer, end_ids, trie
        self._text: str | None = None

    def anew(self) -> "Answer":
        """The same, with nothing given yet."""
        return Answer(self.request, self.prompt, self._tokenizer, self._end_ids, self._trie)

    @property
    def is_done(self) -> bool:
        return self.finish_reason is not None

    def allowed(self) -> list[int] | None:
        """The next tokens that lead to a choice; None where every one is allowed."""
        if self.node is None:
            return None
        ends = self._end_ids if self.node.text is not None else ()
        return [*self.node.children, *ends]

    def take(self, token: int, logprob: float) -> bool:
        """The next token; whether the answer is done with it."""
        self.logprobs.append(logprob)
        if token in self._end_ids:
            self.finish_reason = "stop"
            self._text = None if self.node is None else self.node.text
            return True
        self.tokens.append(token)
        if self.node is not None:
            self.node = self.node.children[token]
        if self.node is not None and not self.node.children:
            self.finish_reason, self._text = "stop", self.node.text
        elif self.request.decoding.stop and (cut := self._cut()) is not None:
            self.finish_reason, self._text = "stop", cut
        elif len(self.logprobs) >= self.request.decoding.max_tokens:
            self.finish_reason = "length"
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
            seconds=seconds,
        )
