"""timm and torchvision models, by modules of the same shape; a network of one's own; what is missing is named."""

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from relabel.errors import Refused, UnknownName, UsageError
from relabel.labelers.checkpoints import find_checkpoint, local_checkpoint
from relabel.labelers.classifiers import IMAGENET, Features, from_module, state_digest
from relabel.labelers.dense import DenseClassifier
from relabel.labelers.families import load_classifier
from relabel.labelers.label_map import LabelMapLabeler, LabelMapParameters

CLASSES = ("cat", "dog", "owl", "fox", "bee")


class Convolutions(nn.Module):
    """Shaped like timm's ResNet: forward_features, global pooling, one linear layer."""

    output_fmt = "NCHW"

    def __init__(self, num_classes: int = 5, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3, stride=8, padding=1), nn.ReLU())
        self.norm = nn.Identity()
        self.fc = nn.Linear(channels, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.body(pixels)
        return features.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else features

    def forward_head(self, features: Tensor) -> Tensor:
        pooled = features.mean(dim=(1, 2) if self.output_fmt == "NHWC" else (2, 3))
        return self.get_classifier()(self.norm(pooled))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(pixels))


class ChannelsLast(Convolutions):
    """Shaped like timm's Swin."""

    output_fmt = "NHWC"


class NormAfterPooling(Convolutions):
    """Shaped like timm's ConvNeXt, and ViTs with fc_norm."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__(num_classes)
        self.norm = nn.LayerNorm(8)


class LayerAfterPooling(Convolutions):
    """Shaped like timm's MobileNetV3: a wider layer between pooling and the classifier."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__(num_classes)
        self.norm = nn.Linear(8, 16)
        self.fc = nn.Linear(16, num_classes)


class TwoHeads(Convolutions):
    """Shaped like timm's distilled DeiT, whose get_classifier gives both."""

    def get_classifier(self) -> Any:
        return self.fc, self.fc


class Tokens(nn.Module):
    """Shaped like timm's VisionTransformer: a class token, patches of 16, positions for one size."""

    num_prefix_tokens = 1

    def __init__(self, num_classes: int = 5, dynamic_img_size: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 16, stride=16)
        self.patch_embed.img_size = (64, 64)  # type: ignore[assignment]  # as timm's PatchEmbed has it
        self.patch_embed.strict_img_size = not dynamic_img_size  # type: ignore[assignment]
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward_features(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token + patches.mean(dim=1, keepdim=True), patches], dim=1)
        return torch.tanh(self.mix(tokens))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.forward_features(pixels)[:, 0])


