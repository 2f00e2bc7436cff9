"""Grid captioner: EfficientNet-lite's last features, cell by cell, read by a small decoder that writes captions.

It is transformers' own VisionEncoderDecoderModel; only the encoder is new to it. Importing this module makes it known
(`register`), so that `from_pretrained(folder)` needs no code from the folder. The encoder is frozen: whatever happens
to the model, its features stay those of the published weights, and may be computed once.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
    ViTImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutput

from ..errors import UsageError
from .checkpoints import find_checkpoint
from .families import load_classifier
from .grid_names import MODEL_TYPE

CELL_PIXELS = 32
CHANNELS = 1280
"""Of the last features of every lite network."""
PLACE_WEIGHT = 6.0
"""Of the waves: of height 1 they drown among the channels, and "on the left" is guessed."""
FIRST_SPREAD = 0.07
"""Of the decoder's first weights: what it reads must matter from the first step on."""
DERIVED = ("hidden_size", "place_channels")
"""Fields of the configuration that follow from others."""
MARKS = PAD, START, END, UNKNOWN = "[PAD]", "[START]", "[END]", "[UNK]"


class GridEncoderConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """What the encoder computes."""

    model_type = MODEL_TYPE

    def __init__(
        self, network: str = "efficientnet-lite0", image_size: int = 224, frequencies: int = 8, **others: Any
    ) -> None:
        self.network, self.image_size, self.frequencies = network, image_size, frequencies
        self.place_channels = 4 * frequencies
        """The last channels, which say where a cell is: nothing to be left out while it is tuned."""
        self.hidden_size = CHANNELS + self.place_channels
        super().__init__(**{name: value for name, value in others.items() if name not in DERIVED})


class GridEncoder(PreTrainedModel):  # type: ignore[no-untyped-call]
    """[n, 3, image_size, image_size] to [n, cells, hidden_size]: a cell's features, then waves that say where it is.

    Features have mean 0 and variance 1 over the channels of a cell: captions are then learned three times as fast.
    """

    config_class = GridEncoderConfig
    main_input_name = "pixel_values"

    def __init__(self, config: GridEncoderConfig) -> None:
        super().__init__(config)
        self.network = lite_network(config.network)
        self.side = config.image_size // CELL_PIXELS
        self.post_init()  # type: ignore[no-untyped-call]
        self.requires_grad_(False)

    def forward(self, pixel_values: Float[Tensor, "n 3 y x"], **_: Any) -> BaseModelOutput:
        cells = self.network.extract_features(pixel_values.contiguous(memory_format=torch.channels_last))
        cells = nn.functional.layer_norm(cells.flatten(2).transpose(1, 2), (CHANNELS,))
        places = waves(self.side, self.config.frequencies).to(cells)
        return BaseModelOutput(last_hidden_state=torch.cat([cells, places.expand(len(cells), -1, -1)], dim=2))

    def train(self, mode: bool = True) -> "GridEncoder":
        """The network stays in eval mode: its running statistics are part of what is published."""
        super().train(mode)
        self.network.eval()
        return self

    def get_output_embeddings(self) -> None:
        return None

    def _init_weights(self, module: nn.Module) -> None:
        """They come from a file."""


def lite_network(name: str) -> Any:
    """The network's code, without weights, without its classifier."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            f"a captioner on {name} needs its network code. Run `pip install --no-deps efficientnet-lite-pytorch`."
        ) from error
    network: Any = EfficientNet.from_name(name)
    network._fc = nn.Identity()
    return network.eval()


def waves(side: int, frequencies: int) -> Float[Tensor, "cells waves"]:
    """Sines and cosines of a cell's row and column, from half a wave over the image on, PLACE_WEIGHT high."""
    turns = (torch.arange(side) + 0.5) / side * math.pi
    angles = turns[:, None] * torch.arange(1, frequencies + 1)
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = one[:, None].expand(side, side, -1), one[None].expand(side, side, -1)
    return PLACE_WEIGHT * torch.cat([rows, columns], dim=2).flatten(0, 1)


def register() -> None:
    """Make the encoder known to transformers; may be called again."""
    AutoConfig.register(MODEL_TYPE, GridEncoderConfig, exist_ok=True)
    AutoModel.register(GridEncoderConfig, GridEncoder, exist_ok=True)


register()


def new_captioner(
    folder: Path, network: str, words: Sequence[str], *, width: int = 160, layers: int = 2, heads: int = 4,
    longest: int = 64, dropout: float = 0.1, seed: int = 0,
) -> None:  # fmt: skip
    """Write a folder as transformers does: the encoder with its published weights, a decoder that knows nothing yet,
    a tokenizer of these words (what is no word of them becomes UNKNOWN), and the image processor.

    Equal arguments give equal bytes. `longest` is the most tokens of a prompt and its caption.
    """
    classifier = load_classifier(find_checkpoint(network))
    parameters: Any = classifier.network._global_params
    size = int(parameters.image_size)
    tokenizer = word_tokenizer(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = GPT2LMHeadModel(decoder_config(tokenizer, width, layers, heads, longest, dropout))
        encoder = GridEncoder(GridEncoderConfig(network=network, image_size=size))
        model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    weights = {name: value for name, value in classifier.network.state_dict().items() if not name.startswith("_fc.")}
    encoder.network.load_state_dict(weights, strict=True)
    settle(model.config, tokenizer)
    settle(model.generation_config, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ViTImageProcessorPil(
        size={"height": size, "width": size}, resample=2, do_rescale=False, do_normalize=True,
        image_mean=[127.0] * 3, image_std=[128.0] * 3,
    ).save_pretrained(folder)  # fmt: skip


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word, between spaces; no token is added by itself."""
    vocabulary = {word: index for index, word in enumerate([*MARKS, *sorted(set(words) - set(MARKS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END, unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False, padding_side="right",
    )  # fmt: skip


def decoder_config(
    tokenizer: PreTrainedTokenizerFast, width: int, layers: int, heads: int, longest: int, dropout: float
) -> GPT2Config:
    special: Any = tokenizer  # its ids, which are typed as what they might be elsewhere
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=width, n_layer=layers, n_head=heads, n_positions=longest + 2,
        initializer_range=FIRST_SPREAD, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        add_cross_attention=True,
        bos_token_id=special.bos_token_id, eos_token_id=special.eos_token_id, pad_token_id=special.pad_token_id,
    )  # fmt: skip
    config.is_decoder = True
    return config


def settle(config: PreTrainedConfig | Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """The tokens that begin, end and fill a caption."""
    config.decoder_start_token_id = tokenizer.bos_token_id
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
