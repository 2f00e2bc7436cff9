"""Small captioner: a random VisionEncoderDecoder of ViT and GPT-2, and a language model, as folders."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [
    "short:", "long:", "a", "and", "red", "blue", "green", "ball", "box", "on", "in", "at", "the", "left", "right",
    "middle", "top", "bottom",
]  # fmt: skip
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def decoder(**changes: Any) -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=32, vocab_size=len(SPECIAL) + len(WORDS), bos_token_id=1,
        eos_token_id=2, pad_token_id=0, **changes,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def save_captioner(folder: Path) -> Path:
    torch.manual_seed(0)
    vit = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.VisionEncoderDecoderModel(
        encoder=transformers.ViTModel(vit), decoder=decoder(is_decoder=True, add_cross_attention=True)
    )
    model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = 1, 0, 2
    model.save_pretrained(folder)
    save_tokenizer(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_language_model(folder: Path) -> Path:
    torch.manual_seed(0)
    decoder().save_pretrained(folder)
    save_tokenizer(folder)
    return folder
