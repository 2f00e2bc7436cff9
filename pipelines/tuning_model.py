"""Tuned model: a VisionEncoderDecoder of transformers that is taught: features of images, losses and captions.

The encoder always sees exactly ROWS images, so an image's features depend on no other and may be kept.
"""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from relabel.errors import Refused
from relabel.labelers.engines.transformers_files import ModelFiles
from relabel.labelers.engines.transformers_model import Reading, first_caption_id, load

from .tuning_recipe import TunedStyle

ROWS = 8
"""Images of one pass of the encoder."""
IGNORED = -100
"""A place whose token is not asked for."""
MARGIN = 4
"""Tokens that a caption may be longer than the longest of the tuning set."""
FAMILY = "vision-encoder-decoder"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Prompts and captions of a batch, filled up on the right."""

    given: Int64[Tensor, "rows tokens"]
    """What the decoder sees: the first token, the prompt, the caption."""
    wanted: Int64[Tensor, "rows tokens"]
    """The next one at each place: the caption's tokens and the end; IGNORED elsewhere."""

    @property
    def count(self) -> int:
        return int((self.wanted != IGNORED).sum())


class TunedModel:
    """The network on its device, with what makes numbers of text and images."""

    def __init__(self, files: ModelFiles, styles: Mapping[str, TunedStyle], device: str, freeze_encoder: bool) -> None:
        loaded = load(files, "fp32", device)
        if loaded.reading.model_type != FAMILY:
            raise Refused(
                f"{files.folder} holds {loaded.reading.model_type!r}; tuned are image captioners that transformers "
                f"saved as VisionEncoderDecoderModel, or `efficientnet-lite0` for a new small one."
            )
        self.files, self.styles, self.device = files, styles, loaded.device
        self.network: Any = loaded.network
        self.reading: Reading = loaded.reading
        self.context, self.pad, self.end = loaded.context, loaded.pad_id, min(loaded.end_ids)
        self.start = first_caption_id(loaded.reading)
        for name in styles:
            if len(self.prompt(name)) + MARGIN > self.context:
                raise Refused(
                    f"the prompt of the style {name!r} takes {len(self.prompt(name))} of the {self.context} tokens "
                    "that the decoder holds, and leaves no room for a caption. Give a shorter one."
                )
        self.network.encoder.requires_grad_(not freeze_encoder)
        self.freeze_encoder = freeze_encoder

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The weights that are tuned, by name."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    def pixels(self, images: Sequence[UInt8[np.ndarray, "y x 3"]]) -> Float[Tensor, "rows 3 height width"]:
        processor = self.reading.processor
        pixels: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"].to(self.device)
        return pixels

    def features(self, pixels: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, "rows cells channels"]:
        """Of any number of images, ROWS at a time; what fills the last pass is dropped."""
        found = []
        for start in range(0, len(pixels), ROWS):
            some = pixels[start : start + ROWS]
            filled = torch.cat([some, some[-1:].expand(ROWS - len(some), *some.shape[1:])])
            found.append(self.network.encoder(pixel_values=filled).last_hidden_state[: len(some)])
        return torch.cat(found)

    def thinned(
        self, features: Float[Tensor, "rows cells channels"], share: float
    ) -> Float[Tensor, "rows cells channels"]:
        """Without that share of the features, drawn anew for every row and cell; channels that say where a cell is
        (the configuration's `place_channels`, the last ones) stay.
        """
        if share == 0:
            return features
        seen = features.shape[2] - getattr(self.network.encoder.config, "place_channels", 0)
        return torch.cat([torch.nn.functional.dropout(features[..., :seen], share), features[..., seen:]], dim=2)

    def tokens(self, styles: Sequence[str], captions: Sequence[str]) -> Tokens:
        rows = [self.row(style, caption) for style, caption in zip(styles, captions, strict=True)]
        length = max(len(given) for given, _ in rows)
        given = [ids + [self.pad] * (length - len(ids)) for ids, _ in rows]
        wanted = [ids + [IGNORED] * (length - len(ids)) for _, ids in rows]
        return Tokens(torch.tensor(given, device=self.device), torch.tensor(wanted, device=self.device))

    def row(self, style: str, caption: str) -> tuple[list[int], list[int]]:
        """Given and wanted tokens of one caption, cut to what the decoder can hold."""
        prompt, words = self.prompt(style), self.ids(caption)[: self.context - len(self.prompt(style)) - 1]
        return [*prompt, *words], [*[IGNORED] * (len(prompt) - 1), *words, self.end]

    def prompt(self, style: str) -> list[int]:
        """What a caption of this style follows, as the engine gives it."""
        return [self.start, *self.ids(self.styles[style].prompt)]

    def ids(self, text: str) -> list[int]:
        return list(self.reading.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def loss(self, features: Float[Tensor, "rows cells channels"], tokens: Tokens) -> Float[Tensor, ""]:
        """Cross entropy in nats, summed over the wanted tokens."""
        logits = self.network(encoder_outputs=(features,), decoder_input_ids=tokens.given).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens.wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def write(self, features: Float[Tensor, "rows cells channels"], style: str, longest: int) -> list[str]:
        """Captions of at most `longest` tokens, always the most probable token."""
        prompt = torch.tensor([self.prompt(style)], device=self.device).expand(len(features), -1)
        outputs = importlib.import_module("transformers.modeling_outputs").BaseModelOutput(last_hidden_state=features)
        written = self.network.generate(
            encoder_outputs=outputs, decoder_input_ids=prompt, decoder_attention_mask=torch.ones_like(prompt),
            eos_token_id=self.end, pad_token_id=self.pad,
            max_new_tokens=min(longest, self.context - prompt.shape[1]), do_sample=False, num_beams=1,
        )  # fmt: skip
        return [self.text(row) for row in written[:, prompt.shape[1] :].tolist()]

    def text(self, ids: Sequence[int]) -> str:
        ended = ids[: ids.index(self.end)] if self.end in ids else ids
        return str(self.reading.tokenizer.decode(ended, skip_special_tokens=True)).strip()

    def save(self, folder: Path) -> None:
        """Network, tokenizer, image processor."""
        self.network.eval().save_pretrained(folder)
        self.reading.tokenizer.save_pretrained(folder)
        self.reading.processor.save_pretrained(folder)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Set trained weights by name."""
        with torch.no_grad():
            for name, value in self.trained().items():
                value.copy_(weights[name])


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
