"""Small encoders: CLIP and SigLIP as transformers saves them, tiny and random; one learns colours in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import UInt8
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

COLOURS = {"red": (200, 40, 50), "green": (40, 160, 70), "blue": (40, 60, 200), "white": (240, 240, 240),
           "black": (20, 20, 20), "yellow": (230, 210, 50)}  # fmt: skip
PAIRS = [(box, ground) for box in COLOURS for ground in COLOURS if box != ground]
WORDS = ("<pad>", "<unk>", "a", "box", "on", *COLOURS, "<bos>", "<eos>")
SIZE, BUDGET, STEPS = 32, 8, 60
TOWERS: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def caption(box: str, ground: str) -> str:
    return f"a {box} box on {ground}"


def scene(box: str, ground: str, seed: int, height: int = SIZE, width: int = SIZE) -> UInt8[np.ndarray, "y x 3"]:
    """A noisy photo of a box of one colour in the middle of another."""
    random = np.random.default_rng(seed)
    image = np.empty((height, width, 3))
    image[:] = COLOURS[ground]
    top, left = height // 4 + random.integers(-3, 4), width // 4 + random.integers(-3, 4)
    image[top : top + height // 2, left : left + width // 2] = COLOURS[box]
    return (image + random.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


def tokenizer(marks: str) -> Any:
    """One token a word, and the marks of the family: `<bos> $A <eos>`, `$A <eos>`."""
    ids = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(mark, ids[mark]) for mark in ("<bos>", "<eos>")]
    words.post_processor = processors.TemplateProcessing(single=marks, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>",
        model_max_length=BUDGET,
    )  # fmt: skip


def clip(image_size: int = SIZE) -> Any:
    ids = {f"{name}_token_id": WORDS.index(f"<{name}>") for name in ("bos", "eos", "pad")}
    text = {**TOWERS, **ids, "vocab_size": len(WORDS), "max_position_embeddings": BUDGET}
    vision = {**TOWERS, "image_size": image_size, "patch_size": 8}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def save_clip(folder: Path, steps: int = 0, edge: int = SIZE, together: bool = True) -> Path:
    """A CLIP for 32 x 32 pixels and 8 tokens; `together`: its processors in one file, as transformers 5 saves them."""
    torch.manual_seed(0)
    network, words = clip(), tokenizer("<bos> $A <eos>")
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": edge}, crop_size={"height": SIZE, "width": SIZE})
    if steps:
        train(network, words, pixels, steps)
    network.save_pretrained(folder)
    for part in [transformers.CLIPProcessor(pixels, words)] if together else [pixels, words]:
        part.save_pretrained(folder)
    return folder


def save_siglip(folder: Path, height: int = SIZE, width: int = SIZE) -> Path:
    torch.manual_seed(0)
    text = {**TOWERS, "vocab_size": len(WORDS), "max_position_embeddings": BUDGET, "projection_size": 32}
    vision = {**TOWERS, "image_size": SIZE, "patch_size": 8}
    transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": height, "width": width}).save_pretrained(folder)
    tokenizer("$A <eos>").save_pretrained(folder)
    return folder


def train(network: Any, words: Any, pixels: Any, steps: int) -> None:
    """As CLIP is trained: each of a batch's images belongs to one of its texts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny layers only wait for each other
    texts = words([caption(*pair) for pair in PAIRS], padding="max_length", max_length=BUDGET, return_tensors="pt")
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for step in range(steps):
        images = [scene(*pair, seed=step * len(PAIRS) + row) for row, pair in enumerate(PAIRS)]
        loss = network(**texts, **pixels(images=images, return_tensors="pt"), return_loss=True).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    torch.set_num_threads(threads)
