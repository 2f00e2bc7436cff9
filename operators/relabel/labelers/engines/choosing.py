"""Choosing: the next token of every row of a batch, each by its own request's decoding and seed alone.

All that is done to logits is done per row, by functions of the row's values: no order of equal values, no neighbour and
no generator's state has a say. Tokens are drawn by inverting the distribution function of probabilities in units of
2^-40, whose sums are exact in any order; what is less probable than that never comes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from .answers import Answer, uniforms
from .protocol import Decoding

UNIT = 2.0**40
NUCLEUS_PREFIX = 1024
"""Most probable tokens that are sorted before all are."""


class Chooser:
    """Follows `generate` as its logits processor and its stopping criterion: it leaves one token per row.

    Rows beyond the answers copy the first one.
    """

    def __init__(
        self, answers: Sequence[Answer], rows: int, vocabulary: int, pad_id: int, device: torch.device,
        on_done: Callable[[Answer], None] = lambda answer: None,
    ) -> None:  # fmt: skip
        self.answers, self.pad_id, self.device, self.on_done = answers, pad_id, device, on_done
        self.owner = [row if row < len(answers) else 0 for row in range(rows)]
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)
        self._groups: dict[Decoding, list[int]] = {}
        for row, owner in enumerate(self.owner):
            decoding = answers[owner].request.decoding.model_copy(update={"max_tokens": 1, "stop": ()})
            self._groups.setdefault(decoding, []).append(row)
        self._uniforms = self._drawn()
        self._seen = self._occurred(vocabulary)

    def _drawn(self) -> np.ndarray:
        requests = [answer.request for answer in self.answers]
        steps = max(request.decoding.max_tokens for request in requests)
        drawn = np.zeros((len(requests), steps))
        for row, request in enumerate(requests):
            if request.decoding.temperature:
                drawn[row, : request.decoding.max_tokens] = uniforms(request.seed, request.decoding.max_tokens)
        return drawn

    def _occurred(self, vocabulary: int) -> Tensor | None:
        """Bool [rows, vocabulary] of tokens in prompts, where any decoding asks for it."""
        if all(decoding.repetition_penalty == 1 for decoding in self._groups):
            return None
        seen = torch.zeros((len(self.owner), vocabulary), dtype=torch.bool)
        for row, owner in enumerate(self.owner):
            seen[row, [each for each in self.answers[owner].prompt if each < vocabulary]] = True
        return seen.to(self.device)

    def __call__(self, input_ids: Tensor, scores: Float32[Tensor, "rows vocabulary"]) -> Tensor:
        """Logits to 0 for the chosen token and -inf for all others; each answer takes its token."""
        chosen = self.choose(scores)
        logprobs = scores.gather(1, chosen[:, None])[:, 0] - scores.logsumexp(1)
        for answer, token, logprob in zip(self.answers, chosen.tolist(), logprobs.tolist(), strict=False):
            if not answer.is_done:
                if not math.isfinite(logprob):
                    raise ValueError("the model gives no finite probabilities")
                if answer.take(token, logprob):
                    self.on_done(answer)
        self._done = torch.tensor([self.answers[owner].is_done for owner in self.owner], device=chosen.device)
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], value=True)
        return torch.full_like(scores, -math.inf).scatter_(1, chosen[:, None], 0.0)

    def done(self, input_ids: Tensor, scores: object, **_: object) -> Bool[Tensor, "rows"]:
        """The stopping criterion."""
        return self._done

    def choose(self, scores: Float32[Tensor, "rows vocabulary"]) -> Int64[Tensor, "rows"]:
        limited = self._limited(scores)
        chosen = torch.full((len(scores),), self.pad_id, dtype=torch.int64, device=scores.device)
        for decoding, rows in self._groups.items():
            places = [row for row in rows if not self.answers[self.owner[row]].is_done]
            if not places:
                continue
            index = torch.tensor(places, device=scores.device)
            logits = limited.index_select(0, index)
            if decoding.repetition_penalty != 1:
                assert self._seen is not None
                logits = penalised(logits, self._seen.index_select(0, index), decoding.repetition_penalty)
            if decoding.temperature:
                owners = [self.owner[row] for row in places]
                steps = [len(self.answers[owner].logprobs) for owner in owners]
                numbers = torch.from_numpy(self._uniforms[owners, steps]).to(scores.device)
                chosen[index] = draw(logits, decoding, numbers)
            else:
                chosen[index] = logits.argmax(1)
        return chosen

    def _limited(self, scores: Float32[Tensor, "rows vocabulary"]) -> Tensor:
        """-inf for what leads to no choice."""
        limits = {row: self.answers[owner].allowed() for row, owner in enumerate(self.owner)}
        if all(allowed is None for allowed in limits.values()):
            return scores
        limited = scores.clone()
        for row, allowed in limits.items():
            if allowed is not None:
                kept = scores[row, allowed]
                limited[row] = -math.inf
                limited[row, allowed] = kept
        return limited


def penalised(
    logits: Float32[Tensor, "rows vocabulary"], seen: Bool[Tensor, "rows vocabulary"], penalty: float
) -> Float32[Tensor, "rows vocabulary"]:
    """Logits of tokens that occurred, divided by the penalty where positive, else multiplied (Keskar et al. 2019)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(
    logits: Float32[Tensor, "rows vocabulary"], decoding: Decoding, numbers: Float64[Tensor, "rows"]
) -> Int64[Tensor, "rows"]:
    """A token for each number in [0, 1). Tokens as probable as the last one that top_k or top_p keeps are kept."""
    scaled = logits / decoding.temperature
    if 0 < decoding.top_k < scaled.shape[1]:
        least = scaled.topk(decoding.top_k, 1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -math.inf)
    if decoding.top_p < 1:
        scaled = scaled.masked_fill(scaled < nucleus(scaled, decoding.top_p), -math.inf)
    sums = _weights(scaled, scaled.logsumexp(1, keepdim=True)).cumsum(1)
    totals = sums[:, -1]
    aims = torch.minimum((numbers * totals).floor().to(torch.int64), totals - 1)
    return torch.searchsorted(sums, aims[:, None], right=True)[:, 0].clamp(max=scaled.shape[1] - 1)


def nucleus(scaled: Float32[Tensor, "rows vocabulary"], top_p: float) -> Float32[Tensor, "rows 1"]:
    """The least logit among the fewest tokens that together have probability `top_p` (Holtzman et al. 2020)."""
    partition = scaled.logsumexp(1, keepdim=True)
    needed = top_p * UNIT
    best = scaled.topk(min(NUCLEUS_PREFIX, scaled.shape[1]), 1).values
    least = []
    for row in range(len(scaled)):
        values = best[row]
        if int(_weights(values, partition[row]).sum()) < needed:
            values = scaled[row].sort(descending=True).values
        short = _weights(values, partition[row]).cumsum(0) < needed
        least.append(values[min(int(short.sum()), len(values) - 1)])
    return torch.stack(least)[:, None]


def _weights(scaled: Tensor, partition: Tensor) -> Tensor:
    """Probabilities in units of 2^-40, as int64."""
    return ((scaled - partition).exp() * UNIT).round().to(torch.int64)
