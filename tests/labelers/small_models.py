"""Small models: random classifiers of real architectures, saved as transformers saves them."""

from pathlib import Path
from typing import Any

import torch
import transformers

NAMES = {0: "cat", 1: "dog", 2: "owl", 3: "fox", 4: "bee"}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
    "MobileNetV2": {"depth_multiplier": 0.25},
    "EfficientNet": {
        "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "kernel_sizes": [3, 3],
        "in_channels": [32, 16], "out_channels": [16, 320], "depthwise_padding": [], "strides": [1, 2],
        "num_block_repeats": [1, 1], "expand_ratios": [1, 2],
    },
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "ViT": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 96, "patch_size": 16,
    },
    "DeiT": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 96, "patch_size": 16,
    },
    "Beit": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 96, "patch_size": 16, "use_mean_pooling": False,
    },
    "Dinov2": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 96, "patch_size": 16,
    },
    "Dinov2WithRegisters": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 96, "patch_size": 16,
        "num_register_tokens": 4,
    },
    "Swin": {
        "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 3, "image_size": 96, "patch_size": 4,
    },
    "CLIP": {
        "vision_config": {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "image_size": 96, "patch_size": 16,
        },
    },
}  # fmt: skip
PROCESSORS = {"MobileNetV2": "MobileNetV2", "EfficientNet": "EfficientNet", "ViT": "ViT"}


def save_model(
    folder: Path, family: str, seed: int = 0, changes: dict[str, Any] | None = None, **processor: Any
) -> Path:
    """A classifier of that family with logits of usual size, and its image processor."""
    torch.manual_seed(seed)
    labels = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
    config = getattr(transformers, f"{family}Config")(**CONFIGURATIONS[family] | (changes or {}), **labels)
    network = getattr(transformers, f"{family}ForImageClassification")(config)
    scale_logits(network.eval())
    network.save_pretrained(folder)
    options = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], **processor}
    getattr(transformers, f"{PROCESSORS.get(family, 'ConvNext')}ImageProcessor")(**options).save_pretrained(folder)
    return folder


@torch.no_grad()
def scale_logits(network: torch.nn.Module) -> None:
    """Freshly drawn weights give logits near 0, among which any error would be small."""
    (head,) = [layer for layer in network.get_submodule("classifier").modules() if isinstance(layer, torch.nn.Linear)]
    logits = network(torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))).logits
    head.weight.mul_(3 / logits.std())
