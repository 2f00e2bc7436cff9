"""Shipping: a job gets the files that its recipe names, in their places, and nothing else of this machine."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_files import write_plugin

from pipelines.shipping import pack
from pipelines.submitting import base_id, entrypoint
from relabel.errors import UsageError

RECIPE = """
name: maps
source: s3://bucket/*.tar
steps: [label_map: {model: efficientnet-lite0, input_size: 320}]
store: {url: s3://bucket/labels, storage_options: {key: "${BUCKET_KEY}", secret: "${BUCKET_SECRET}"}}
"""
TOPICS = """
name: topics
source: s3://bucket/*.jsonl
steps:
  - pseudo_label:
      engine: {kind: endpoint, url: "http://models:8000/v1", model: m, api_key_env: MODELS_KEY}
      labels: %s
      how: choose
store: s3://bucket/topics
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_plugins: Callable[[], None]) -> Path:
    """A project folder, with what may never leave it; the commands are typed there."""
    folder = tmp_path / "project"
    for name, text in {
        "recipes/maps.yaml": RECIPE,
        "recipes/maps.lock.json": '{"format": 1, "entries": {}}',
        ".env": "BUCKET_SECRET=hunter22222",
        "photos/one.jpg": "large",
        "notes.txt": "private",
        "taxonomies/t1.json": '["sports", "business"]',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def test_recipe_and_lock_file_alone(home: Path) -> None:
    shipment = pack("recipes/maps.yaml")
    assert (list(shipment.files), shipment.folder, shipment.path) == (["maps.lock.json", "maps.yaml"], ".", "maps.yaml")
    assert shipment.variables == ("BUCKET_KEY", "BUCKET_SECRET")
    assert b"hunter" not in b"".join(shipment.files.values())


def test_a_taxonomy_keeps_its_place_to_where_the_command_is_typed(home: Path, tmp_path: Path) -> None:
    (home / "recipes" / "topics.yaml").write_text(TOPICS % "taxonomies/t1.json")
    shipment = pack("recipes/topics.yaml")
    assert list(shipment.files) == ["recipes/topics.yaml", "taxonomies/t1.json"]
    assert (shipment.folder, shipment.path) == (".", "recipes/topics.yaml")
    assert shipment.variables == ("MODELS_KEY",)
    shipment.write(tmp_path / "there")
    assert json.loads((tmp_path / "there" / "taxonomies" / "t1.json").read_text()) == ["sports", "business"]


def test_a_plugin_beside_or_above_the_recipe(home: Path) -> None:
    write_plugin(home / "mine" / "shipped_bytes.py", "shipped_bytes")
    (home / "recipes" / "maps.yaml").write_text(RECIPE + "plugins: [../mine/shipped_bytes.py]\n")
    shipment = pack("recipes/maps.yaml")
    assert list(shipment.files) == ["mine/shipped_bytes.py", "recipes/maps.lock.json", "recipes/maps.yaml"]
    assert (shipment.folder, shipment.path) == ("recipes", "maps.yaml")
    line = entrypoint(shipment, "run", ["--limit", "2"], ["label_map.top_k=3"])
    assert line == (
        "cd recipes && exec python -m relabel.pipelines run maps.yaml --address auto --set label_map.top_k=3 --limit 2"
    )


def test_a_plugin_where_the_command_is_typed(home: Path) -> None:
    write_plugin(home / "typed_bytes.py", "typed_bytes")
    (home / "recipes" / "maps.yaml").write_text(RECIPE + "plugins: [./typed_bytes.py]\n")
    shipment = pack("./photos/../recipes/maps.yaml")
    assert list(shipment.files) == ["recipes/maps.lock.json", "recipes/maps.yaml", "typed_bytes.py"]
    assert (shipment.folder, shipment.path) == (".", "recipes/maps.yaml")


def test_a_plugins_folder_goes_without_caches_and_never_with_keys(home: Path) -> None:
    package = home / "recipes" / "shipped_package"
    write_plugin(package / "__init__.py", "shipped_package")
    for name in ("table.json", ".hidden", "__pycache__/x.pyc"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x")
    (home / "recipes" / "maps.yaml").write_text(RECIPE + "plugins: [./shipped_package]\n")
    assert [name for name in pack("recipes/maps.yaml").files if "package" in name] == [
        "shipped_package/__init__.py", "shipped_package/table.json"
    ]  # fmt: skip
    (package / "server.pem").write_text("key")
    with pytest.raises(UsageError, match=r"server\.pem looks as if it held a secret"):
        pack("recipes/maps.yaml")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["source.path=photos/*.tar"], "source.path: 'photos/.*' is relative"),
        (["source={path: '@list.txt', kind: webdataset}"], "is relative"),
        (["store.url=labels"], "store.url: 'labels' is relative"),
        (["label_map.model=./photos"], r"steps\.label_map\.model: the folder '\./photos' lies on this machine"),
    ],
)
def test_what_cannot_travel_is_refused(home: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pack("recipes/maps.yaml", overrides)


def test_an_id_is_of_the_content_wherever_it_lies(home: Path, tmp_path: Path) -> None:
    def job(recipe: str, *arguments: str, overrides: tuple[str, ...] = ()) -> str:
        shipment = pack(recipe, overrides)
        return base_id(shipment, entrypoint(shipment, "run", arguments, overrides))

    first = job("recipes/maps.yaml")
    assert first.startswith("relabel-maps-")
    assert job(str(home / "recipes" / "maps.yaml")) == first
    shutil.copytree(home / "recipes", tmp_path / "elsewhere")
    assert job(str(tmp_path / "elsewhere" / "maps.yaml")) == first
    others = [
        job("recipes/maps.yaml", "--limit", "1"),
        job("recipes/maps.yaml", overrides=("label_map.top_k=3",)),
    ]
    (home / "recipes" / "maps.lock.json").write_text('{"format": 1, "entries": {"a": 1}}')
    assert len({first, *others, job("recipes/maps.yaml")}) == 4


def test_a_wheel_is_told_by_its_content_not_by_its_name(home: Path) -> None:
    def wheel(name: str, text: str, times: tuple[int, ...] = (1980, 1, 1, 0, 0, 0)) -> Path:
        with zipfile.ZipFile(home / name, "w") as archive:
            archive.writestr(zipfile.ZipInfo("relabel/mark.py", times), text)  # type: ignore[arg-type]
        return home / name

    one = pack("recipes/maps.yaml", wheels=[wheel("a-1-py3-none-any.whl", "x = 1")])
    same = pack("recipes/maps.yaml", wheels=[wheel("a-1-py3-none-any.whl", "x = 1", (2020, 1, 1, 0, 0, 0))])
    other = pack("recipes/maps.yaml", wheels=[wheel("a-1-py3-none-any.whl", "x = 2")])
    assert one.files["relabel/mark.py"] == b"x = 1"
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("name", "member", "said"),
    [
        ("a-1-cp311-cp311-linux_x86_64.whl", "a.py", "wheel of pure Python"),
        ("a-1-py3-none-any.whl", "../a.py", "leaves its folder"),
        ("a-1-py3-none-any.whl", "/a.py", "leaves its folder"),
    ],
)
def test_a_wheel_that_is_none_is_refused(home: Path, name: str, member: str, said: str) -> None:
    with zipfile.ZipFile(home / name, "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(UsageError, match=said):
        pack("recipes/maps.yaml", wheels=[home / name])
    with pytest.raises(UsageError, match="no wheel can be read"):
        pack("recipes/maps.yaml", wheels=[home / "b-1-py3-none-any.whl"])
