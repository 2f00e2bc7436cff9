"""Proofs: what an engine promises of a model, tried out on it before it answers anything."""

import random
from collections.abc import Sequence

import numpy as np
import torch

from ...errors import Refused
from .answers import Answer
from .encoding import Prompt, encode, padded_length
from .generating import generate
from .protocol import Decoding, Request
from .scoring import Prefix
from .transformers_model import Model, text_config

STEPS = 4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Between the logits of a prompt with and without padding, as a share of their spread."""
PIXELS = 32
UNPADDED_TOKENS = 16


def prove_neighbours(model: Model, rows: int, pad_to: int) -> bool:
    """Whether a prompt is answered the same bit for bit in the first and in the last of `rows` rows, among others."""
    tried, *others = (_prompt(model, pad_to, seed) for seed in range(2 * rows - 1))
    first = _answer(model, [tried, *others[: rows - 1]], 0, pad_to)
    return first == _answer(model, [*others[rows - 1 :], tried], rows - 1, pad_to)


@torch.inference_mode()
def prove_padding(model: Model, pad_to: int) -> None:
    """Raises Refused where padding on the left changes more than the last bits."""
    if model.reading.family == "captioner" or pad_to == 1:
        return
    prompt = _prompt(model, pad_to, 0)
    tokens = len(prompt.ids)
    lengths = (tokens, padded_length(model, tokens, pad_to))
    bare, padded = (Prefix(model, [prompt], length).logits[0].log_softmax(0) for length in lengths)
    off = float((bare - padded).abs().max() / bare.std())
    if not off <= TOLERANCE[model.dtype]:
        raise Refused(
            f"{model.reading.model_type} is not indifferent to padding: logits move by {off:.2g} of their spread. Set "
            "engine.pad_to to 1, so that only prompts of one length are computed together."
        )


def _answer(model: Model, batch: Sequence[Prompt], place: int, pad_to: int) -> tuple[list[int], list[float]]:
    request = Request(prompt="", decoding=Decoding(max_tokens=STEPS))
    answers = [Answer(request, prompt.ids, model.reading.tokenizer, frozenset(), None) for prompt in batch]
    generate(model, batch, answers, padded_length(model, len(batch[0].ids), pad_to), len(batch))
    return answers[place].tokens, answers[place].logprobs


def _prompt(model: Model, pad_to: int, seed: int) -> Prompt:
    """Some prompt; all of one padded length."""
    if model.reading.family == "captioner":
        pixels = np.random.default_rng(seed).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
        return encode(model.reading, Request(prompt="", images=(pixels,), decoding=Decoding()))
    tokenizer = model.reading.tokenizer
    known = range(min(len(tokenizer), text_config(model.reading).vocab_size))
    usable = sorted(set(known) - set(tokenizer.all_special_ids) - set(tokenizer.added_tokens_decoder))
    room = model.context - STEPS
    if pad_to == 1:
        tokens = min(UNPADDED_TOKENS, room)
    else:
        tokens = min(pad_to * (room >= 2 * pad_to) + pad_to - 1 - seed % (pad_to - 1), room)
    return Prompt(tuple(random.Random(seed).choices(usable, k=tokens)))  # noqa: S311