NETWORKS = {
    name.lower(): cls
    for name, cls in [(cls.__name__, cls) for cls in (
        Convolutions, ChannelsLast, NormAfterPooling, LayerAfterPooling, TwoHeads, Tokens)]
}  # fmt: skip


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with timm's `create_model`."""
    module = types.ModuleType("timm")
    module.create_model = lambda name, pretrained, **options: NETWORKS[name](**options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


def save_timm(folder: Path, architecture: str, names: tuple[str, ...] = CLASSES, **config: object) -> Path:
    """As timm's `save_for_hf` writes it."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    network = NETWORKS[architecture](num_classes=5)
    save_file(network.state_dict(), folder / "model.safetensors")
    preprocessing = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "input_size": [3, 64, 64]}
    fields = {"architecture": architecture, "num_classes": 5, "pretrained_cfg": preprocessing, **config}
    (folder / "config.json").write_text(json.dumps({**fields, "label_names": names} if names else fields))
    return folder


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("architecture", "cells", "proof"),
    [("convolutions", 8, "mean_of_cells"), ("channelslast", 8, "mean_of_cells"), ("tokens", 4, "class_token")],
)
def test_timm_networks_are_dense(architecture: str, cells: int, proof: str, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(str(save_timm(tmp_path, architecture)))
    assert checkpoint.architecture == "timm"
    classifier = load_classifier(checkpoint)
    surgery = DenseClassifier(classifier, "cpu").prove(64)
    assert (surgery.grid, surgery.proof) == ((cells, cells), proof)
    assert classifier.load_class_map().names == CLASSES
    assert classifier.normalisation.std == (0.2, 0.25, 0.3)
    assert classifier.normalisation.scale == 1 / 255
    assert classifier.weights == checkpoint.sha256()


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("normafterpooling", "LayerNorm after pooling"),
        ("layerafterpooling", r"shape \[2, 8, 8, 8\], expected a map \[n, 16, y, x\].*MobileNetV3"),
        ("twoheads", "no second head for distillation"),
    ],
)
def test_timm_networks_that_are_not_linear_are_refused(architecture: str, message: str, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(str(save_timm(tmp_path, architecture)))
    with pytest.raises(Refused, match=message):
        DenseClassifier(load_classifier(checkpoint), "cpu").prove(64)


@pytest.mark.usefixtures("timm")
def test_timm_tokens_take_the_size_that_they_were_made_for(tmp_path: Path) -> None:
    strict = DenseClassifier(load_classifier(find_checkpoint(str(save_timm(tmp_path / "a", "tokens")))), "cpu")
    with pytest.raises(UsageError, match=r"input_size must be 64 .* got 96.*dynamic_img_size"):
        strict.prove(96)
    folder = save_timm(tmp_path / "b", "tokens", model_args={"dynamic_img_size": True})
    assert DenseClassifier(load_classifier(find_checkpoint(str(folder))), "cpu").prove(96).grid == (6, 6)


@pytest.mark.usefixtures("timm")
def test_timm_checkpoints_that_do_not_fit_say_so(tmp_path: Path) -> None:
    nameless = load_classifier(find_checkpoint(str(save_timm(tmp_path / "a", "convolutions", names=()))))
    with pytest.raises(UsageError, match="does not name its 5 classes. Give `class_names`"):
        nameless.load_class_map()
    folder = save_timm(tmp_path / "b", "convolutions", model_args={"channels": 16})
    with pytest.raises(Refused, match="weights do not fit convolutions"):
        load_classifier(find_checkpoint(str(folder)))
    (folder / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config.json is not JSON .* Save the model again"):
        find_checkpoint(str(folder))


@pytest.mark.usefixtures("timm")
def test_timm_names_are_repositories_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "c0ffee" * 6 + "abcd"
    home = tmp_path / "models--timm--small.in1k"
    (home / "snapshots").mkdir(parents=True)
    save_timm(home / "snapshots" / commit, "convolutions")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert local_checkpoint("timm:small.in1k") is None
    found = find_checkpoint("timm:small.in1k")
    assert (found.architecture, found.revision) == ("timm", commit)
    assert find_checkpoint("timm:timm/small.in1k", commit) == found
    with pytest.raises(UsageError, match="the hub did not give 'timm/none'"):
        find_checkpoint("timm:none")


class ResidualShape(nn.Module):
    """Shaped like torchvision's ResNet: children in order, avgpool, fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        self.layer4 = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.layer4(self.conv1(pixels))), 1))


class MobileShape(nn.Module):
    """Shaped like torchvision's MobileNetV2: features, pooling in forward, classifier with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 5))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.features(pixels).mean(dim=(2, 3)))


class DeepHeadShape(MobileShape):
    """Shaped like torchvision's MobileNetV3 and VGG: an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(8, 8), nn.Hardswish(), nn.Linear(8, 5))


class TransformerShape(ResidualShape):
    """Shaped like torchvision's VisionTransformer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()


SHAPES = {"resnet": ResidualShape, "mobilenet": MobileShape, "deep": DeepHeadShape, "vit": TransformerShape}


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A module with torchvision's `models`; its weights are files behind file: addresses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    known = {}
    for name, cls in SHAPES.items():
        torch.manual_seed(0)
        torch.save(cls().state_dict(), tmp_path / "weights.pth")
        data = (tmp_path / "weights.pth").read_bytes()
        served = tmp_path / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        served.write_bytes(data)
        seen = types.SimpleNamespace(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        entry = types.SimpleNamespace(
            name="V1", url=served.as_uri(), meta={"categories": list(CLASSES)}, transforms=lambda seen=seen: seen
        )
        known[name] = _Weights(entry)
    models = types.ModuleType("torchvision.models")
    models.list_models = lambda: list(SHAPES)  # type: ignore[attr-defined]
    models.get_model = lambda name, weights: SHAPES[name]()  # type: ignore[attr-defined]
    models.get_model_weights = lambda name: known[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return tmp_path


class _Weights:
    """Like torchvision's WeightsEnum."""

    def __init__(self, entry: object) -> None:
        self.DEFAULT, self.__members__ = entry, {"V1": entry}

    def __getitem__(self, name: str) -> object:
        return self.__members__[name]


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("network", ["resnet", "mobilenet"])
def test_torchvision_networks_are_dense(network: str) -> None:
    checkpoint = find_checkpoint(f"torchvision:{network}")
    assert (checkpoint.architecture, checkpoint.network, checkpoint.revision) == ("torchvision", network, "V1")
    assert find_checkpoint(f"torchvision:{network}@V1") == checkpoint
    classifier = load_classifier(checkpoint)
    surgery = DenseClassifier(classifier, "cpu").prove(64)
    assert (surgery.grid, surgery.proof) == ((8, 8), "mean_of_cells")
    assert classifier.load_class_map().names == CLASSES
    assert classifier.normalisation == IMAGENET


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("network", "message"), [("deep", "must end in one linear layer"), ("vit", "adds its class token between")]
)
def test_torchvision_networks_that_cannot_be_dense_are_refused(network: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        load_classifier(find_checkpoint(f"torchvision:{network}"))


def test_torchvision_names_and_files_are_checked(torchvision: Path) -> None:
    assert local_checkpoint("torchvision:resnet") is None
    with pytest.raises(UnknownName, match="unknown torchvision model 'resnte'; did you mean 'resnet'"):
        find_checkpoint("torchvision:resnte")
    with pytest.raises(UnknownName, match="unknown weights of resnet 'V3'; known are: V1"):
        find_checkpoint("torchvision:resnet@V3")
    (served,) = torchvision.glob("mobilenet-*.pth")
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"the weights V1 did not come: invalid hash value.* put mobilenet-"):
        find_checkpoint("torchvision:mobilenet")


