"""Encoding: a request's prompt as token ids and image tensors; one shape, one batch."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError
from .protocol import Message, Request
from .transformers_model import Model, Reading, first_caption_id

LENGTHS_PER_OCTAVE = 8
"""Padded lengths between one power of two and the next, at most: so that few prompts share none."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What the network is given of one request, on the CPU, without padding."""

    ids: tuple[int, ...]
    """At least one."""
    per_token: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """int64 [tokens] by name, beyond ids and mask."""
    extras: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Images and what goes with them by name; rows of a batch are joined along axis 0."""

    @property
    def shape(self) -> Hashable:
        """Prompts of one shape and one padded length are computed together."""
        return (
            tuple(sorted(self.per_token)),
            tuple(sorted((name, tuple(value.shape)) for name, value in self.extras.items())),
        )


def encode(reading: Reading, request: Request) -> Prompt:
    """Raises UsageError where the model takes no such prompt."""
    if reading.family == "captioner":
        return _encode_caption(reading, request)
    if reading.family == "causal" and request.all_images:
        raise UsageError(f"{reading.model_type} reads no images. Use a vision-language model, or leave images out.")
    if isinstance(request.prompt, str):
        return _split(_processed(reading, request.prompt, request.images))
    if reading.template is None:
        return _split(_processed(reading, plain(reading, request.prompt), request.all_images))
    chat = [_turn(reading, message) for message in request.prompt]
    going_on = request.prompt[-1].role == "assistant"
    return _split(
        reading.template.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=not going_on,
            continue_final_message=going_on,
        )
    )  # fmt: skip


def plain(reading: Reading, messages: Sequence[Message]) -> str:
    """A chat for a model without a template: its one message, images first."""
    if len(messages) != 1 or messages[0].role != "user":
        raise UsageError(
            f"this {reading.model_type} model has no chat template, so it takes one user message or a plain prompt, "
            f"got {', '.join(message.role for message in messages) or 'nothing'}. Give that, or a chat model."
        )
    mark = str(getattr(reading.processor, "image_token", "") or "") if reading.family == "image_text" else ""
    return mark * len(messages[0].images) + messages[0].text


def _turn(reading: Reading, message: Message) -> dict[str, Any]:
    if reading.family == "causal":
        return {"role": message.role, "content": message.text}
    images = [{"type": "image", "image": _picture(image)} for image in message.images]
    return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def _processed(reading: Reading, text: str, images: Sequence[Any]) -> Mapping[str, Tensor]:
    if reading.family == "causal":
        return dict(reading.tokenizer(text, return_tensors="pt"))
    pictures = [_picture(image) for image in images] or None
    return dict(reading.processor(text=text, images=pictures, return_tensors="pt"))


def _split(inputs: Mapping[str, Tensor]) -> Prompt:
    ids = inputs["input_ids"]
    per_token, extras = {}, {}
    for name, value in inputs.items():
        if name in {"input_ids", "attention_mask"}:
            continue
        if value.shape == ids.shape and not value.is_floating_point():
            per_token[name] = value[0].to(torch.int64)
        else:
            extras[name] = value
    if not ids.numel():
        raise UsageError("the prompt is empty, and this model has no token that begins a text. Give it some text.")
    return Prompt(tuple(int(each) for each in ids[0]), per_token, extras)


def _encode_caption(reading: Reading, request: Request) -> Prompt:
    """The decoder's first token and the beginning of the caption that it goes on with."""
    text = request.prompt if isinstance(request.prompt, str) else plain(reading, request.prompt)
    images = request.all_images
    if len(images) != 1:
        raise UsageError(f"{reading.model_type} captions exactly one image per request, got {len(images)}.")
    processor = getattr(reading.processor, "image_processor", reading.processor)
    pixels = processor(images=_picture(images[0]), return_tensors="pt")["pixel_values"]
    words = reading.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return Prompt((first_caption_id(reading), *map(int, words)), {}, {"pixel_values": pixels})


def _picture(image: Any) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def padded_length(model: Model, tokens: int, pad_to: int) -> int:
    """Of a prompt of so many tokens: a multiple of `pad_to`, or of an eighth of the power of two below it.

    A prompt is padded by at least one: a batch in which no row is padded would be computed without a mask, by other
    kernels, and whether that is so must not depend on the neighbours.
    """
    if pad_to == 1 or model.reading.family == "captioner":
        return tokens
    step = max(pad_to, (1 << tokens.bit_length() - 1) // LENGTHS_PER_OCTAVE)
    return (tokens // step + 1) * step


def stacked(model: Model, prompts: Sequence[Prompt], length: int) -> dict[str, Tensor]:
    """What the network takes of these rows on its device, padded on the left; `attention_mask` among it."""
    rows = {"input_ids": [_padded(prompt.ids, length, model.pad_id) for prompt in prompts]}
    rows["attention_mask"] = [_padded([1] * len(prompt.ids), length, 0) for prompt in prompts]
    for name in prompts[0].per_token:
        rows[name] = [_padded(prompt.per_token[name].tolist(), length, 0) for prompt in prompts]
    inputs = {name: torch.tensor(values, device=model.device) for name, values in rows.items()}
    for name in prompts[0].extras:
        joined = torch.cat([prompt.extras[name] for prompt in prompts]).to(model.device)
        inputs[name] = joined.to(model.dtype) if joined.is_floating_point() else joined
    return inputs


def _padded(values: Sequence[int], length: int, filling: int) -> list[int]:
    return [filling] * (length - len(values)) + list(values)
