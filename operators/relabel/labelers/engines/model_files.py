"""Model files: a language model's folder on this node, fetched once, and the digest of all that is in it.

A model is a folder, `hf:org/name[@commit]`, or a bucket's prefix (`s3://bucket/models/name`). Processes of one node
wait for each other by a file lock: one fetches or hashes, the others find it done. A fetched folder is named by what
was listed (names, sizes, ETags), and never changes.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ...digests import Json, digest
from ...errors import Refused, UsageError
from ...storage.failures import translated
from ...storage.filesystems import resolve
from ...storage.opening import open_store
from ..checkpoints import HUB_PREFIX

UNREAD = (".md", ".gitattributes", ".gitignore", ".lock", ".bin", ".pth", ".pt", ".onnx", ".h5", ".msgpack")
"""Ends of names that no engine reads from a folder of safetensors; pickled weights are never fetched."""
CACHE_VARIABLE = "RELABEL_CACHE"
COMPLETE = ".complete"


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this node."""

    path: Path
    commit: str | None = None
    """Of the hub."""

    def files(self) -> list[Path]:
        """All that may decide an answer, by name."""
        found = (path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path for path in found if not path.name.endswith(UNREAD))

    def facts(self) -> dict[str, Json]:
        """`weights`: digest over names and contents; the same wherever the folder lies."""
        files = self.files()
        if not any(path.suffix in (".safetensors", ".gguf") for path in files):
            raise UsageError(
                f"{self.path} must hold *.safetensors, got {[path.name for path in files][:10]}. Save the model with "
                "`model.save_pretrained(folder)`; pickled weights (.bin, .pth) are not loaded."
            )
        with _locked(cache_folder() / "digests" / digest([str(self.path.resolve())])) as memo:
            known = json.loads(memo.read_text()) if memo.exists() else {}
            entries = {path.relative_to(self.path).as_posix(): _entry(path, known) for path in files}
            _replace(memo, json.dumps({entry["state"]: entry["sha256"] for entry in entries.values()}))
        weights = digest({name: entry["sha256"] for name, entry in entries.items()})
        return {"weights": weights, **({"commit": self.commit} if self.commit else {})}

    def require(self, facts: Mapping[str, Json]) -> None:
        """Raises Refused where these are not the files that the plan saw."""
        found = self.facts()
        if found["weights"] != facts.get("weights"):
            raise Refused(
                f"{self.path} holds other bytes (digest {found['weights'][:12]}) than when the run was planned "
                f"({str(facts.get('weights'))[:12]}). Give every node the same model, or plan again."
            )


def model_folder(model: str, options: Mapping[str, Json] | None = None, commit: str | None = None) -> ModelFolder:
    """The model's folder on this node, fetched where it is not here (of the hub at `commit`, if given).

    Raises UsageError, StorageError, and Refused for a bucket whose names lead out of the folder.
    """
    if model.startswith(HUB_PREFIX):
        return _from_hub(model.removeprefix(HUB_PREFIX), commit)
    if "://" in model:
        return ModelFolder(_from_bucket(model, options or {}))
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"no folder {model!r} on this machine. Give the folder of a saved model, hf:org/name@commit, or a "
            "bucket's prefix (s3://...)."
        )
    return ModelFolder(folder)


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/relabel").expanduser()


def _from_hub(name: str, commit: str | None) -> ModelFolder:
    repository, _, named = name.partition("@")
    revision = commit or named
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UsageError("hub models need transformers. Run `pip install 'relabel-ray[transformers]'`.") from error
    ignored = [f"*{end}" for end in UNREAD]
    try:
        folder = snapshot_download(repository, revision=revision or None, ignore_patterns=ignored)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the hub did not give {repository!r} (revision {revision or 'main'}), and it is not in the cache: {error} "
            "Check the name and the network, or give the folder of a saved model."
        ) from error
    return ModelFolder(Path(folder), Path(folder).name)


def _from_bucket(url: str, options: Mapping[str, Json]) -> Path:
    listed = [info for info in open_store(url, options).list("") if not info.path.endswith(UNREAD)]
    if not listed:
        raise UsageError(f"{url} holds no files. Give the prefix under which the model's folder was put.")
    for info in listed:
        path = PurePosixPath(info.path)
        if ".." in path.parts or path.is_absolute():
            raise Refused(f"{url} holds an object named {info.path!r}, which would lie outside the model's folder.")
    folder = cache_folder() / "models" / digest([url, *([info.path, info.size, info.etag] for info in listed)])
    with _locked(folder):
        if not (folder / COMPLETE).exists():
            _fetch(url, options, [info.path for info in listed], folder)
    return folder


def _fetch(url: str, options: Mapping[str, Json], paths: list[str], folder: Path) -> None:
    filesystem, root = resolve(url, options)
    shutil.rmtree(folder, ignore_errors=True)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with translated(f"{url}/{path}"):
            filesystem.get_file(f"{root}/{path}", str(folder / path))
    (folder / COMPLETE).touch()


def _entry(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The file's digest, taken from what is known where size and time are the same."""
    stat = path.stat()
    state = f"{path.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    if state in known:
        return {"state": state, "sha256": known[state]}
    with path.open("rb") as file:
        return {"state": state, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """One process of this node at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
