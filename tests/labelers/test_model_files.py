"""Model files: the same digest wherever a model lies; a bucket's model is fetched once per node, and whole."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relabel.digests import Json
from relabel.errors import Refused, StorageError, UsageError
from relabel.labelers.engines import model_files
from relabel.labelers.engines.model_files import ModelFolder, model_folder
from relabel.storage.objects import ObjectInfo
from relabel.storage.opening import open_store

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"x" * 100_000,
    "chat/template.jinja": b"{{ x }}",
    "README.md": b"#",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELABEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, **changed: bytes) -> str:
    for name, data in {**FILES, **{name.replace("__", "."): data for name, data in changed.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def test_the_digest_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    one, same = model_folder(write(tmp_path / "a")).facts(), model_folder(write(tmp_path / "b")).facts()
    assert one == same
    changed = model_folder(write(tmp_path / "c", config__json=b"{ }")).facts()
    assert changed != one
    readme = model_folder(write(tmp_path / "d", README__md=b"other")).facts()
    assert readme == one, "what no engine reads is no part of it"


def test_a_folder_that_changed_is_refused(tmp_path: Path) -> None:
    folder = model_folder(write(tmp_path / "a"))
    facts = folder.facts()
    folder.require(facts)
    write(tmp_path / "a", model__safetensors=b"y" * 100_000)
    with pytest.raises(Refused, match="plan again"):
        folder.require(facts)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="must hold"):
        ModelFolder(tmp_path).facts()
    with pytest.raises(UsageError, match="no folder"):
        model_folder(str(tmp_path / "nowhere"))


def put(s3_root: str, **changed: bytes) -> str:
    store = open_store(f"{s3_root}/model")
    for name, data in {**FILES, **{name.replace("__", "."): data for name, data in changed.items()}}.items():
        store.put(name, data)
    return f"{s3_root}/model"


def test_a_bucket_is_fetched_once_and_is_the_same_model(tmp_path: Path, s3_root: str, cache: Path) -> None:
    url = put(s3_root)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(model_folder, [url] * 4))
    assert len({folder.path for folder in folders}) == 1
    assert folders[0].facts() == model_folder(write(tmp_path / "here")).facts()
    before = {path: path.stat().st_mtime_ns for path in (cache / "models").rglob("*.safetensors")}
    assert len(before) == 1
    model_folder(url)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    changed = model_folder(put(s3_root, config__json=b"{ }"))
    assert changed.path != folders[0].path
    assert changed.facts() != folders[0].facts()


def test_processes_of_one_node_wait_for_each_other(s3_root: str, cache: Path) -> None:
    url = put(s3_root)
    code = f"from relabel.labelers.engines.model_files import model_folder; print(model_folder({url!r}).facts())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    said = {process.communicate(timeout=60)[0] for process in processes}
    assert len(said) == 1
    assert b"weights" in said.pop()
    assert len(list((cache / "models").glob("*/config.json"))) == 1


def test_a_fetch_that_was_broken_off_is_begun_again(s3_root: str, cache: Path) -> None:
    folder = model_folder(put(s3_root)).path
    (folder / ".complete").unlink()
    (folder / "config.json").write_bytes(b"half")
    assert (model_folder(f"{s3_root}/model").path / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["/tmp/outside.json", "../outside.json"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def list(self, prefix: str) -> list[ObjectInfo]:
            return [ObjectInfo(path=name, size=1, etag="tag", modified=0.0)]

    monkeypatch.setattr(model_files, "open_store", lambda url, options: Hostile())
    with pytest.raises(Refused, match="outside the model's folder"):
        model_folder("s3://bucket/model")


def test_a_model_of_the_hub_is_opened_at_the_commit_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the recipe names none, and the branch has moved on."""
    asked = []

    def snapshot_download(repository: str, revision: str | None, ignore_patterns: list[str]) -> str:
        asked.append((repository, revision))
        return write(tmp_path / (revision or "newest"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    facts: dict[str, Json] = model_folder("hf:org/name", commit="c0ffee").facts()
    assert asked == [("org/name", "c0ffee")]
    assert facts["commit"] == "c0ffee"


def test_an_empty_prefix_says_so(s3_root: str) -> None:
    with pytest.raises((UsageError, StorageError), match="holds no files"):
        model_folder(f"{s3_root}/nothing")
