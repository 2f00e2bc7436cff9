"""Token models: patches lie where they are in the image, and what the head reads is proven or refused."""

from pathlib import Path

import pytest
import torch
import transformers
from small_models import CONFIGURATIONS, NAMES, save_model

from relabel.errors import Refused
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.classifiers import from_tokens
from relabel.labelers.dense import DenseClassifier, Proof, Surgery
from relabel.labelers.families import load_classifier
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters

READINGS: dict[str, tuple[tuple[int, int], Proof]] = {
    "ViT": ((6, 6), "class_token"),
    "DeiT": ((6, 6), "class_token"),
    "Beit": ((6, 6), "class_token"),
    "CLIP": ((6, 6), "mean_of_cells"),
    "Dinov2": ((6, 6), "mean_of_cells"),
    "Dinov2WithRegisters": ((6, 6), "mean_of_cells"),
    "Swin": ((12, 12), "mean_of_cells"),
}


def dense_of(folder: Path) -> DenseClassifier:
    return DenseClassifier(load_classifier(find_checkpoint(str(folder))), "cpu")


def changed_cells(dense: DenseClassifier, size: int, y: slice, x: slice) -> torch.Tensor:
    """How much each cell's logits move when one block of the image turns from grey to a red."""
    grey = torch.full((1, size, size, 3), 128, dtype=torch.uint8)
    marked = grey.clone()
    marked[:, y, x] = torch.tensor([255, 0, 60], dtype=torch.uint8)
    return (dense(marked) - dense(grey)).abs().amax(dim=1)[0]


@pytest.mark.parametrize("family", READINGS)
def test_the_head_is_proven_and_patches_lie_where_they_are(family: str, tmp_path: Path) -> None:
    dense = dense_of(save_model(tmp_path, family))
    (rows, columns), proof = READINGS[family]
    assert dense.prove(96) == Surgery((rows, columns), proof)
    moved = changed_cells(dense, 96, slice(0, 16), slice(64, 96))
    assert moved.shape == (rows, columns)
    y, x = divmod(int(moved.argmax()), columns)
    assert y < rows / 6
    assert x >= columns * 4 / 6


def test_the_head_on_the_class_token_is_the_models_answer(tmp_path: Path) -> None:
    dense = dense_of(save_model(tmp_path, "ViT"))
    pixels = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        inputs = dense.classifier.normalisation.apply(pixels)
        features = dense.classifier.features(inputs)
        assert not isinstance(features, torch.Tensor)
        assert features.token is not None
        ordinary = dense.classifier.logits(inputs)
        assert torch.allclose(dense.head(features.token), ordinary, atol=1e-4)
    assert float((dense(pixels).mean(dim=(2, 3)) - ordinary).abs().max()) > 0.1


@pytest.mark.parametrize(("family", "size", "cells"), [("ViT", 128, 8), ("Swin", 144, 18), ("Dinov2", 64, 4)])
def test_other_sizes_interpolate_positions(family: str, size: int, cells: int, tmp_path: Path) -> None:
    dense = dense_of(save_model(tmp_path, family))
    assert dense.prove(size) == Surgery((cells, cells), READINGS[family][1])


def test_bf16_keeps_the_proof(tmp_path: Path) -> None:
    dense = dense_of(save_model(tmp_path, "ViT"))
    dense.to_bf16(96)
    assert dense.prove(96).proof == "class_token"


def test_a_norm_after_pooling_is_refused(tmp_path: Path) -> None:
    dense = dense_of(save_model(tmp_path, "Beit", changes={"use_mean_pooling": True}))
    with pytest.raises(Refused, match=r"mean of its dense logits differs .* class token by .* BEiT with mean pooling"):
        dense.prove(96)


def test_two_heads_are_refused(tmp_path: Path) -> None:
    config = transformers.DeiTConfig(**CONFIGURATIONS["DeiT"], id2label=NAMES)
    transformers.DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(Refused, match="no second head for distillation"):
        load_classifier(find_checkpoint(str(tmp_path)))


def test_tokens_that_fill_no_square_are_refused() -> None:
    with pytest.raises(Refused, match="11 tokens less 1 that are no patches"):
        from_tokens(torch.zeros(1, 11, 4), 1)
    features = from_tokens(torch.arange(10.0).reshape(1, 10, 1), 1)
    assert features.cells[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_the_contract_says_which_proof_holds(tmp_path: Path) -> None:
    for family in ("ViT", "Swin"):
        folder = str(save_model(tmp_path / family, family))
        made = LabelMapLabeler(LabelMapParameters(model=folder, input_size=96, top_k=3))
        made.facts = made.inspect()
        assert made.writes().proof == READINGS[family][1]
        assert made.writes().engine_error is None
        assert made.writes().column("ids").shape == (*READINGS[family][0], 3)
