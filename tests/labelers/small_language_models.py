"""Small language models: random ones of real architectures with a vocabulary of words, saved as transformers saves."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
SENTENCE = (
    "a the red blue green small old fox cat owl dog bee sits runs sleeps on under near mat tree house and then is very "
    "short long caption of describe user assistant system one two three four five six seven eight nine ten"
)
WORDS = SENTENCE.split()
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role + ' ' }}{% if message.content is string %}"
    "{{ message.content + ' ' }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}"
    "{{ '<image> ' }}{% else %}{{ part.text + ' ' }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
TEXT = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": len(SPECIAL) + len(WORDS),
    "initializer_range": 0.4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 16, "initializer_range": 0.2,
}  # fmt: skip
SQUARE: dict[str, Any] = {"size": {"height": 32, "width": 32}}


def tokenizer(template: str | None = TEMPLATE) -> Any:
    """Words by white space; every word is one token."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    model = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    fast.chat_template = template
    return fast


def save_llama(folder: Path, seed: int = 0, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A causal language model."""
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT | changes)).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder


def save_llava(folder: Path, seed: int = 0) -> Path:
    """A vision-language model whose processor puts four tokens for an image."""
    torch.manual_seed(seed)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, projection_dim=16),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE["size"]), tokenizer(),
        patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_blip(folder: Path, seed: int = 0) -> Path:
    """A captioner with a BERT-like decoder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS]
    (folder / "words.txt").write_text("\n".join(words))
    bert = transformers.BertTokenizer(vocab=str(folder / "words.txt"))
    (folder / "words.txt").unlink()
    text = {
        "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": len(words), "max_position_embeddings": 64, "initializer_range": 0.4,
        "bos_token_id": 5, "eos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0, "projection_dim": 16,
    }  # fmt: skip
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BlipProcessor(transformers.BlipImageProcessor(**SQUARE), bert).save_pretrained(folder)
    return folder


def save_captioner(folder: Path, seed: int = 0) -> Path:
    """A VisionEncoderDecoderModel of ViT and GPT-2."""
    torch.manual_seed(seed)
    encoder = transformers.ViTModel(transformers.ViTConfig(**VISION))
    decoder = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            vocab_size=len(SPECIAL) + len(WORDS),
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
            add_cross_attention=True,
        )
    )
    decoder.config.is_decoder = True
    model = transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = 1, 0, 2
    model.save_pretrained(folder)
    tokenizer(None).save_pretrained(folder)
    transformers.ViTImageProcessor(**SQUARE).save_pretrained(folder)
    return folder
