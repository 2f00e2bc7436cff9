"""Two colours: scenes whose every pixel is known to be red or blue, and a SegFormer that learns them in seconds."""

import io
from pathlib import Path

import numpy as np
import torch
import transformers
from jaxtyping import UInt8
from PIL import Image

NAMES = {0: "red", 1: "blue"}
COLOURS = np.array([[200, 40, 50], [40, 60, 200]])
SIZE = 64
STEPS = 40


def scene(truth: UInt8[np.ndarray, "y x"], seed: int = 0) -> UInt8[np.ndarray, "y x 3"]:
    """A noisy photo of a map of the two colours."""
    noise = np.random.default_rng(seed).normal(0, 12, (*truth.shape, 3))
    return (COLOURS[truth] + noise).clip(0, 255).astype(np.uint8)


def rectangles(height: int, width: int, seed: int) -> UInt8[np.ndarray, "y x"]:
    """A few rectangles of one colour on the other."""
    random = np.random.default_rng(seed)
    truth = np.full((height, width), random.integers(2), np.uint8)
    for _ in range(3):
        (top, bottom), (left, right) = (np.sort(random.integers(0, side + 1, 2)) for side in (height, width))
        truth[top:bottom, left:right] = random.integers(2)
    return truth


def png(image: UInt8[np.ndarray, "y x 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def save_segmenter(folder: Path, steps: int = STEPS) -> Path:
    """A SegFormer for 64 x 64 pixels, logits on a grid of 16 x 16, saved with its image processor."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 32], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=32, drop_path_rate=0.0,
        classifier_dropout_prob=0.0, id2label=NAMES, label2id={name: index for index, name in NAMES.items()},
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny layers only wait for each other
    train(network, steps)
    torch.set_num_threads(threads)
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def train(network: torch.nn.Module, steps: int) -> None:
    """As transformers trains it: cross entropy at full size."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for step in range(steps):
        truths = np.stack([rectangles(SIZE, SIZE, 8 * step + row) for row in range(8)])
        images = np.stack([scene(truth, 8 * step + row) for row, truth in enumerate(truths)])
        pixels = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
        loss = network(pixels, labels=torch.from_numpy(truths).long()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
