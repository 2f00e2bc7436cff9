"""The plan of the code, checked from its source: imports run downward, rooms stay light, files stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import relabel

ROOT = Path(__file__).parent.parent
LIBRARY, PROGRAMS = ROOT / "operators" / "relabel", ROOT / "pipelines"
FILES = sorted([*LIBRARY.rglob("*.py"), *PROGRAMS.rglob("*.py")])

FLOORS = {
    "redaction": -1, "about": 0, "errors": 0, "reasons": 0, "digests": 1,
    "languages": 2, "storage": 2, "statistics": 2, "shards": 3, "labels": 3, "labelers": 4, "releases": 4,
    "exports": 5, "metrics": 5, "refiners": 5, "selectors": 5, "readers": 5, "testing": 5, "relabel": 6,
}  # fmt: skip
HEAVY = {"ray", "torch", "transformers"}
ROOMS_WITH_TORCH = {"labelers", "metrics", "readers", "refiners"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(module: str) -> str:
    """`relabel.labels.contract` lies in `labels`; the package's own `__init__` is the roof, `relabel`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "relabel"


def module_of(path: Path) -> str:
    parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file of the library imports, at any depth."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def upward(path: Path) -> list[str]:
    """The imports of one file of the library that do not run downward."""
    here = room_of(module_of(path))
    found = []
    for line, name in imported(path):
        there = room_of(name) if name.split(".")[0] == "relabel" else here
        allowed = there == here or FLOORS.get(there, 99) < FLOORS[here]
        # Of where samples come from, what makes and keeps labels knows only the names of things.
        if (
            there == "shards"
            and here in {"labelers", "metrics", "refiners", "releases", "selectors"}
            and not name.startswith("relabel.shards.shard.")
        ):
            allowed = False
        if not allowed:
            found.append(f"{name_of(path)}:{line}: {here} imports {name}")
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_imports_run_downward() -> None:
    assert [line for path in sorted(LIBRARY.rglob("*.py")) for line in upward(path)] == []


def test_an_upward_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "relabel"
    (library / "labels").mkdir(parents=True)
    (library / "labels" / "bad.py").write_text("def late():\n    from ..releases.versions import commit\n")
    (library / "labels" / "good.py").write_text("from ..storage import objects\n")
    monkeypatch.setattr(sys.modules[__name__], "LIBRARY", library)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert upward(library / "labels" / "bad.py") == [
        "relabel/labels/bad.py:2: labels imports relabel.releases.versions.commit"
    ]
    assert upward(library / "labels" / "good.py") == []


def test_the_library_knows_neither_programs_nor_ray_and_torch_only_where_models_are() -> None:
    found = []
    for path in LIBRARY.rglob("*.py"):
        banned = {"pipelines", "ray"} | (set() if room_of(module_of(path)) in ROOMS_WITH_TORCH else HEAVY)
        found += [f"{name_of(path)}:{line}: {name}" for line, name in imported(path) if name.split(".")[0] in banned]
        found += [f"{name_of(path)}:{line}: {name}" for line, name in imported(path) if "relabel.pipelines" in name]
    assert found == []


def test_the_library_imports_itself_relatively() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).split(".")[0] == "relabel"
    ]
    assert found == []


def test_importing_relabel_is_light() -> None:
    code = f"import sys, relabel, relabel.labelers; print(sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_a_caption_and_is_short(path: Path) -> None:
    text = path.read_text()
    caption = ast.get_docstring(ast.parse(text))
    assert caption, "the first line of a file says what it is"
    assert text.startswith('"""')
    assert text.count("\n") <= 500
    assert [(name, lines) for name, lines in functions(path) if lines > 80] == []


def test_no_future_annotations_and_no_names_for_type_checkers_only() -> None:
    """Both switch shape checks off without a word; only the package's front says names that it has no use for."""
    banned = ("from __future__ import annotations", "TYPE_CHECKING")
    found = [name_of(path) for path in FILES if any(word in path.read_text() for word in banned)]
    assert found == [name_of(LIBRARY / "__init__.py")]


def test_public_names_lie_where_type_checkers_are_told() -> None:
    tree = ast.parse((LIBRARY / "__init__.py").read_text())
    [told] = [node for node in tree.body if isinstance(node, ast.If)]
    places = {(each.module, name.asname or name.name) for each in told.body for name in each.names}  # type: ignore[attr-defined]
    assert places == {(module, name) for name, module in relabel.MODULES.items()}
    assert {*relabel.__all__} == {*relabel.MODULES, "__version__", "errors"}
    for name in relabel.__all__:
        assert getattr(relabel, name) is not None


def test_tests_are_no_packages_and_have_names_of_their_own() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert [path for path in files if path.name == "__init__.py"] == []
    names = [path.name for path in files if path.name != "conftest.py"]
    assert len(names) == len(set(names))
