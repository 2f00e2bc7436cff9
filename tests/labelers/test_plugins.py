"""Plugins: imported from a file, a package or by name, known by their sources, and refused with a reason."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_files import code, write_plugin

from relabel import Parameters
from relabel.errors import UnknownName, UsageError
from relabel.labelers import registry
from relabel.labelers.plugins import load_plugin
from relabel.labelers.provenance import definers, root_module, source_of

pytestmark = pytest.mark.usefixtures("forget_plugins")


def test_a_file_is_a_module_of_its_name(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "plug_file.py", "plug_a")
    module = load_plugin("plug_file.py", [tmp_path])
    assert sys.modules["plug_file"] is module
    assert load_plugin(str(path)) is module
    assert load_plugin("plug_file.py") is module, "a recipe that is loaded again has lost its folder"
    assert registry.labeler("plug_a") is module.plug_aLabeler
    assert str(tmp_path) not in sys.path


def test_a_package_folder_brings_its_modules(tmp_path: Path) -> None:
    write_plugin(tmp_path / "plug_package" / "parts" / "inner.py", "plug_b")
    (tmp_path / "plug_package" / "parts" / "__init__.py").write_text("")
    (tmp_path / "plug_package" / "__init__.py").write_text("from .parts import inner\n")
    load_plugin("./plug_package", [tmp_path])
    cls = registry.labeler("plug_b")
    assert cls.__module__ == "plug_package.parts.inner"
    assert root_module(cls.__module__).__name__ == "plug_package"
    files = ["plug_package/__init__.py", "plug_package/parts/__init__.py", "plug_package/parts/inner.py"]
    assert list(source_of(cls)["files"]) == files


def test_a_module_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write_plugin(tmp_path / "plug_space" / "plug_inside" / "__init__.py", "plug_c")
    module = load_plugin("plug_space.plug_inside")
    assert registry.labeler("plug_c").__module__ == "plug_space.plug_inside"
    assert root_module("plug_space.plug_inside") is module, "a folder without __init__.py holds packages, and is none"
    assert list(source_of(registry.labeler("plug_c"))["files"]) == ["plug_inside/__init__.py"]


def test_relative_to_the_recipe_first_then_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path / "here" / "plug_near.py", "plug_near")
    write_plugin(tmp_path / "there" / "plug_near.py", "plug_far")
    monkeypatch.chdir(tmp_path / "there")
    load_plugin("plug_near.py", [tmp_path / "here"])
    assert registry.labeler("plug_near").__module__ == "plug_near"
    with pytest.raises(UsageError, match="has the name of the module"):
        load_plugin("plug_near.py", [tmp_path / "there"])


def test_line_endings_do_not_count_and_anything_else_does(tmp_path: Path, forget_plugins: Callable[[], None]) -> None:
    digests = []
    for folder, text in (("a", code("plug_d")), ("b", code("plug_d").replace("\n", "\r\n")), ("c", code("plug_d", 2))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plug_lines.py").write_bytes(text.encode())
        module = load_plugin(str(tmp_path / folder / "plug_lines.py"))
        digests.append(source_of(module.plug_dLabeler)["digest"])
        forget_plugins()
    assert digests[0] == digests[1] != digests[2]


def test_an_edit_under_a_living_process_is_refused(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "plug_edited.py", "plug_e")
    module = load_plugin(str(path))
    before = module.plug_eLabeler(Parameters()).fingerprint()
    write_plugin(path, "plug_e", 2)
    with pytest.raises(UsageError, match="was edited after this process imported it"):
        load_plugin(str(path))
    assert module.plug_eLabeler(Parameters()).fingerprint() == before, "what runs is what was imported"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", r"is not valid Python: .*plug_bad\.py:1: invalid syntax"),
        ("import no_such_module\n", r"cannot be imported: .*plug_bad\.py:1: ModuleNotFoundError: No module"),
        ("x = 1\nx.y\n", r"cannot be imported: .*plug_bad\.py:2: AttributeError"),
        ("x = 1\n", "registers no operator. Put `@register`"),
        (code("plug_bad").replace("@register", ""), "registers no operator"),
        (code("Plug"), "name must be lower-case letters"),
        (code("plug_bad").replace('"plug_bad", 1', '"plug_bad", 1\n    needs = "image"'), "needs must be a tuple"),
        (code("plug_bad").replace("[Parameters]", "[dict]"), "Parameters must be a class that derives from relabel.P"),
        ("import sys\nsys.exit(3)\n", r"plug_bad\.py:2: SystemExit: 3"),
        (code("plug_bad", 0), "version must be a whole number from 1, got 0"),
        (code("label_map"), "two labelers want the name 'label_map': relabel.labelers.label_map.LabelMapLabeler and"),
    ],
)  # fmt: skip
def test_what_is_no_plugin_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plug_bad.py"
    path.write_text(text)
    before = registry.registered()
    with pytest.raises(UsageError, match=message):
        load_plugin(str(path))
    if "registers no" not in message:
        assert "plug_bad" not in sys.modules
    assert registry.registered() == before


def test_two_plugins_of_one_name_are_refused(tmp_path: Path) -> None:
    load_plugin(str(write_plugin(tmp_path / "plug_one.py", "plug_twice")))
    with pytest.raises(UsageError, match=r"two labelers want the name 'plug_twice': plug_one\..* and plug_two\."):
        load_plugin(str(write_plugin(tmp_path / "plug_two.py", "plug_twice")))
    assert registry.labeler("plug_twice").__module__ == "plug_one"


def test_places_that_hold_no_plugin(tmp_path: Path) -> None:
    for reference, message in (
        ("./nowhere.py", "looked for"),
        ("no_such_plugin", "no module 'no_such_plugin' can be imported here"),
        (str(tmp_path), "without an __init__.py"),
    ):
        with pytest.raises(UsageError, match=message):
            load_plugin(reference, [tmp_path])
    for name in ("two words.py", "notes.txt", "json.py"):
        (tmp_path / name).write_text("")
        with pytest.raises(UsageError):
            load_plugin(str(tmp_path / name))
    assert importlib.import_module("json").__name__ == "json"


def test_a_part_of_a_package_is_named_by_its_folder(tmp_path: Path) -> None:
    inner = write_plugin(tmp_path / "plug_whole" / "inner.py", "plug_i")
    inner.with_name("__init__.py").write_text("")
    with pytest.raises(UsageError, match=r"a part of the package .*plug_whole: name that folder"):
        load_plugin(str(inner))
    with pytest.raises(UsageError, match=r"named with a slash: plugins: \[\./plug_whole\]"):
        load_plugin("plug_whole", [tmp_path])


def test_two_files_make_a_package(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "plug_uses.py", "plug_j")
    path.write_text("import plug_beside\n" + path.read_text())
    path.with_name("plug_beside.py").write_text("")
    with pytest.raises(UsageError, match=r"put both files into a folder with an __init__\.py"):
        load_plugin(str(path))


def test_the_source_of_a_base_class_counts(tmp_path: Path) -> None:
    base = load_plugin(str(write_plugin(tmp_path / "plug_base.py", "plug_k")))
    derived = tmp_path / "plug_derived.py"
    derived.write_text(
        "from plug_base import plug_kLabeler\nfrom relabel import register\n\n\n"
        "@register\nclass Derived(plug_kLabeler):\n    name, version = 'plug_l', 1\n"
    )
    cls = load_plugin(str(derived)).Derived
    assert definers(cls) == [cls, base.plug_kLabeler]
    assert set(source_of(cls)["files"]) == {"plug_derived.py", "plug_base.py"}


def test_a_file_that_would_hide_an_installed_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Rename"):
        load_plugin(str(write_plugin(tmp_path / "tomllib.py", "plug_f")))


def install_entry_point(folder: Path, value: str) -> None:
    """What pip leaves of a distribution with one operator."""
    info = folder / "plug_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[relabel.operators]\nany = {value}\n")


def test_an_entry_point_is_found_without_a_word_in_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plug_installed.py").write_text(code("plug_g").replace("@register", ""))
    install_entry_point(tmp_path, "plug_installed:plug_gLabeler")
    assert registry.labeler("plug_g").__module__ == "plug_installed"
    assert "plug_g" in registry.labelers()
    monkeypatch.delitem(sys.modules, "plug_installed")


def test_a_broken_installed_plugin_spoils_only_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plug_broken.py").write_text("1 / 0\n")
    install_entry_point(tmp_path, "plug_broken")
    assert registry.labeler("label_map").name == "label_map"
    with pytest.raises(UsageError, match=r"ZeroDivisionError: .* installed by the distribution plug-dist"):
        registry.labeler("plug_h")
    (tmp_path / "plug_dist-1.0.dist-info" / "entry_points.txt").write_text("")
    with pytest.raises(UnknownName, match="Your own are named in the recipe's `plugins:`"):
        registry.labeler("plug_h")
