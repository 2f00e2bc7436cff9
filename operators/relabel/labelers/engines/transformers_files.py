"""Transformers files: where a model of transformers lies, and the digests of all that decides its answers."""

import dataclasses
import hashlib
import json
from pathlib import Path

from ...digests import Json, digest
from ...errors import UsageError
from ..checkpoints import (
    HUB_FILES,
    HUB_PREFIX,
    TEXT_FILES,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    TRANSFORMERS,
    find_checkpoint,
    local_checkpoint,
)

GGUF = ".gguf"
CONFIG = "config.json"
VOLATILE = ("_name_or_path", "architectures", "dtype", "name_or_path", "torch_dtype", "transformers_version")
"""Fields of JSON files that do not change what is computed."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model on this machine."""

    folder: Path
    weights: tuple[Path, ...]
    configuration: tuple[Path, ...]
    """Sorted by name: how it is built, how text and images become numbers."""
    sha256: str
    """Of the weights; empty where it was not asked for."""
    revision: str | None = None
    """The hub's commit."""

    @property
    def gguf(self) -> str | None:
        """The file's name, where one file holds everything."""
        return self.weights[0].name if self.weights[0].suffix == GGUF else None

    def architecture(self) -> str:
        """Digest of what is computed, apart from weights."""
        return self.sha256 if self.gguf else _digest(self.folder / CONFIG)

    def text(self) -> str:
        """Digest of how text and images become numbers and numbers text: tokenizer, templates, processors."""
        if self.gguf:
            return self.sha256
        return digest({path.name: _digest(path) for path in self.configuration if path.name != CONFIG})


def local_files(model: str) -> ModelFiles | None:
    """The files where they are here and the model is no hub's; weights not read. Raises UsageError as `find_files`."""
    _require_known(model)
    if model.startswith(HUB_PREFIX):
        return None
    path = Path(model).expanduser()
    if path.suffix == GGUF:
        return ModelFiles(path.parent, (path,), (), "") if path.is_file() else None
    checkpoint = local_checkpoint(str(path.absolute()))
    return None if checkpoint is None else ModelFiles(path, checkpoint.weights, _configuration(path), "")


def find_files(model: str, revision: str | None = None) -> ModelFiles:
    """The files, fetched where the hub has them (at `revision`, if given), and the weights' digest.

    Raises UsageError where they are not found, or are no model of transformers.
    """
    _require_known(model)
    path = Path(model).expanduser()
    if path.suffix == GGUF and not model.startswith(HUB_PREFIX):
        if not path.is_file():
            raise UsageError(f"no file {model!r} on this machine. Give a .gguf file, a folder, or hf:org/name.")
        with path.open("rb") as file:
            return ModelFiles(path.parent, (path,), (), hashlib.file_digest(file, "sha256").hexdigest())
    name = model if model.startswith(HUB_PREFIX) else str(path.absolute())
    checkpoint = find_checkpoint(name, revision, (*HUB_FILES, *TEXT_FILES))
    if checkpoint.architecture != TRANSFORMERS:
        raise UsageError(
            f"an engine needs a language or vision-language model of transformers, got {checkpoint.architecture} in "
            f"{checkpoint.folder}."
        )
    configuration = _configuration(checkpoint.folder)
    return ModelFiles(
        checkpoint.folder, checkpoint.weights, configuration, checkpoint.sha256(), revision=checkpoint.revision
    )


def _require_known(model: str) -> None:
    if model.startswith((TIMM_PREFIX, TORCHVISION_PREFIX)):
        raise UsageError(f"engine.model must be a folder, hf:org/name[@revision] or a .gguf file, got {model!r}.")


def _configuration(folder: Path) -> tuple[Path, ...]:
    patterns = (CONFIG, "preprocessor_config.json", *TEXT_FILES)
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return tuple(sorted(path for path in found if path.suffix not in {".py", ".safetensors"}))


def _digest(path: Path) -> str:
    """Of the bytes; of small JSON files, of what they say."""
    data = path.read_bytes()
    if path.suffix != ".json" or path.name in {"tokenizer.json", "vocab.json"}:
        return hashlib.sha256(data).hexdigest()
    try:
        fields: Json = json.loads(data)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}). Save the model again.") from error
    return digest(
        {name: value for name, value in fields.items() if name not in VOLATILE} if isinstance(fields, dict) else fields
    )
