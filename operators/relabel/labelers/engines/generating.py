"""Generating: one batch of prompts of one shape through `generate` of transformers, with our own choice of tokens."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .answers import Answer
from .choosing import Chooser
from .encoding import Prompt, stacked
from .transformers_model import Model, text_config


@torch.inference_mode()
def generate(
    model: Model, prompts: Sequence[Prompt], answers: Sequence[Answer], length: int, rows: int,
    on_done: Callable[[Answer], None] = lambda answer: None,
) -> None:  # fmt: skip
    """Every answer is done afterwards, and `on_done` was called with it at once when it was.

    All answers have one `max_tokens`. Always `rows` rows: fewer prompts are filled up by copies of the first, whose
    answers are dropped.
    """
    transformers: Any = importlib.import_module("transformers")
    filled = [prompts[row] if row < len(prompts) else prompts[0] for row in range(rows)]
    inputs = stacked(model, filled, length)
    chooser = Chooser(answers, rows, text_config(model.reading).vocab_size, model.pad_id, model.device, on_done)
    if model.reading.family == "captioner":
        inputs.pop("attention_mask")
        inputs = _for_captioner(model, inputs)
    model.network.generate(
        **inputs,
        logits_processor=transformers.LogitsProcessorList([chooser]),
        stopping_criteria=transformers.StoppingCriteriaList([chooser.done]),
        max_new_tokens=answers[0].request.decoding.max_tokens,
        do_sample=False,
    )


def _for_captioner(model: Model, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = inputs.pop("input_ids")
    if model.reading.model_type != "blip":
        return {**inputs, "decoder_input_ids": ids}
    return {**inputs, "input_ids": torch.cat([ids, ids[:, -1:]], 1)}  # BLIP drops the last one: a tokenizer's end token
