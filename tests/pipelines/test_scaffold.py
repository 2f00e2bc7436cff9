"""`relabel new labeler NAME`: a package that passes its own test right away, and is the README's example."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command_line import main
from pipelines.scaffold import new_labeler
from relabel.errors import UsageError

pytestmark = pytest.mark.usefixtures("forget_plugins")


def test_a_new_package_passes_its_own_test(tmp_path: Path, root: Path) -> None:
    assert main(["new", "labeler", "blur_kind", "--out", str(tmp_path)]) == 0
    paths = f"{root / 'operators'}:{root}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "blur_kind"],
        cwd=tmp_path, env={"PYTHONPATH": paths, "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_new_package_loads_from_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.loading import load

    assert main(["new", "labeler", "blur_kind", "--out", str(tmp_path), "--json"]) == 0
    assert [Path(path).name for path in json.loads(capsys.readouterr().out)] == [
        "blur_kind.py", "test_blur_kind.py", "pyproject.toml", "README.md",
    ]  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "source: {path: '*.tar'}\nplugins: [blur_kind/blur_kind.py]\nsteps: [blur_kind: {size: 8}]\nstore: labels\n"
    )
    assert load(recipe).steps[0].parameters == {"size": 8}
    assert load(load(recipe)).plugins == ("blur_kind/blur_kind.py",)
    with pytest.raises(UsageError, match="unknown field 'sise'; did you mean 'size'"):
        load(recipe, ["blur_kind.sise=9"])


def test_the_plugin_repository_is_what_it_writes(tmp_path: Path, root: Path) -> None:
    repository = root / "tests" / "plugins" / "brightness"
    written = new_labeler("brightness", tmp_path)
    assert {path.name for path in written} == {path.name for path in repository.iterdir() if path.is_file()}
    for path in written:
        assert path.read_text() == (repository / path.name).read_text(), path.name
    assert len((repository / "brightness.py").read_text().splitlines()) <= 30


@pytest.mark.parametrize("name", ["Blur", "class", "9lives", "a-b", "label_map", "json", "labeler", "field", "x" * 60])
def test_names_that_are_taken_or_none_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        new_labeler(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_labeler("blur_kind", tmp_path)
    assert main(["new", "labeler", "blur_kind", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
