"""Scoring: how probable given texts are after prompts. A prompt goes through the network once for all its texts."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from .encoding import Prompt, stacked
from .protocol import Scored
from .transformers_model import Model


class Prefix:
    """Prompts of one shape that went through the network: the next token's logits, and what goes on from there."""

    def __init__(self, model: Model, prompts: Sequence[Prompt], length: int) -> None:
        self.model, self.length = model, length
        inputs = stacked(model, prompts, length)
        self._ids = inputs["input_ids"]
        if model.reading.family == "captioner":
            self._images = _encoded(model, inputs["pixel_values"])
            self.logits = self._decoded(self._ids)[:, -1]
            return
        self._mask = inputs["attention_mask"]
        output = model.network(
            **inputs, **self._positions(0), use_cache=True, **_options(model.network, logits_to_keep=1)
        )
        self._cache, self.logits = output.past_key_values, output.logits[:, -1].float()

    def after(self, texts: Sequence[Sequence[int]]) -> Float32[Tensor, "rows tokens vocabulary"]:
        """Logits after each token of one text per row, all of one length."""
        tokens = torch.tensor([list(text) for text in texts], device=self.model.device)
        if self.model.reading.family == "captioner":
            return self._decoded(torch.cat([self._ids, tokens], 1))[:, self.length :]
        mask = torch.cat([self._mask, torch.ones_like(tokens)], 1)
        output = self.model.network(
            input_ids=tokens, attention_mask=mask, past_key_values=copy.deepcopy(self._cache), use_cache=True,
            **self._positions(tokens.shape[1]),
        )  # fmt: skip
        logits: Tensor = output.logits.float()
        return logits

    def _positions(self, more: int) -> dict[str, Tensor]:
        """Positions that count no padding, of the prompt (0) or of so many tokens after it."""
        places = self._mask.cumsum(1) - 1
        if more:
            places = places[:, -1:] + torch.arange(1, more + 1, device=places.device)
        return _options(self.model.network, position_ids=places.clamp(min=0))

    def _decoded(self, ids: Tensor) -> Tensor:
        logits: Tensor = _captioned(self.model, self._images, ids).float()
        return logits


@torch.inference_mode()
def score(
    model: Model, prompts: Sequence[Prompt], texts: Sequence[Sequence[Sequence[int]]], length: int, rows: int
) -> list[list[Scored]]:
    """The log-likelihood of every text (token ids) of every prompt; the i-th texts of all prompts have one length.

    Always `rows` rows: fewer prompts are filled up by copies of the first.
    """
    places = [row if row < len(prompts) else 0 for row in range(rows)]
    prefix = Prefix(model, [prompts[place] for place in places], length)
    first = prefix.logits.log_softmax(1)
    found: list[list[Scored]] = [[] for _ in prompts]
    for index in range(len(texts[0])):
        column = [texts[place][index] for place in places]
        likely = _text_logprobs(prefix, first, column)
        for row in range(len(prompts)):
            found[row].append(Scored(float(likely[row]), len(column[row]), len(prompts[row].ids)))
    return found


def _text_logprobs(prefix: Prefix, first: Tensor, column: Sequence[Sequence[int]]) -> Tensor:
    if not column[0]:
        return torch.zeros(len(column))
    tokens = torch.tensor([list(text) for text in column], device=first.device)
    likely = first.gather(1, tokens[:, :1])[:, 0].double()
    if tokens.shape[1] > 1:
        rest = prefix.after([text[:-1] for text in column]).log_softmax(2)
        likely = likely + rest.gather(2, tokens[:, 1:, None])[:, :, 0].double().sum(1)
    return likely


def _options(network: Any, **options: Any) -> dict[str, Any]:
    """Those that this network's forward takes."""
    known = inspect.signature(network.forward).parameters
    return {name: value for name, value in options.items() if name in known}


def _encoded(model: Model, pixels: Tensor) -> Any:
    if model.reading.model_type == "blip":
        return model.network.vision_model(pixel_values=pixels)[0]
    return model.network.get_encoder()(pixel_values=pixels)


def _captioned(model: Model, images: Any, ids: Tensor) -> Tensor:
    """Logits after every token."""
    if model.reading.model_type == "blip":
        output = model.network.text_decoder(input_ids=ids, encoder_hidden_states=images, use_cache=False)
    else:
        output = model.network(encoder_outputs=images, decoder_input_ids=ids, use_cache=False)
    logits: Tensor = output.logits
    return logits
