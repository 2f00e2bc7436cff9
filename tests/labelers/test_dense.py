"""Dense classifiers: the mean over cells is the ordinary output, or the model is refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import NAMES, save_model

from relabel.errors import Refused, UsageError
from relabel.labelers.checkpoints import find_checkpoint
from relabel.labelers.classifiers import Classifier
from relabel.labelers.dense import DenseClassifier, Surgery
from relabel.labelers.families import load_classifier

CONVOLUTIONS = ("ResNet", "RegNet", "MobileNetV2", "EfficientNet")


def load(model: str | Path) -> Classifier:
    return load_classifier(find_checkpoint(str(model)))


def ordinary_logits(classifier: Classifier, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.logits(classifier.normalisation.apply(pixels))


def random_pixels(size: int, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [96, 224])
def test_lite_net_is_dense_to_a_hundred_thousandth(size: int) -> None:
    dense = DenseClassifier(load("efficientnet-lite0"), "cpu")
    assert dense.prove(size) == Surgery((size // 32, size // 32), "mean_of_cells")
    pixels = random_pixels(size)
    difference = dense(pixels).mean(dim=(2, 3)) - ordinary_logits(dense.classifier, pixels)
    assert float(difference.abs().max()) < 1e-5


@pytest.mark.parametrize("family", CONVOLUTIONS)
def test_convolutions_of_transformers_are_dense(family: str, tmp_path: Path) -> None:
    dense = DenseClassifier(load(save_model(tmp_path, family)), "cpu")
    rows, columns = dense.prove(96).grid
    assert rows == columns
    assert rows > 1
    pixels = random_pixels(96)
    ordinary = ordinary_logits(dense.classifier, pixels)
    assert float(ordinary.std(dim=0).max()) > 1e-3
    assert float((dense(pixels).mean(dim=(2, 3)) - ordinary).abs().max()) < 1e-4


def test_a_nonlinear_step_after_pooling_is_refused(tmp_path: Path) -> None:
    dense = DenseClassifier(load(save_model(tmp_path, "ConvNext")), "cpu")
    with pytest.raises(Refused, match=r"differs .* allowed is 0.0001.* LayerNorm after pooling of ConvNeXt.* Use"):
        dense.prove(96)


def test_bf16_keeps_a_full_precision_head() -> None:
    exact, rough = (DenseClassifier(load("efficientnet-lite0"), "cpu") for _ in range(2))
    pixels = random_pixels(96)
    rough.to_bf16(96)
    assert exact.prove(96) == rough.prove(96)
    logits = rough(pixels)
    assert logits.dtype == torch.float32
    assert rough.head.weight.dtype == torch.float32
    assert not torch.equal(logits, exact(pixels))
    assert torch.unique(logits).numel() > logits.numel() / 2


def test_the_processors_normalisation_is_ours(tmp_path: Path) -> None:
    plain = load(save_model(tmp_path / "plain", "ResNet")).normalisation
    assert (plain.mean, plain.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    raw = load(save_model(tmp_path / "raw", "ResNet", do_normalize=False, do_rescale=False)).normalisation
    assert np.array_equal(raw.apply(random_pixels(8)).permute(0, 2, 3, 1).numpy(), random_pixels(8).float().numpy())
    twice = load(save_model(tmp_path / "twice", "EfficientNet")).normalisation
    assert twice.std == pytest.approx((0.04, 0.0625, 0.09))


def test_a_processor_that_does_more_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "EfficientNet", rescale_offset=True)
    with pytest.raises(Refused, match="does more to an image"):
        load(folder)


def test_classes_come_from_the_configuration(tmp_path: Path) -> None:
    classifier = load(save_model(tmp_path, "ResNet"))
    assert classifier.load_class_map().names == tuple(NAMES.values())


def test_architecture_digest_follows_the_network_not_its_names(tmp_path: Path) -> None:
    first = load(save_model(tmp_path / "a", "ResNet"))
    renamed = save_model(tmp_path / "b", "ResNet", seed=1)
    config = json.loads((renamed / "config.json").read_text())
    config |= {"transformers_version": "9.9", "id2label": {str(index): f"x{index}" for index in range(5)}}
    (renamed / "config.json").write_text(json.dumps(config))
    assert load(renamed).architecture == first.architecture
    assert load(save_model(tmp_path / "c", "RegNet")).architecture != first.architecture
    (renamed / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    assert load(renamed).architecture != first.architecture


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "ResNet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depths": [1, 2]}))
    with pytest.raises(Refused, match="weights do not fit the network"):
        load(folder)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "ResNet")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Refused, match="does not load as an image classifier"):
        load(folder)


def test_a_model_without_processor_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "ResNet")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(Refused, match="normalisation is unknown"):
        load(folder)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(str(save_model(tmp_path, "ResNet")))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UsageError, match="pip install transformers"):
        load_classifier(checkpoint)
    with pytest.raises(UsageError, match="efficientnet-lite-pytorch"):
        load("efficientnet-lite0")