@pytest.mark.parametrize("model", ["torchvision:resnet18", "timm"])
def test_missing_libraries_are_named(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("timm", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = str(save_timm(tmp_path, "convolutions"))
    with pytest.raises(UsageError, match=r"need.* does not import here: .* `pip install t"):
        load_classifier(find_checkpoint(folder if model == "timm" else model))


def test_a_torchvision_that_does_not_fit_torch_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It raises RuntimeError when imported, as the GPU build does beside a CPU build of torch."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UsageError, match="nms does not exist Run `pip install torchvision` of the build that fits"):
        find_checkpoint("torchvision:resnet18")


def _importable(name: str) -> Any:
    """The real library, or a skip with what its import said (a GPU build of torchvision raises RuntimeError)."""
    try:
        return __import__(name)
    except (ImportError, RuntimeError) as error:
        return pytest.skip(f"{name} does not import here: {error}")


def test_the_real_timm(tmp_path: Path) -> None:
    timm = _importable("timm")
    for name, proof in (("resnet18", "mean_of_cells"), ("vit_tiny_patch16_224", "class_token")):
        network = timm.create_model(name, num_classes=5)
        folder = tmp_path / name
        folder.mkdir()
        save_file(network.state_dict(), folder / "model.safetensors")
        config = {"architecture": name, "num_classes": 5, "label_names": CLASSES,
                  "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        classifier = load_classifier(find_checkpoint(str(folder)))
        assert DenseClassifier(classifier, "cpu").prove(224).proof == proof


def test_the_real_torchvision() -> None:
    _importable("torchvision")
    from relabel.labelers.torchvision_models import trunk

    models = __import__("torchvision.models").models
    for name in ("resnet18", "regnet_y_400mf", "mobilenet_v2", "efficientnet_b0", "swin_t"):
        network = models.get_model(name, weights=None, num_classes=5).eval()
        head = next(head for head in ("fc", "classifier", "head") if hasattr(network, head))
        classifier = from_module(network, features=trunk(network, head), head=getattr(network, head),
                                 normalisation=IMAGENET, class_names=CLASSES)  # fmt: skip
        assert DenseClassifier(classifier, "cpu").prove(224).proof == "mean_of_cells"


class OwnMaps(LabelMapLabeler):
    """A label map of one's own network: the one method that a plugin writes."""

    name = "own_maps"
    version = 1

    def open_classifier(self, revision: str | None) -> Any:
        torch.manual_seed(int(self.parameters.model))
        network = ResidualShape()
        body = nn.Sequential(network.conv1, network.layer4)
        return from_module(network, features=body, head=network.fc, normalisation=IMAGENET, class_names=CLASSES)

    def weight_files(self) -> tuple[Path, ...]:
        return ()


def test_a_network_of_ones_own_is_five_lines() -> None:
    made, same, other = (
        OwnMaps(LabelMapParameters(model=seed, input_size=64, top_k=2), "own") for seed in ("3", "3", "4")
    )
    for one in (made, same, other):
        one.facts = one.inspect()
    assert made.fingerprint() == same.fingerprint() != other.fingerprint()
    made.load("cpu")
    sides = np.full(2, 64, np.int32)
    labels = made({"image": np.zeros((2, 64, 64, 3), np.uint8), "height": sides, "width": sides})
    assert np.asarray(labels["own_ids"]).shape == (2, 8, 8, 2)
    assert made.writes().proof == "mean_of_cells"


def test_weights_are_known_by_value_and_name() -> None:
    torch.manual_seed(0)
    network = ResidualShape()
    before = state_digest(network)
    assert state_digest(network.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
    assert state_digest(network.to(torch.bfloat16)) != before
    network.fc.bias.data[0] += 1
    assert state_digest(network) != before


def test_features_may_bring_a_class_token() -> None:
    network = Tokens()
    classifier = from_module(
        network,
        features=lambda pixels: Features(network.patch_embed(pixels), network.forward_features(pixels)[:, 0]),
        head=network.head,
        normalisation=IMAGENET,
        class_names=CLASSES,
    )
    assert DenseClassifier(classifier, "cpu").prove(64).proof == "class_token"
